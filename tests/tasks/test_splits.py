"""A task without validation: carved out of train with a line, or one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import Cli

from tuneoff.bakeoff import prepare
from tuneoff.config.load import load
from tuneoff.errors import DataError
from tuneoff.records import SPLITS, Example
from tuneoff.tasks import splits
from tuneoff.tasks.base import DataPaths
from tuneoff.tasks.streaming import open_stream

TASK = """\
from tuneoff.prompts import Template
from tuneoff.records import Example

SCORER, SOURCES, MAX_NEW_TOKENS, CLUSTER = "text", (), 8, {cluster!r}

def load(settings, place):
    made = lambda name, count: [
        Example(f"{{name}}-{{i}}", {{"x": f"{{name}} {{i}}"}}, "y", {{"group": i // 10}})
        for i in range(count)
    ]
    return {{"train": made("train", {train}), "test": made("test", 5){validation}}}

def template(settings):
    return Template("", "", "", "{{x}}", "{{x}}")

def databases(settings, place, into):
    return None
"""
FILE = "name: x\ntask: {id: ./mine.py}\ncontenders: [{name: a, id: local}]\n"


def custom(
    folder: Path, train: int = 40, validation: str = "", cluster: str | None = None
) -> prepare.ResolvedBakeOff:
    text = TASK.format(train=train, validation=validation, cluster=cluster)
    (folder / "mine.py").write_text(text)
    (folder / "b.yaml").write_text(FILE)
    return prepare.resolve(load(folder / "b.yaml"))


@pytest.mark.parametrize("validation", ["", ', "validation": []'])
def test_a_custom_task_without_validation_gets_one(validation: str, tmp_path: Path) -> None:
    examples, warnings = prepare.load_examples(custom(tmp_path, validation=validation))
    assert {split: len(rows) for split, rows in examples.items()} == {
        "train": 36, "validation": 4, "test": 5,
    }  # fmt: skip
    assert warnings == ["4 validation examples were carved out of train, for the task has none."]
    again, _ = prepare.load_examples(custom(tmp_path, validation=validation))
    assert again == examples


def test_groups_stay_together(tmp_path: Path) -> None:
    examples, _ = prepare.load_examples(custom(tmp_path, cluster="group"))
    groups = {split: {e.meta["group"] for e in examples[split]} for split in examples}
    assert not groups["train"] & groups["validation"]
    assert len(examples["validation"]) == 10
    single, _ = prepare.load_examples(custom(tmp_path, train=10, cluster="group"))
    assert len(single["validation"]) == 1, "a single group is divided"


def test_a_train_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="validation: there is no example in it, and the 1 of train"
    ):
        prepare.load_examples(custom(tmp_path, train=1))
    with pytest.raises(DataError, match="split train: there is no example"):
        prepare.load_examples(custom(tmp_path, train=0))


def test_a_given_validation_is_left_alone() -> None:
    some = [Example("1", {"x": 1}, "y")]
    given = {"train": some, "validation": some, "test": some}
    assert splits.carve_validation(given, None, 0) == (given, [])  # type: ignore[arg-type]


def write_chat(file: Path, inputs: list[str]) -> None:
    turns = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
        for text in inputs
    ]
    file.write_text("".join(json.dumps({"messages": pair}) + "\n" for pair in turns))


def test_chat_says_what_it_carved(cli: Cli, tmp_path: Path) -> None:
    write_chat(tmp_path / "train.jsonl", [f"question {i}" for i in range(40)])
    write_chat(tmp_path / "test.jsonl", ["another"])
    file = tmp_path / "b.yaml"
    text = "name: x\ntask: {id: chat, train: train.jsonl%s}\ncontenders: [{name: a, id: local}]\n"
    file.write_text(text % "")
    code, out, _ = cli("check", file)
    assert code == 0
    assert "4 validation and 4 test examples were carved out of train" in out
    file.write_text(text % ", test: test.jsonl")
    _, out, _ = cli("check", file)
    assert "4 validation examples were carved out of train; task.validation would name" in out
    file.write_text(text % ", test: test.jsonl, validation: test.jsonl")
    code, out, err = cli("check", file)
    assert (code, out) == (2, "")
    assert "were carved" not in err


@pytest.mark.parametrize("inputs", [["one"], ["one", "two"], ["same"] * 30])
def test_chat_with_too_few_is_one_sentence(inputs: list[str], cli: Cli, tmp_path: Path) -> None:
    write_chat(tmp_path / "train.jsonl", inputs)
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: chat, train: train.jsonl}\ncontenders: [{name: a, id: local}]\n"
    )
    code, out, err = cli("check", file)
    assert (code, out) == (2, "")
    assert f"train.jsonl: {len(inputs)} examples are too few" in err


def overlapping(folder: Path, more: str = "") -> Path:
    """A bake-off whose test set has two inputs of train, and whose validation one of test."""
    write_chat(folder / "train.jsonl", [f"question {i}" for i in range(40)])
    write_chat(folder / "validation.jsonl", ["other", "a test", "question 9"])
    write_chat(folder / "test.jsonl", ["question 8", "a test", "question 3"])
    file, files = folder / "b.yaml", ", ".join(f"{s}: {s}.jsonl" for s in SPLITS)
    file.write_text(
        f"name: x\ntask: {{id: chat, {files}{more}}}\ncontenders: [{{name: a, id: local}}]\n"
    )
    return file


def test_overlap_names_both_rows_and_a_way_out(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("check", overlapping(tmp_path))
    assert code == 2
    assert "splits overlap: 1 inputs of validation are also in train" in err
    assert re.search(r"'validation-3' at \S+validation.jsonl:3 is 'train-10' at \S+:10\)", err)
    assert "task.drop_overlap: true" in err


@pytest.mark.parametrize("limit", ["", ", limit: {train: 20}"])
def test_overlap_is_left_out_where_that_is_asked_for(limit: str, tmp_path: Path) -> None:
    parts = prepare.resolve(load(overlapping(tmp_path, f", drop_overlap: true{limit}")))
    examples, warnings = prepare.load_examples(parts)
    assert {split: len(rows) for split, rows in examples.items()} == {
        "train": 20 if limit else 37, "validation": 2, "test": 3,
    }  # fmt: skip
    assert not any(same for same, _ in splits.count_overlaps(examples).values())
    said = [
        "task.drop_overlap: 3 of train were left out, whose inputs are in validation or test, too.",
        "task.drop_overlap: 1 of validation were left out, whose inputs are in test, too.",
    ]
    assert said == [line for line in warnings if "drop_overlap" in line]
    found: list[str] = []
    streamed = open_stream(parts.settings, DataPaths(tmp_path, warn=found.append))
    assert found == said
    assert sorted(each.id for _, each in streamed) == sorted(
        each.id for rows in examples.values() for each in rows
    )
