"""Prediction files and database files."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from tuneoff.errors import DataError
from tuneoff.scoring.base import ScoringInput
from tuneoff.scoring.predictions_file import check_rows, read_rows
from tuneoff.storage.databases import find_database, hash_databases

KNOWN = {"e1": ("gold", {"db_id": "d", "hardness": "easy"})}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "predictions.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_with_and_without_their_own_reference(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '\ufeff{"id": "e1", "prediction": "p", "tokens_in": 3}\n\n'
        '{"id": 2, "reference": "r", "prediction": "", "meta": {"db_id": "x"}}\n'
        '{"id": "e3", "reference": "r", "prediction": null, "error": "refused"}',
    )
    assert list(read_rows(path, KNOWN)) == [
        ScoringInput("e1", "gold", "p", {"db_id": "d", "hardness": "easy"}),
        ScoringInput("2", "r", "", {"db_id": "x"}),
        ScoringInput("e3", "r", "", {}, "refused"),
    ]


def test_what_a_row_brings_goes_before_what_is_known(tmp_path: Path) -> None:
    path = write(
        tmp_path, '{"id": "e1", "reference": "own", "prediction": "p", "meta": {"db_id": "o"}}'
    )
    assert next(read_rows(path, KNOWN)) == ScoringInput(
        "e1", "own", "p", {"db_id": "o", "hardness": "easy"}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "predictions.jsonl: the file is empty"),
        ("\n  \n", "predictions.jsonl: the file is empty"),
        ('{"id": "e1", "prediction": "p"}\nnot json\n', "jsonl:2: this line is not JSON"),
        ("[" * 100_000, "jsonl:1: this line is not JSON"),
        (b'{"id": "e1", "prediction": "\xff"}', "jsonl:1: this line is not JSON"),
        ("[1]", "jsonl:1: got a JSON list, not an object"),
        ("null", "jsonl:1: got a JSON NoneType, not an object"),
        ('{"prediction": "p"}', 'jsonl:1: the row has no "id"'),
        ('{"id": "", "prediction": "p"}', 'jsonl:1: the row has no "id"'),
        ('{"id": "e1"}', "jsonl:1: the row 'e1' has no \"prediction\""),
        ('{"id": "e1", "prediction": null}', "jsonl:1: the row 'e1' has no \"prediction\""),
        ('{"id": "e1", "prediction": 5}', "jsonl:1: \"prediction\" of 'e1' must be a text, got 5"),
        (
            '{"id": "e9", "prediction": "p"}',
            "jsonl:1: the row has no reference and its id 'e9' is not",
        ),
        (
            '{"id": "e1", "prediction": "p", "meta": [1]}',
            "jsonl:1: \"meta\" of 'e1' must be an object",
        ),
        (
            '{"id": "e1", "prediction": "p"}\n\n{"id": "e1", "prediction": "q"}',
            "jsonl:3: the id 'e1' was already given on line 1",
        ),
    ],
)
def test_one_sentence_with_file_and_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_rows(write(tmp_path, text), KNOWN)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        check_rows(tmp_path / "none.jsonl")


def test_a_mistake_in_the_last_line_is_found(tmp_path: Path) -> None:
    good = '{"id": "e1", "prediction": "p"}\n\n{"id": "2", "reference": "r", "prediction": ""}\n'
    assert check_rows(write(tmp_path, good), KNOWN) == (2, 1)
    with pytest.raises(DataError, match="jsonl:4"):
        check_rows(write(tmp_path, f"{good}broken"), KNOWN)


def test_rows_are_read_as_they_are_used(tmp_path: Path) -> None:
    answer = "p" * 1_000
    lines = [f'{{"id": {i}, "reference": "r", "prediction": "{answer}"}}' for i in range(5_000)]
    path = write(tmp_path, "\n".join(lines))
    tracemalloc.start()
    try:
        assert check_rows(path) == (5_000, 1)
        assert sum(len(row.prediction) for row in read_rows(path)) == 5_000_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_finding_a_database(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"no database 'a' in .*a/\*\.sqlite"):
        find_database(tmp_path, "a")
    (tmp_path / "a" / "any.sqlite").touch()
    assert find_database(tmp_path, "a").name == "any.sqlite"
    (tmp_path / "a" / "other.sqlite").touch()
    with pytest.raises(DataError, match=r"holds 2 SQLite files and none is a\.sqlite"):
        find_database(tmp_path, "a")
    (tmp_path / "a" / "a.sqlite").touch()
    assert find_database(tmp_path, "a").name == "a.sqlite"


@pytest.mark.parametrize("db_id", ["", ".", "..", "../a", "/etc", "a/../../b", "a\\b", "a\0"])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, db_id: str) -> None:
    with pytest.raises(DataError, match="is not the name of a folder"):
        find_database(tmp_path, db_id)


def test_hashes(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.sqlite").write_bytes(name.encode() * 100_000)
    assert hash_databases(tmp_path, ["b", "a", "b"]) == {
        name: hashlib.sha256(name.encode() * 100_000).hexdigest() for name in ("a", "b")
    }
