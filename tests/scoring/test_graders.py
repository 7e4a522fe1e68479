"""OpenAI's graders that are computed here: each value is worked out by hand beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneoff.config.schema import GraderConfig
from tuneoff.errors import ConfigError, DataError, MissingExtraError
from tuneoff.records import ScoredRow
from tuneoff.scoring import similarity
from tuneoff.scoring.added_metrics import load_grader
from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.grader_forms import check_grader, name_metric
from tuneoff.scoring.grader_templates import GraderTemplate, build_sample
from tuneoff.scoring.graders import GraderMetric, build_grader, grade_sample

OUTPUT = "{{ sample.output_text }}"


def check(operation: str, reference: str = "{{item.label}}", text: str = OUTPUT) -> dict[str, Any]:
    return {
        "type": "string_check", "name": "Match", "operation": operation, "input": text,
        "reference": reference,
    }  # fmt: skip


def similar(metric: str, threshold: float | None = None) -> dict[str, Any]:
    return {
        "type": "text_similarity", "name": "Close", "evaluation_metric": metric, "input": OUTPUT,
        "reference": "{{item.label}}", "pass_threshold": threshold,
    }  # fmt: skip


def code(source: str) -> dict[str, Any]:
    return {"type": "python", "name": "Code", "source": f"def grade(sample, item):\n {source}"}


PARTS = {
    "name": similar("rouge_1") | {"input": "{{sample.output_json.name}}"},
    "mail": check("eq", "{{item.mails[1]}}", "{{ sample.output_json['mail'] }}"),
}


def multi(formula: str) -> dict[str, Any]:
    return {"type": "multi", "name": "Both", "graders": PARTS, "calculate_output": formula}


def score(value: dict[str, Any], item: Any, answer: str) -> float:
    grader = build_grader(check_grader(value, "g.json"), "g.json")
    return grade_sample(grader, item, build_sample(answer)).score


@pytest.mark.parametrize(
    ("operation", "answer", "expected"),
    [
        ("eq", "Lima", 1),
        ("eq", "lima", 0),  # case counts
        ("eq", "Lima\n", 0),  # so do blanks
        ("ne", "lima", 1),
        ("neq", "Lima", 0),  # as OpenAI's guide spells ne
        ("like", "It is Lima.", 1),  # the answer holds the reference
        ("like", "It is LIMA.", 0),
        ("like", "im", 0),  # and not the other way round
        ("ilike", "It is LIMA.", 1),
        ("ilike", "It is Oslo.", 0),
    ],
)
def test_string_checks(operation: str, answer: str, expected: float) -> None:
    assert score(check(operation), {"label": "Lima"}, answer) == expected


@pytest.mark.parametrize(
    ("metric", "answer", "reference", "expected"),
    [
        # Three letters of four are equal: 2 · 3 / (4 + 4). Case and punctuation do not count.
        ("fuzzy_match", "ABCD!", "abce", 0.75),
        ("fuzzy_match", "Lima.", "lima", 1),
        # Words the, cat, sat / the, cat, ran, off: two in common; 2 · 2 / (3 + 4).
        ("rouge_1", "The cat sat", "the cat ran off", 4 / 7),
        # A word twice counts twice only where both texts have it twice: 2 · 1 / (3 + 1).
        ("rouge_1", "no no no", "no", 0.5),
        # Pairs: the-cat of two, the-cat of three; 2 · 1 / (2 + 3).
        ("rouge_2", "The cat sat", "the cat ran off", 0.4),
        ("rouge_3", "a b c d", "a b c e", 0.5),  # one of two in each: 2 · 1 / (2 + 2)
        ("rouge_5", "a b c d", "a b c d", 0),  # neither has five words
        # The longest common sequence of a b c d and b a c d is two letters and d: a c d.
        ("rouge_l", "a b c d", "b a c d", 0.75),
        ("rouge_l", "Straße", "", 0),
    ],
)
def test_similarities(metric: str, answer: str, reference: str, expected: float) -> None:
    pytest.importorskip("rapidfuzz")
    assert score(similar(metric), {"label": reference}, answer) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("source", "answer", "expected", "fault"),
    [
        ("return sample['output_json']['n'] / item['of']", '{"n": 3}', 0.75, None),
        ("return sample['output_text'] == item['label']", "Lima", 1, None),
        ("return sample['choices'][0]['message']['content'] == 'x'", "x", 1, None),
        # As OpenAI's guide says: an exception, or what is no number, is a grade of 0.
        ("return sample['output_json']['n']", "three", 0, "grade() failed: TypeError: 'NoneTy"),
        ("return 'much'", "x", 0, "grade() gave 'much'"),
        ("return float('nan')", "x", 0, "grade() gave nan"),
    ],
)
def test_python(source: str, answer: str, expected: float, fault: str | None) -> None:
    grader = build_grader(check_grader(code(source), "g.json"), "g.json")
    given = grade_sample(grader, {"of": 4, "label": "Lima"}, build_sample(answer))
    assert given.score == expected
    assert (given.fault or "")[: len(fault or "")] == (fault or "")


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(name + mail) / 2", 0.75),  # rouge_1 of "a b" and "a c" is 2 · 1 / (2 + 2), the mail is 1
        ("name ^ 2 - -mail", 1.25),
        ("max(name, mail, 3) * min(name, 9)", 1.5),
        ("floor(name) + ceil(name) + abs(-mail) + sqrt(4) + exp(0) + log(1)", 5),
        ("mail / (mail - 1)", 0),  # no number: 0
    ],
)
def test_a_formula_over_graders(formula: str, expected: float) -> None:
    item = {"label": "a c", "mails": ["", "x@y"]}
    assert score(multi(formula), item, '{"name": "a b", "mail": "x@y"}') == pytest.approx(expected)


def test_an_answer_without_a_named_field_has_0() -> None:
    grader = build_grader(check_grader(PARTS["mail"], "g"), "g")
    item = {"mails": ["", "x@y"]}
    for answer, why in (
        ("x@y", "the answer is no JSON"),
        ('{"to": 1}', "sample.output_json.mail is not there (there are: to)"),
    ):
        given = grade_sample(grader, item, build_sample(answer))
        assert (given.score, given.fault) == (0, why)


def test_values_in_templates() -> None:
    item = {"n": 1.0, "no": None, "list": [{"a": True}], "ä": "ö"}
    text = "{{ item.n }} {{item.no}} {{item.list[0]}} {{ item.list[0].a }} {{item.ä}} {x}"
    assert GraderTemplate(text, "g").render(item, {}) == '1.0 null {"a": true} true ö {x}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "this is no grader but a list"),
        ({"type": "string_chek"}, "did you mean string_check?"),
        (check("eq") | {"reference": None}, "the string_check grader's reference is missing"),
        (check("is"), "the string_check grader's operation is wrong: input should be 'eq', 'ne'"),
        (check("eq", "{{label}}"), "cannot read the template '{{label}}'"),
        (check("eq", "{{sample.output_tools[0].function.name}}"), "names sample.output_tools, and"),
        (similar("bleu"), "evaluation_metric bleu cannot be computed as OpenAI did"),
        (similar("rouge_6"), "unknown evaluation_metric 'rouge_6'"),
        (code("return ("), "the grader's source cannot be run (SyntaxError"),
        ({"type": "python", "source": "x = 1"}, "has no grade(sample, item); add it"),
        (multi("name + nam"), "unknown grader 'nam'"),
        (multi("name.__class__"), "calculate_output holds 'name.__class__'"),
        (multi("name +"), "calculate_output is no formula (invalid syntax)"),
        (multi("__import__('os')"), "calculate_output holds"),
        (multi("name") | {"graders": {"name": multi("name")}}, "grader name is a multi, which"),
        (
            {"type": "label_model", "model": "m", "input": [{"role": "user", "content": "x"}],
             "labels": ["a"], "passing_labels": ["b"]},
            "passing_labels names 'b'; name some of the labels (a)",
        ),
        (
            {"type": "score_model", "model": "m", "input": [{"role": "user", "content": "x"}],
             "range": [1, 1]},
            "range is 1 to 1; it must rise",
        ),
        (
            {"type": "score_model", "model": "m", "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]},
            "the grader's input holds input_image",
        ),
    ],
)  # fmt: skip
def test_what_is_no_grader_here(tmp_path: Path, value: Any, message: str) -> None:
    (tmp_path / "g.json").write_text(json.dumps(value))
    with pytest.raises(ConfigError) as caught:
        load_grader(GraderConfig(id="grader", file="g.json"), tmp_path)
    assert message in str(caught.value)
    assert "g.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_grader(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text("{")
    (tmp_path / "g.yaml").write_text("type: string_check\n  name: x")
    for file, message in (
        ("none.json", "there is no such file"),
        ("g.json", "no JSON or YAML that can be read"),
        ("g.yaml", "no JSON or YAML that can be read"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_grader(GraderConfig(id="grader", file=file), tmp_path)
    (tmp_path / "g.json").write_text(json.dumps(check("eq")))
    with pytest.raises(ConfigError, match=r"model is for graders that ask a model, and g\.json is"):
        load_grader(GraderConfig(id="grader", file="g.json", model="m"), tmp_path)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz", None)
    with pytest.raises(MissingExtraError, match=r"tuneoff\[graders\]"):
        similarity.check_fuzzy_match()


def metric(folder: Path, value: dict[str, Any]) -> GraderMetric:
    (folder / "g.yaml").write_text(json.dumps(value))  # JSON is YAML, too
    found = load_grader(GraderConfig(id="grader", file="g.yaml"), folder)
    assert isinstance(found, GraderMetric)
    return found


def test_a_metric_of_rows(tmp_path: Path) -> None:
    scorer = metric(tmp_path, similar("rouge_1", 0.5))
    assert scorer.METRICS == {"close": "fraction", "close_passed": "yes/no"}
    rows = [
        ScoringInput("1", "a b", "a c", {"item": {"label": "a b"}}),
        ScoringInput(
            "2", "a b", "c", {"label": "a b"}
        ),  # no item of its own: meta, inputs, completion
        ScoringInput("3", "a b", "<think>What?</think>\n\na b ", {"item": {"label": "a b"}}),
        ScoringInput("4", "a b", "", {"item": {"label": "a b"}}),
    ]
    assert list(scorer.score_rows(rows, Options())) == [
        ScoredRow("1", {"close": 0.5, "close_passed": True}, "right"),
        ScoredRow("2", {"close": 0.0, "close_passed": False}, "wrong"),
        ScoredRow("3", {"close": 1.0, "close_passed": True}, "right"),
        ScoredRow("4", {"close": 0.0, "close_passed": False}, "no answer"),
    ]


def test_a_field_that_a_row_lacks_is_refused_before_there_are_answers(tmp_path: Path) -> None:
    scorer = metric(tmp_path, check("eq"))
    rows = [
        ScoringInput("1", "a", "a", {"item": {"label": "a"}}),
        ScoringInput("2", "a", "a", {"level": 1}),
    ]
    with pytest.raises(DataError, match=r"example '2' has no field for the template: item\.label"):
        list(scorer.failing(rows, Options()))
    with pytest.raises(DataError, match=r"there are: level, completion"):
        list(scorer.score_rows(rows[1:], Options()))


def test_doubts(tmp_path: Path) -> None:
    rows = [ScoringInput("1", "a", "", {"label": "a"}), ScoringInput("2", "b", "", {"label": "a"})]
    assert metric(tmp_path, check("eq")).doubts(rows) == [
        "g.yaml: the grader match gives 1 of 2 references themselves less than 1, 2 for one "
        "(wrong); an answer that is the reference should be right."
    ]
    (line,) = metric(tmp_path, code("return 1")).doubts(rows)
    assert "is Python code; it runs in tuneoff's own process" in line
    with pytest.raises(DataError, match="NameError: name 'lable' is not defined"):
        metric(tmp_path, code("return lable")).doubts(rows)


def test_names_of_metrics() -> None:
    assert name_metric(check_grader(check("eq") | {"name": "Match: label!"}, ""), "x") == (
        "match_label"
    )
    assert name_metric(check_grader(check("eq") | {"name": "?"}, ""), "my-file") == "my_file"
