"""An invented export of OpenAI's evals: what is kept of it, and a bake-off with its graders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tuneoff
from tuneoff.cli.main import app
from tuneoff.errors import ConfigError, DataError
from tuneoff.imports import import_files
from tuneoff.imports.evals import describe_evals, import_evals
from tuneoff.imports.options import ImportOptions

OUTPUT = "{{ sample.output_text }}"
MATCH = {
    "type": "string_check", "name": "Match output", "id": "Match output-063dc79f", "input": OUTPUT,
    "operation": "eq", "reference": "{{ item.correct_label }}",
}  # fmt: skip
CLOSE = {
    "type": "text_similarity", "name": "Close", "input": OUTPUT, "pass_threshold": 0.8,
    "reference": "{{item.correct_label}}", "evaluation_metric": "rouge_1",
}  # fmt: skip
CODE = {"type": "python", "name": "Code", "source": "raise SystemExit('run by an import')"}
BLEU = CLOSE | {"name": "B", "evaluation_metric": "bleu"}
PARTS = {"type": "multi", "name": "Code", "graders": {"c": CODE}, "calculate_output": "c"}
CALLS = MATCH | {"name": "Calls", "id": "c", "input": "{{sample.output_tools[0].function.name}}"}
EVAL = {
    "object": "eval", "id": "e", "name": "Tickets",
    "testing_criteria": [MATCH, CLOSE, CODE, BLEU, PARTS, CALLS],
}  # fmt: skip


def output(
    place: int, label: str, answer: str | None, score: float, run: str = "run/1", **more: Any
) -> dict[str, Any]:
    text = f"Ticket {place}"
    results = [
        {"name": "Match output-063dc79f-8154-4ea0-a9f9-7ee1ba5bcd8b", "score": score,
         "passed": score == 1},
        {"name": "Close", "score": score, "passed": score >= 0.8},
        {"name": "Code", "score": 1.0, "passed": True},
    ]  # fmt: skip
    return {
        "object": "eval.run.output_item", "run_id": run, "datasource_item_id": place,
        "datasource_item": {"ticket_text": text, "correct_label": label}, "results": results,
        "status": "pass", "sample": {
            "model": "gpt-4.1-mini", "error": None, "output": [
                {"content": answer}] if answer is not None else [],
            "input": [{"role": "developer", "content": "Sort."}, {"role": "user", "content": text}],
            **more,
        },
    }  # fmt: skip


OUTPUTS = [
    output(0, "Hardware", "Hardware", 1),
    output(1, "Software", "software", 1),  # stored as right, and eq minds the case: ours is 0
    output(2, "", "Other", 0),
    output(3, "Network", None, 0, error={"code": "server_error", "message": "boom"}),
    output(4, "Network", None, 0),
    output(0, "Hardware", "Hardware", 1, "run/2"),
    output(1, "Software", "Hard", 0, "run/2", input=[{"role": "user", "content": "Otherwise"}]),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "eval.json").write_text(json.dumps(EVAL, indent=2))
    page = {"object": "list", "data": OUTPUTS, "has_more": False}
    (folder / "items.json").write_text(json.dumps(page))
    return folder


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_an_export_holds(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found, lines = import_files([source], out, ImportOptions())
    tests = rows_of(out / "test.jsonl")
    assert [row["id"] for row in tests] == ["item-0", "item-1", "item-3", "item-4"]
    assert tests[0] == {
        "id": "item-0",
        "messages": [
            {"role": "developer", "content": "Sort."}, {"role": "user", "content": "Ticket 0"},
            {"role": "assistant", "content": "Hardware"},
        ],
        "meta": {"item": {"ticket_text": "Ticket 0", "correct_label": "Hardware"}},
    }  # fmt: skip
    assert [(r["id"], r["prediction"]) for r in rows_of(out / "answers-run_1.jsonl")] == [
        ("item-0", "Hardware"), ("item-1", "software"),
    ]  # fmt: skip
    assert [run["asked_otherwise"] for run in found["runs"]] == [0, 1]
    assert json.loads((out / "graders" / "match_output.json").read_text()) == MATCH
    # Of four stored scores of Match output the second differs. Without case and with words alone,
    # "software" is the reference, so Close agrees with all four.
    match, close, code, bleu, parts, calls = found["graders"]
    assert match["scores"] == {
        "of": 4, "agree": 3, "skipped": None, "first": {"id": "item-1", "ours": 0.0, "theirs": 1},
    }  # fmt: skip
    assert (close["scores"]["agree"], close["scores"]["of"]) == (4, 4)
    assert code["scores"]["skipped"] == "it is code, which an import does not run"
    assert parts["scores"] == code["scores"]
    assert parts["file"] == "code-2.json"
    assert "bleu cannot be computed" in bleu["fault"]
    assert "names sample.output_tools" in calls["fault"]
    text = "\n".join(lines)
    for part in (
        "4 test examples; their reference is item.correct_label (grader Match output)",
        "1 left out: no reference",
        "2 answers of gpt-4.1-mini in run run/1; 1 with an error instead of an answer; 1 with no "
        "answer",
        "1 were asked otherwise than test.jsonl asks",
        "agrees with 3 of 4 stored scores; the first that differs: item-1 (stored 1, here 0)",
        "task.metrics: [graders/match_output.json, graders/close.json, graders/code.json, "
        "graders/code-2.json]",
    ):
        assert part in text
    # The same again is no change; another content is refused, and nothing of it is written.
    assert import_evals([source / "eval.json", source / "items.json"], out) == found
    with pytest.raises(DataError, match=r"test\.jsonl: a file of other content is there already"):
        import_evals([source / "items.json"], out, "ticket_text")
    assert rows_of(out / "test.jsonl") == tests


def test_items_alone(tmp_path: Path) -> None:
    rows = [
        {"item": {"question": "2+2?", "ideal": 4, "id": 7}},
        {"item": {"question": "2+2?", "ideal": 4, "id": 7}, "sample": {"output_text": "4"}},
        {"item": {"question": "3+3?"}},
        {"item": {"image": 1, "ideal": 4}},
        {"item": {"input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "5+5?"}],
            "ideal": {"n": 10}}},
        {"strange": 1},
    ]  # fmt: skip
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    found = import_evals([tmp_path / "items.jsonl"], tmp_path / "out")
    assert (found["reference"], found["reference_from"]) == ("item.ideal", "by its name")
    assert found["left_out"] == {
        "no reference": 1, "no prompt that is text": 1, "not JSON": 1,
        "neither an eval, a run, an output item nor an item": 1,
    }  # fmt: skip
    first, last = rows_of(tmp_path / "out" / "test.jsonl")
    assert first["messages"] == [
        {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"},
    ]  # fmt: skip
    assert [turn.get("weight") for turn in last["messages"]] == [None, 0, None, None]
    assert last["messages"][-1]["content"] == '{"n": 10}'
    assert rows_of(tmp_path / "out" / "answers-uploaded.jsonl")[0]["prediction"] == "4"
    assert tuneoff.check_file(tmp_path / "out" / "test.jsonl")["examples"] == 2


def test_a_runs_template_gives_the_prompt(tmp_path: Path) -> None:
    run = {
        "object": "eval.run",
        "id": "r",
        "data_source": {
            "type": "completions",
            "input_messages": {
                "type": "template",
                "template": [{"role": "user", "content": "Sort: {{item.ticket_text}}"}],
            },
        },
    }
    rows = [run, output(0, "Hardware", "x", 0, "r", input=[])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_evals([tmp_path / "a.jsonl"], tmp_path / "out", "item.correct_label")
    (row,) = rows_of(tmp_path / "out" / "test.jsonl")
    assert row["messages"][0]["content"] == "Sort: Ticket 0"


@pytest.mark.parametrize(
    ("text", "reference", "message"),
    [
        ('{"item": {"a": 1}}', None, r"none is called so \(there are: a\); name it: --reference"),
        ('{"item": {"a": 1}}', "a{", "--reference: cannot read the template"),
    ],
)
def test_a_reference_that_cannot_be_found(
    tmp_path: Path, text: str, reference: str | None, message: str
) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises((ConfigError, DataError), match=message):
        import_evals([tmp_path / "a.jsonl"], tmp_path / "out", reference)
    assert not (tmp_path / "out").exists()


def test_graders_come_first_and_runs_later(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = describe_evals(import_evals([source / "eval.json"], out), out)
    assert "string_check, no stored scores to compare with" in lines[0]
    found = import_evals([source / "items.json"], out)
    (match,) = (each for each in found["graders"] if each["name"] == "Match output")
    assert match["scores"]["agree"] == 3, "the graders that were saved are compared"


def test_options_of_logs_are_refused(source: Path, tmp_path: Path) -> None:
    command = ["import", str(source), "--out", str(tmp_path / "out"), "--redact", "email"]
    answer = CliRunner().invoke(app, command)
    assert isinstance(answer.exception, ConfigError)
    assert "--redact: it does nothing for exports of OpenAI's evals" in str(answer.exception)
    assert not (tmp_path / "out").exists()


def test_a_bake_off_with_imported_graders(source: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["import", str(source), "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "Hardware"})
    for name in ("train", "validation"):
        row = {"messages": [turns[0] | {"content": name}, turns[1]]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    code = {"type": "python", "name": "Length", "source": "def grade(sample, item):\n"
            "    return len(sample['output_text']) / len(item['correct_label'])"}  # fmt: skip
    (tmp_path / "code.json").write_text(json.dumps(code))
    file = tmp_path / "left.yaml"
    file.write_text(
        "name: left\n"
        "task:\n"
        "  {id: chat, train: train.jsonl, validation: validation.jsonl, test: out/test.jsonl,\n"
        "   metrics: [out/graders/match_output.json, out/graders/close.json, close_passed,"
        " code.json]}\n"
        "contenders:\n  - {name: hosted, id: recorded, predictions: out/answers-run_2.jsonl}\n"
    )
    (warning,) = tuneoff.check_file(file)["warnings"]
    assert "code.json: this grader is Python code" in warning
    results = tuneoff.run(tuneoff.load(file), tmp_path / "run")
    scores = results.contenders[0].scores
    # Four examples: one right, one "Hard" of "Software", two without an answer.
    assert {name: score.value for name, score in scores.items()} == {
        "match_output": 0.25, "close": 0.25, "close_passed": 0.25, "length": (1 + 0.5) / 4,
    }  # fmt: skip
    assert results.primary_metric == "match_output"
    match = tmp_path / "out" / "graders" / "match_output.json"
    match.write_text(match.read_text().replace("correct_label", "label"))
    with pytest.raises(DataError, match=r"has no field for the template: item\.label"):
        tuneoff.check_file(file)
