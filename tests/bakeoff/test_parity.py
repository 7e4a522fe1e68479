"""`tuneoff parity`: files and runs held against each other, with the figures of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli
from judge_server import by_content, running_server

import tuneoff
from tuneoff.bakeoff.parity.answers import join_rows
from tuneoff.errors import TuneoffError
from tuneoff.records import Example
from tuneoff.scoring.base import ScoringInput

COUNT = 60


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(right: set[int], reference: bool = True, count: int = COUNT) -> list[dict[str, Any]]:
    """Rows of which these are right."""
    return [
        {"id": f"test-{n}", "prediction": "yes" if n in right else "no"}
        | ({"reference": "yes", "meta": {"part": f"p{n % 8}"}} if reference else {})
        for n in range(1, count + 1)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two recorded contenders, and their answers."""
    folder = tmp_path_factory.mktemp("parity")
    for split, first, n in (("train", 5000, 2), ("validation", 6000, 2), ("test", 0, COUNT)):
        turns = (
            [{"role": "user", "content": f"Is {first + i} a number?"},
             {"role": "assistant", "content": "yes"}] for i in range(n)
        )  # fmt: skip
        write(folder / f"{split}.jsonl", [{"messages": each} for each in turns])
    write(folder / "old.jsonl", answers(set(range(1, 51)), reference=False))
    write(folder / "new.jsonl", answers({*range(1, 40), 55, 56, 57}, reference=False))
    file = folder / "b.yaml"
    file.write_text(
        "name: p\ntask: {id: chat, train: train.jsonl, validation: validation.jsonl, "
        "test: test.jsonl}\ncontenders:\n"
        "  - {name: old, id: recorded, model: m, predictions: old.jsonl}\n"
        "  - {name: new, id: recorded, model: n, predictions: new.jsonl}\n"
    )
    tuneoff.run(tuneoff.load(file), folder / "run")
    return folder


def test_files_and_runs_have_the_figures_of_a_run(folder: Path) -> None:
    stored = json.loads((folder / "run" / "results.json").read_text())
    (pair,) = stored["comparisons"]
    by_files = tuneoff.parity(
        folder / "old.jsonl", folder / "new.jsonl", references=folder / "test.jsonl"
    )
    by_run = tuneoff.parity(f"{folder / 'run'}:old", f"{folder / 'run'}:new")
    mixed = tuneoff.parity(folder / "old.jsonl", f"{folder / 'run'}:new")
    for found in (by_files, by_run, mixed):
        (candidate,) = found["candidates"]
        for bound, other in (("low", "high"), ("low_90", "high_90"), ("difference", "difference")):
            # There old is a, here new.
            assert candidate[bound] == pytest.approx(-pair[other], abs=1e-12)
            assert candidate[other] == pytest.approx(-pair[bound], abs=1e-12)
        assert candidate["p_value"] == pair["p_value"]
        assert candidate["flips"] == {
            "both": 39, "only_reference": 11, "only_candidate": 3, "neither": 7
        }  # fmt: skip
        for name, side in (("old", found["reference"]), ("new", candidate)):
            (scores,) = (c["scores"] for c in stored["contenders"] if c["name"] == name)
            assert side["scores"]["exact_match"] == scores["exact_match"]
        assert candidate["examples"]["worse"]["inputs"] == "user: Is 39 a number?"
        assert candidate["examples"]["better"]["id"] == "test-55"


def test_what_is_told_and_when_it_fails(cli: Cli, folder: Path, tmp_path: Path) -> None:
    run = folder / "run"
    old = write(tmp_path / "old.jsonl", answers(set(range(1, 51))))
    worse = write(tmp_path / "worse.jsonl", answers(set(range(1, 31))))
    few = write(tmp_path / "few.jsonl", answers({1, 2, 3}, count=10))
    shown = (
        (
            (old, worse, "--fail-if-worse"),
            1,
            "worse.jsonl by 33.3 points [".replace("worse", "old"),
        ),
        ((old, worse), 0, f"{worse} is worse than {old} by 33.3 points ["),
        ((worse, old, "--fail-if-worse"), 0, f"{old} is better than {worse} by 33.3 points ["),
        ((old, few, "--fail-if-worse"), 1, f"left out, ids in {old} only: 50 (test-11, test-12,"),
        ((run, run, "--contender", "old", "--contender", "new"), 0, "cannot be told: −13.3 points"),
        ((old, worse, "--cluster", "part"), 0, "60 examples in common, in 8 clusters (part)"),
        ((old, worse, "--margin", "0.5"), 0, "is worse than"),
    )
    for arguments, expected, words in shown:
        code, out, err = cli("parity", *arguments)
        assert (code, err.count("error")) == (expected, 0)
        assert words in out
    code, out, _ = cli("parity", old, worse, few, "--json")
    found = json.loads(out)
    assert code == 0
    assert [each["outcome"] for each in found["candidates"]] == ["worse", "worse"]
    assert [each["n"] for each in found["candidates"]] == [60, 10]
    assert found["candidates"][1]["left_out"]["reference_only"]["n"] == 50


