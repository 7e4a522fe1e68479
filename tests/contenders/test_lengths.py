"""Lengths are checked against each contender's base before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import write_base

from tuneoff.config import LocalSettings, PromptedSettings, RecordedSettings
from tuneoff.contenders import Work, lengths
from tuneoff.errors import ConfigError, DataError
from tuneoff.progress import Silent
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.records import Example
from tuneoff.rundir import ContenderDir
from tuneoff.tasks import functional_representation as task

SHORT = [Example(f"short-{i}", {"sentence": f"Hut {i}."}, "hut[]") for i in range(8)]
LONG = Example("long", {"sentence": "far away " * 1500}, "hut[Far]")
ENDLESS = Example("endless", {"sentence": "far"}, "hut[Far] " * 1500)


def local(**train: Any) -> LocalSettings:
    return LocalSettings(name="lora", id="local", train=train)  # type: ignore[arg-type]


def work(folder: Path, most: int = 32, **splits: list[Example]) -> Work:
    filled = dict.fromkeys(("train", "validation", "test"), SHORT) | splits
    return Work(
        folder=folder,
        template=task.SAMPLE,
        prompt="full",
        max_new_tokens=most,
        directory=ContenderDir(folder),
        progress=Silent(),
        **filled,
    )


def test_what_fits_needs_no_word(tmp_path: Path) -> None:
    for settings in (local(), PromptedSettings(name="p", id="prompted", base="tiny", shots=3)):
        assert lengths.check(settings, work(tmp_path)) == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_example_longer_than_the_positions_is_refused(split: str, tmp_path: Path) -> None:
    expected = (
        rf"contender lora, {split}: example 'long' has 3\d\d\d tokens, more than the base's 2048 "
        r"positions; shorten it, take it out, or set train\.truncate: true"
    )
    with pytest.raises(DataError, match=expected):
        lengths.check(local(), work(tmp_path, **{split: [*SHORT, LONG]}))


def test_max_length_is_the_limit_of_training_only(tmp_path: Path) -> None:
    middle = Example("middle", {"sentence": "far away " * 100}, "hut[Far]")
    limited = local(max_length=128)
    with pytest.raises(DataError, match=r"train\.max_length 128 \(the base has 2048 positions\)"):
        lengths.check(limited, work(tmp_path, train=[middle]))
    assert lengths.check(limited, work(tmp_path, test=[middle])) == []
    with pytest.raises(ConfigError, match="2048 positions"):
        lengths.check(local(max_length=4096), work(tmp_path))


def test_truncated_examples_are_counted_in_one_line(tmp_path: Path) -> None:
    splits = {"train": [*SHORT, LONG, LONG], "test": [LONG]}
    assert lengths.check(local(truncate=True), work(tmp_path, **splits)) == [
        "lora: 2 train, 1 test examples are too long and were cut (train.truncate)."
    ]


def test_an_answer_without_room_is_refused_even_then(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contender lora, train: example 'endless' leaves no room"):
        lengths.check(local(truncate=True), work(tmp_path, train=[ENDLESS]))
    with pytest.raises(DataError, match="contender lora, test: example 'long' leaves no room"):
        lengths.check(local(truncate=True), work(tmp_path, most=2040, test=[LONG]))


def test_prompts_that_leave_no_room_to_answer_are_told(tmp_path: Path) -> None:
    """Nobody is refused for what an untuned base with shots cannot do."""
    prompted = PromptedSettings(name="p", id="prompted", base="tiny")
    assert lengths.check(prompted, work(tmp_path, test=[*SHORT, LONG])) == [
        "p: 1 test prompts leave no room for task.max_new_tokens (32) in the base's 2048 "
        "positions; they get no answer and count as wrong."
    ]
    assert "8 test prompts" in lengths.check(prompted, work(tmp_path, most=2040))[0]


def test_a_base_that_is_not_here_is_told(tmp_path: Path) -> None:
    far = LocalSettings(name="far", id="local", base="someone/no-such-model")
    assert lengths.check(far, work(tmp_path, train=[LONG])) == [
        "lengths were not checked for someone/no-such-model: its tokenizer is not in the local "
        "cache."
    ]
    recorded = RecordedSettings(name="r", id="recorded", predictions="p.jsonl")
    assert lengths.check(recorded, work(tmp_path, train=[LONG])) == []


def test_chat_turns_are_counted_through_the_template(tmp_path: Path) -> None:
    refusing = (
        "{% if messages[0].role == 'assistant' %}{{ raise_exception('no answer yet') }}{% endif %}"
    )
    said = refusing + "{% for m in messages %}{{ m.content }}{% endfor %}"
    base = write_base(tmp_path / "base", ["far away"], said)

    def example(role: str, content: str) -> Example:
        turns = [{"role": role, "content": content}, {"role": "user", "content": "Well?"}]
        return Example("turns", {"messages": turns}, "yes")

    def check(first: Example) -> list[str]:
        mine = work(tmp_path, train=[first], validation=[first], test=[first])
        chosen = LocalSettings(name="lora", id="local", base=str(base))
        return lengths.check(chosen, Work(**{**as_fields(mine), "template": CHAT_PASS_THROUGH}))

    assert check(example("user", "far")) == []
    with pytest.raises(
        ConfigError,
        match=r"contender lora: the chat template of base .*base refuses assistant turns \(in: "
        r"assistant, user; it says: no answer yet\); set rendering: text, name another base, or",
    ):
        check(example("assistant", "x"))
    with pytest.raises(DataError, match="more than the base's 1024 positions"):
        check(example("user", "far away " * 1200))


def as_fields(mine: Work) -> dict[str, Any]:
    return {name: getattr(mine, name) for name in Work.__slots__}
