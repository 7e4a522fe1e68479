"""A task without validation: carved out of train with a line, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import Cli

from tuneoff import prepare
from tuneoff.bakeoff_file import load
from tuneoff.errors import DataError
from tuneoff.records import Example
from tuneoff.tasks import splits

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
) -> prepare.Parts:
    text = TASK.format(train=train, validation=validation, cluster=cluster)
    (folder / "mine.py").write_text(text)
    (folder / "b.yaml").write_text(FILE)
    return prepare.parts(load(folder / "b.yaml"))


@pytest.mark.parametrize("validation", ["", ', "validation": []'])
def test_a_custom_task_without_validation_gets_one(validation: str, tmp_path: Path) -> None:
    examples, warnings = prepare.data(custom(tmp_path, validation=validation))
    assert {split: len(rows) for split, rows in examples.items()} == {
        "train": 36, "validation": 4, "test": 5,
    }  # fmt: skip
    assert warnings == ["4 validation examples were carved out of train, for the task has none."]
    again, _ = prepare.data(custom(tmp_path, validation=validation))
    assert again == examples


def test_groups_stay_together(tmp_path: Path) -> None:
    examples, _ = prepare.data(custom(tmp_path, cluster="group"))
    groups = {split: {e.meta["group"] for e in examples[split]} for split in examples}
    assert not groups["train"] & groups["validation"]
    assert len(examples["validation"]) == 10
    single, _ = prepare.data(custom(tmp_path, train=10, cluster="group"))
    assert len(single["validation"]) == 1, "a single group is divided"


def test_a_train_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="validation: there is no example in it, and the 1 of train"
    ):
        prepare.data(custom(tmp_path, train=1))
    with pytest.raises(DataError, match="split train: there is no example"):
        prepare.data(custom(tmp_path, train=0))


def test_a_given_validation_is_left_alone() -> None:
    some = [Example("1", {"x": 1}, "y")]
    given = {"train": some, "validation": some, "test": some}
    assert splits.with_validation(given, None, 0) == (given, [])  # type: ignore[arg-type]


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