def test_runs_take_references_and_options_as_files_do(folder: Path, tmp_path: Path) -> None:
    run = folder / "run"
    named = [{"id": f"test-{n}", "reference": "no"} for n in range(1, COUNT + 1)]
    references = write(tmp_path / "references.jsonl", named)
    old = write(tmp_path / "old.jsonl", answers(set(range(1, 51)), reference=False))
    for one, other in ((f"{run}:old", f"{run}:new"), (f"{run}:old", folder / "new.jsonl"),
                       (old, f"{run}:new")):  # fmt: skip
        found = tuneoff.parity(one, other, references=references)
        (candidate,) = found["candidates"]
        # Where yes was right before, no is now.
        assert candidate["flips"] == {
            "both": 7, "only_reference": 3, "only_candidate": 11, "neither": 39
        }  # fmt: skip
    example, thought = Example("1", {}, "no"), "<think>yes</think>no"
    (row,) = join_rows([ScoringInput("1", "yes", thought)], {"1": example})
    assert (row.reference, row.prediction, row.raw_prediction) == ("no", "no", thought)
    (tmp_path / "same.py").write_text("def score(e, p):\n    return float(p == e.completion)\n")
    other = tmp_path / "run"
    shutil.copytree(run, other)
    test = other / "data" / "test.jsonl"
    test.write_text(test.read_text().replace("Is 39 a", "Is 39 no"))
    pair = f"{run}:old", f"{other}:new"
    for told, what, options in (
        ("another test example for 1 of their", pair, {"metrics": [str(tmp_path / "same.py")]}),
        ("another test example for 1 of their", pair, {"references": references}),
        ("unknown metric 'nosuch'", (f"{run}:old", f"{run}:new"),
         {"metrics": ["exact_match", "nosuch"]}),
        ("the run's task is chat", (f"{run}:old", f"{run}:new"), {"task": "text_to_sql"}),
        ("--databases: there is no folder", (f"{run}:old", f"{run}:new"), {"databases": "no"}),
    ):  # fmt: skip
        with pytest.raises(TuneoffError, match=told):
            tuneoff.parity(*what, **options)


def test_what_a_reader_must_know_of_the_rows(cli: Cli, tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", answers({1, 2}, count=4))
    rows: list[dict[str, Any]] = [
        {"id": f"test-{n}", "prediction": "yes", "reference": None, "sample": k}
        for n in range(1, 4) for k in range(n)
    ]  # fmt: skip
    new = write(tmp_path / "new.jsonl", [*rows, {"id": "test-4", "error": "timeout \ud800"}])
    references = write(
        tmp_path / "r.jsonl", [{"id": f"test-{n}", "reference": "yes"} for n in range(1, 5)]
    )
    code, out, _ = cli("parity", old, new, "--references", references)
    assert code == 0
    assert f"warning: {new}: 3 of 4 examples have fewer than 3 answers" in out
    assert f"no answer, counted as wrong: 1 of {new}." in out
    other = write(tmp_path / "other.jsonl", [{**row, "meta": {"part": "p0"}} for row in
                                             answers({1}, reference=False, count=4)])  # fmt: skip
    assert "in 4 clusters (part)" in cli("parity", old, other, "--cluster", "part")[1]
    half = write(
        tmp_path / "half.jsonl",
        [{"id": "test-1", "sample": k, "prediction": ("\ud800", "yes")[k]} for k in (0, 1)],
    )
    code, out, _ = cli("parity", old, half)
    assert f"{half} is worse, for instance test-1 (0.5 instead of 1):" in out
    code, out, _ = cli("parity", old, half, "--json")
    (candidate,) = json.loads(out)["candidates"]
    assert candidate["examples"]["worse"]["candidate_answer"] == "\ud800"


def test_numbers_samples_and_hostile_answers(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "length.py").write_text("def score(e, p):\n    return float(len(p))\n")
    old = [{"id": n, "prediction": "x" * 9, "reference": "y"} for n in range(20)]
    new = [
        {"id": n, "sample": k, "prediction": "\x1b[31m\nred" + "x" * (n % 3 + k)}
        for n in range(20) for k in range(2)
    ]  # fmt: skip
    files = write(tmp_path / "a.jsonl", old), write(tmp_path / "b.jsonl", new)
    code, out, _ = cli("parity", *files, "--metric", tmp_path / "length.py")
    assert code == 0
    assert "\x1b" not in out
    assert "⟨U+001B⟩[31m red" in out
    assert "length of" in out
    assert "higher 20, lower 0, equal 0" in out
    assert f"{files[1]} is better than {files[0]} by 1.45 [" in out
    (candidate,) = tuneoff.parity(*files, metrics=[str(tmp_path / "length.py")])["candidates"]
    assert candidate["samples"] == 2
    assert candidate["is_not_worse"] is None


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ("", (), "b.jsonl: the file is empty"),
        ('{"id":"z","prediction":"a"}', (), "have no id in common ('1' in one, 'z' in the other)"),
        ('{"id":"1","prediction":"a"}\n' * 2, (), "b.jsonl:2: the id '1' was already given on"),
        ('{"id":"1","prediction":"a","reference":"q"}', (), "have another reference for 1 of"),
        ('{"id":"2","prediction":"a"}', (), "1 of 1 common ids have no reference ('2')"),
        ('{"id":"1"}', (), "b.jsonl:1: the row '1' has no \"prediction\""),
        ("\udcff", (), "b.jsonl:1: this line is not JSON"),
        ('{"id":"1","prediction":"a"}', ("--metric", "exact"), "--metric: unknown metric 'exact'"),
        ('{"id":"1","prediction":"a"}', ("--metric", "no.py"), "--metric: there is no file no.py"),
        ('{"id":"1","prediction":"a"}', ("--mode", "strict"), "--mode: only metrics of SQL"),
        ('{"id":"1","prediction":"a"}', ("--cluster", "k"), "--cluster: '1' has no 'k'"),
        ('{"id":"1","prediction":"a"}', ("--contender", "k"), "--contender: it names a contender"),
        ('{"id":"1","prediction":"a"}', ("--budget-usd", "1"), "--budget-usd: only a judge is"),
        (None, (), "is given twice"),
    ],
)
def test_bad_input_is_one_sentence(
    cli: Cli, tmp_path: Path, rows: str | None, options: tuple[str, ...], words: str
) -> None:
    first = tmp_path / "a.jsonl"
    first.write_text('{"id":"1","prediction":"a","reference":"a"}\n{"id":"2","prediction":"a"}\n')
    second = first
    if rows is not None:
        second = tmp_path / "b.jsonl"
        second.write_text(rows, errors="surrogateescape")
    code, out, err = cli("parity", first, second, *options)
    assert (code, out) == (2, "")
    assert words in err
    assert err.splitlines()[-1].startswith("error: ")


