"""`tuneoff score`: files in, scores, rows and breakdowns out."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import tuneoff

GOLD = "SELECT name FROM ship WHERE built > 1960"
ANSWERS = [
    (GOLD, "right"),
    (f"{GOLD};", "right but for form"),
    ("SELECT name FROM ship WHERE built >= 1960", "wrong condition"),
    ("SELECT nme FROM ship", "no such column: nme"),
    ("", "no answer"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    (folder / "databases" / "harbour").mkdir(parents=True)
    path = folder / "databases" / "harbour" / "harbour.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ship (name TEXT, built INTEGER)")
        connection.execute("INSERT INTO ship VALUES ('Ada', 1960), ('Bo', 1970)")
        connection.commit()
    with (folder / "rows.jsonl").open("w") as stream:
        for number, (answer, _) in enumerate(ANSWERS):
            meta = {"db_id": "harbour", "side": "left" if number < 2 else "right"}
            row = {"id": f"r{number}", "reference": GOLD, "prediction": answer, "meta": meta}
            stream.write(json.dumps(row) + "\n")
    return folder


def score(cli: Any, folder: Path, *arguments: object) -> tuple[int, dict[str, Any], str]:
    code, out, err = cli(
        "score", "--task", "text_to_sql", "--predictions", folder / "rows.jsonl",
        "--databases", folder / "databases", "--json", *arguments,
    )  # fmt: skip
    return code, json.loads(out) if out.strip() else {}, err


def test_totals_rows_and_what_they_were_executed_on(cli: Any, folder: Path, tmp_path: Path) -> None:
    code, found, _ = score(cli, folder, "--out", tmp_path / "scores.jsonl")
    assert code == 0
    assert found["n"] == 5
    assert found["scores"]["execution_accuracy"]["value"] == 0.4
    assert found["scores"]["exact_match"]["value"] == 0.2
    assert "test_suite_accuracy" not in found["scores"]
    assert list(found["database_sha256"]) == ["harbour"]
    by_side = found["breakdowns"]["side"]
    assert by_side["left"]["execution_accuracy"]["value"] == 1.0
    assert by_side["right"]["execution_accuracy"]["n"] == 3
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [(row["id"], row["verdict"]) for row in rows] == [
        (f"r{number}", verdict) for number, (_, verdict) in enumerate(ANSWERS)
    ]
    assert set(rows[0]) == {"id", "scores", "verdict"}


def test_one_metric_alone(cli: Any, folder: Path) -> None:
    code, found, _ = score(cli, folder, "--metric", "exact_set_match")
    assert code == 0
    assert list(found["scores"]) == ["exact_set_match"]
    code, _, err = score(cli, folder, "--metric", "exact_set")
    assert code == 2
    assert "--metric: unknown metric 'exact_set'" in err
    assert "did you mean exact_set_match?" in err


def test_derived_databases_complete_the_suite(cli: Any, folder: Path) -> None:
    code, found, _ = score(cli, folder, "--derive", 4)
    assert code == 0
    assert found["scores"]["test_suite_accuracy"]["value"] == 0.4
    assert list(found["database_sha256"]) == [
        "harbour", *(f"harbour/derived-0{number}.sqlite" for number in range(4)),
    ]  # fmt: skip


def test_official_mode(cli: Any, folder: Path) -> None:
    code, found, _ = score(cli, folder, "--mode", "official")
    assert code == 0
    assert found["mode"] == "official"
    assert found["scores"]["execution_accuracy"]["value"] == 0.4


def test_nothing_to_derive_from(cli: Any, folder: Path) -> None:
    code, _, err = cli(
        "score", "--task", "text_to_sql", "--predictions", folder / "rows.jsonl", "--derive", 2
    )
    assert code == 2
    assert "--derive: there are no databases to derive from" in err


def test_a_bad_last_line_is_found_first_and_nothing_is_written(
    cli: Any, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text((folder / "rows.jsonl").read_text() + "broken\n")
    code, _, err = cli(
        "score", "--task", "text_to_sql", "--predictions", path, "--databases",
        folder / "databases", "--out", tmp_path / "out.jsonl",
    )  # fmt: skip
    assert code == 2
    assert "rows.jsonl:6: this line is not JSON" in err
    assert not (tmp_path / "out.jsonl").exists()


def test_the_function_behind_it(folder: Path) -> None:
    scores = tuneoff.score(
        "text_to_sql", folder / "rows.jsonl", folder / "databases", mode="official", workers=1
    )
    assert scores["execution_accuracy"].value == 0.4


def test_a_folder_as_out_is_refused_before_anything(cli: Any, folder: Path, tmp_path: Path) -> None:
    code, _, err = score(cli, folder, "--out", tmp_path)
    assert code == 2
    assert f"--out: {tmp_path} is a folder" in err


def test_deriving_needs_to_know_the_database(cli: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "x", "reference": GOLD, "prediction": GOLD}) + "\n")
    code, _, err = cli(
        "score", "--task", "text_to_sql", "--predictions", path, "--databases",
        folder / "databases", "--derive", 2,
    )  # fmt: skip
    assert code == 2
    assert "id 'x': the row has no meta \"db_id\"" in err


def test_the_predictions_are_not_written_over(cli: Any, folder: Path) -> None:
    before = (folder / "rows.jsonl").read_bytes()
    code, _, err = score(cli, folder, "--out", folder / "rows.jsonl")
    assert code == 2
    assert "holds the predictions themselves" in err
    assert (folder / "rows.jsonl").read_bytes() == before


def test_a_metric_that_was_not_measured_is_said(cli: Any, folder: Path) -> None:
    arguments = ("score", "--task", "text_to_sql", "--predictions", folder / "rows.jsonl")
    code, _, err = cli(*arguments, "--metric", "execution_accuracy")
    assert code == 2
    assert "execution_accuracy needs --databases" in err
    code, _, err = score(cli, folder, "--metric", "test_suite_accuracy")
    assert code == 2
    assert "test_suite_accuracy needs several databases (--derive)" in err


def test_options_that_are_for_sql_alone(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "1", "reference": "f(a[b])", "prediction": "f(a[b])"}\n')
    arguments = ("score", "--task", "functional_representation", "--predictions", path)
    for option in (("--mode", "official"), ("--databases", tmp_path), ("--derive", 2)):
        code, _, err = cli(*arguments, *option)
        assert code == 2
        assert f"{option[0]}: only tasks whose answers are SQL have it" in err
    code, out, _ = cli(*arguments, "--metric", "slot_f1", "--json")
    assert code == 0
    assert list(json.loads(out)["scores"]) == ["slot_f1"]


def test_deriving_from_what_is_no_database(cli: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "harbour").mkdir()
    (tmp_path / "harbour" / "harbour.sqlite").write_bytes(b"no database" * 100)
    code, _, err = cli(
        "score", "--task", "text_to_sql", "--predictions", folder / "rows.jsonl",
        "--databases", tmp_path, "--derive", 2,
    )  # fmt: skip
    assert code == 2
    assert "harbour.sqlite: nothing can be derived from it" in err


def test_thoughts_are_told_of_and_rules_are_named(cli: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    answers = ["<think>\nA port.</think>\nOSLO", "<think>A port", "BERGEN"]
    with rows.open("w") as stream:
        for number, answer in enumerate(answers):
            row = {"id": str(number), "reference": "OSLO", "prediction": answer}
            stream.write(json.dumps(row) + "\n")
    asked = ("score", "--task", "chat", "--predictions", rows)
    code, out, _ = cli(*asked, "--json")
    found = json.loads(out)
    assert (code, found["rules"]["answer_text"]) == (0, 2)
    assert found["scores"]["exact_match"]["value"] == pytest.approx(1 / 3)
    assert found["error_classes"] == {"a thought without its end": 1, "wrong": 1}
    (warning,) = found["warnings"]
    assert warning.startswith("1 of 3 answers are a thought without its end and count as no answer")
    assert f"warning: {warning}" in cli(*asked)[1].replace("\n", " ").replace("  ", " ")
