"""The command line: what goes to stdout, what `--json` holds."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from helpers import Cli

ROWS = [
    {"id": "1", "reference": "tell(a[b], c[d])", "prediction": "tell(c[d], a[b])"},
    {"id": "2", "reference": "tell(a[b])", "prediction": "tell(a[b])"},
    {"id": "3", "reference": "tell(a[b])", "prediction": ""},
    {"id": "4", "reference": "tell(a[b])", "error": "refused by the content filter"},
]


def predictions(folder: Path) -> Path:
    file = folder / "p.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_version(cli: Cli) -> None:
    assert cli("--version")[:2] == (0, f"tuneoff {metadata.version('tuneoff')}\n")


def test_score_prints_one_json_document_and_writes_rows(cli: Cli, tmp_path: Path) -> None:
    out_file = tmp_path / "out.jsonl"
    code, out, _ = cli(
        "score", "--task", "functional_representation", "--predictions", predictions(tmp_path),
        "--out", out_file, "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["n"] == 4
    assert found["scores"]["exact_match"] == {
        "value": 0.25, "low": found["scores"]["exact_match"]["low"],
        "high": found["scores"]["exact_match"]["high"], "n": 4, "errors": 1, "by_seed": [],
    }  # fmt: skip
    assert found["scores"]["order_insensitive_match"]["value"] == 0.5
    rows = [json.loads(line) for line in out_file.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[1]["verdict"] == "right"
    assert all(row["verdict"] for row in rows)
    assert set(rows[0]["scores"]) == set(found["scores"])


def test_score_uses_the_tasks_own_references(cli: Cli, tmp_path: Path) -> None:
    from tuneoff.tasks.samples import functional

    example = functional.generate()["test"][0]
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"id": example.id, "prediction": example.completion}) + "\n")
    code, out, err = cli(
        "score", "--task", "functional_representation", "--source", "sample",
        "--predictions", file, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["scores"]["exact_match"]["value"] == 1.0
    assert json.loads(out)["missing"] == 199
    assert "199 of the 200 test examples have no prediction" in err


def test_score_executes_on_the_tasks_own_databases(cli: Cli, tmp_path: Path) -> None:
    from tuneoff.tasks.samples import sql

    test = sql.generate()["test"]
    file = tmp_path / "p.jsonl"
    rows = [{"id": e.id, "prediction": f"{e.completion} ;"} for e in test[:5]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = cli(
        "score", "--task", "text_to_sql", "--source", "sample", "--predictions", file, "--json"
    )
    assert code == 0
    scores = json.loads(out)["scores"]
    assert scores["execution_accuracy"]["value"] == 1.0
    assert scores["exact_match"]["value"] == 0.0


def test_check_counts_duplicates_in_a_data_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text('prompt,completion\n"one two",a\n"one two",a\n"One, two!",a\nthree,b\n')
    code, out, _ = cli("check", file, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["examples"] == 4
    assert found["duplicates"] == {"exact": 1, "near": 1}
    assert len(found["warnings"]) == 2


def test_check_prints_what_is_there(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: text_to_sql, source: sample}\n"
        "contenders: [{name: a, id: prompted, base: tiny}]\n"
    )
    code, out, err = cli("check", file)
    assert (code, err) == (0, "")
    assert "1200 train, 150 validation, 200 test" in out


def test_usage_errors_are_exit_code_2(cli: Cli) -> None:
    assert cli("run")[0] == 2
    assert cli("no-such-command")[0] == 2


def test_a_folder_where_a_file_is_wanted(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("check", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_an_unexpected_error_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: Path) -> None:
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr("tuneoff.bakeoff.check.check_file", broken)
    code, out, err = cli("check", tmp_path)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "RuntimeError: boom (tuneoff --debug shows where" in err


def test_without_a_word_it_shows_what_there_is(cli: Cli) -> None:
    code, out, err = cli()
    assert "Usage" in out + err
    assert "unexpected error" not in out + err
    assert code in (0, 2)