def test_a_run_that_is_not_clear_is_refused(cli: Cli, folder: Path, tmp_path: Path) -> None:
    run, old = folder / "run", folder / "old.jsonl"
    for arguments, words in (
        ((run, run), "run:old is given twice"),
        ((f"{run}:nobody", run), "unknown contender 'nobody' (allowed: new, old)"),
        ((run, old, "--task", "text_to_sql"), "--task: the run's task is chat; drop it"),
        ((run, tmp_path), "there is no results.json in it; give a run directory"),
        ((run, old, "--contender", "old", "--contender", "new"), "2 names for 1 runs"),
    ):
        code, _, err = cli("parity", *arguments)
        assert code == 2
        assert words in err


def test_a_judge_is_paid_once_and_within_its_budget(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for name, good in (("a", 6), ("b", 2)):
        rows = [
            {"id": n, "prediction": "good" if n < good else f"bad {n} {name}", "reference": "fine"}
            for n in range(8)
        ]
        write(tmp_path / f"{name}.jsonl", rows)
    asked = ("parity", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--judge", tmp_path / "j.yaml")
    with running_server() as server:
        server.rule = by_content
        text = (
            "model: m\nconcurrency: 1\nrubric: Be right.\n"
            f"base_url: http://127.0.0.1:{server.server_address[1]}\n"
        )
        price = "price: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 100}\n"
        (tmp_path / "j.yaml").write_text(text + price)
        assert cli(*asked, "--budget-usd", "0.411")[0] == 3
        before = len(server.prompts)
        assert 0 < before < 16
        code, out, err = cli(*asked, "--budget-usd", "1", "--json")
        assert code == 0
        found = json.loads(out)
        assert found["metric"] == "judge"
        # "good" is asked about once, twice (first and second place), and each bad answer so.
        assert len(server.prompts) == len(set(server.prompts)) == 2 + 2 * (2 + 6)
        assert "the judge was shown no task" in found["warnings"][0]
        again, _, err = cli(*asked, "--budget-usd", "1")
        assert (again, len(server.prompts)) == (0, 18)
        assert f"is kept in {tmp_path / 'j.kept'}; it has cost $0.00" in err
        (tmp_path / "j.yaml").write_text(text.replace("127.0.0.1", "judge.invalid"))
        code, _, err = cli(*asked)
        assert code == 2
        assert "has no price in the book" in err
        assert "--yes" in err
        code, _, err = cli(*asked, "--budget-usd", "1", "--yes")
        assert (code, "a `price:`, which --budget-usd needs" in err) == (2, True)
