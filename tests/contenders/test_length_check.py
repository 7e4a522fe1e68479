"""Lengths are checked against each contender's base before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import write_base

from tuneoff.config.contenders import LocalConfig, PromptedConfig, RecordedConfig
from tuneoff.contenders import length_check
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import ConfigError, DataError
from tuneoff.models.embedding import count_rows
from tuneoff.models.loading import load_tokenizer
from tuneoff.progress import SilentProgress
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.records import Example
from tuneoff.server.settings import build_server_config
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task

SHORT = [Example(f"short-{i}", {"sentence": f"Hut {i}."}, "hut[]") for i in range(8)]
LONG = Example("long", {"sentence": "far away " * 1500}, "hut[Far]")
ENDLESS = Example("endless", {"sentence": "far"}, "hut[Far] " * 1500)


def local(**train: Any) -> LocalConfig:
    return LocalConfig(name="lora", id="local", train=train)  # type: ignore[arg-type]


def work(folder: Path, most: int = 32, **splits: list[Example]) -> ContenderContext:
    filled = dict.fromkeys(("train", "validation", "test"), SHORT) | splits
    return ContenderContext(
        folder=folder,
        template=task.SAMPLE,
        prompt="full",
        max_new_tokens=most,
        directory=ContenderDir(folder),
        progress=SilentProgress(),
        **filled,
    )


def test_what_fits_needs_no_word(tmp_path: Path) -> None:
    for settings in (local(), PromptedConfig(name="p", id="prompted", base="tiny", shots=3)):
        assert length_check.check_lengths(settings, work(tmp_path)) == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_example_longer_than_the_positions_is_refused(split: str, tmp_path: Path) -> None:
    expected = (
        rf"contender lora, {split}: example 'long' has 3\d\d\d tokens, more than the base's 2048 "
        r"positions; shorten it, take it out, or set train\.truncate: true"
    )
    with pytest.raises(DataError, match=expected):
        length_check.check_lengths(local(), work(tmp_path, **{split: [*SHORT, LONG]}))


def test_max_length_is_the_limit_of_training_only(tmp_path: Path) -> None:
    middle = Example("middle", {"sentence": "far away " * 100}, "hut[Far]")
    limited = local(max_length=128)
    with pytest.raises(DataError, match=r"train\.max_length 128 \(the base has 2048 positions\)"):
        length_check.check_lengths(limited, work(tmp_path, train=[middle]))
    assert length_check.check_lengths(limited, work(tmp_path, test=[middle])) == []
    with pytest.raises(ConfigError, match="2048 positions"):
        length_check.check_lengths(local(max_length=4096), work(tmp_path))


def test_truncated_examples_are_counted_in_one_line(tmp_path: Path) -> None:
    splits = {"train": [*SHORT, LONG, LONG], "test": [LONG]}
    assert length_check.check_lengths(local(truncate=True), work(tmp_path, **splits)) == [
        "lora: 2 train, 1 test examples are too long and were cut (train.truncate)."
    ]


def test_an_answer_without_room_is_refused_even_then(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contender lora, train: example 'endless' leaves no room"):
        length_check.check_lengths(local(truncate=True), work(tmp_path, train=[ENDLESS]))
    with pytest.raises(DataError, match="contender lora, test: example 'long' leaves no room"):
        length_check.check_lengths(local(truncate=True), work(tmp_path, most=2040, test=[LONG]))


def test_prompts_that_leave_no_room_to_answer_are_told(tmp_path: Path) -> None:
    """Nobody is refused for what an untuned base with shots cannot do."""
    prompted = PromptedConfig(name="p", id="prompted", base="tiny")
    assert length_check.check_lengths(prompted, work(tmp_path, test=[*SHORT, LONG])) == [
        "p: 1 test prompts leave no room for task.max_new_tokens (32) in the base's 2048 "
        "positions; they get no answer and count as wrong."
    ]
    assert "8 test prompts" in length_check.check_lengths(prompted, work(tmp_path, most=2040))[0]


def test_a_base_that_is_not_here_is_told(tmp_path: Path) -> None:
    far = LocalConfig(name="far", id="local", base="someone/no-such-model")
    assert length_check.check_lengths(far, work(tmp_path, train=[LONG])) == [
        "lengths were not checked for someone/no-such-model: its tokenizer is not in the local "
        "cache."
    ]
    recorded = RecordedConfig(name="r", id="recorded", predictions="p.jsonl")
    assert length_check.check_lengths(recorded, work(tmp_path, train=[LONG])) == []


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
        chosen = LocalConfig(name="lora", id="local", base=str(base))
        return length_check.check_lengths(
            chosen, ContenderContext(**{**as_fields(mine), "template": CHAT_PASS_THROUGH})
        )

    assert check(example("user", "far")) == []
    with pytest.raises(
        ConfigError,
        match=r"contender lora: the chat template of base .*base refuses assistant turns \(in: "
        r"assistant, user; it says: no answer yet\); set rendering: text, name another base, or",
    ):
        check(example("assistant", "x"))
    with pytest.raises(DataError, match="more than the base's 1024 positions"):
        check(example("user", "far away " * 1200))


def as_fields(mine: ContenderContext) -> dict[str, Any]:
    return {name: getattr(mine, name) for name in ContenderContext.__slots__}


def grown(folder: Path, *words: str, **settings: Any) -> Path:
    """A base whose tokenizer has words that its model has no rows for."""
    from transformers import AutoTokenizer

    base = write_base(folder, ["some words"])
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(list(words))
    tokenizer.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    config |= {"vocab_size": len(tokenizer) - len(words)} | settings
    (base / "config.json").write_text(json.dumps(config))
    return base


def test_a_token_without_an_embedding_is_refused_where_it_is_used(tmp_path: Path) -> None:
    base = str(grown(tmp_path / "base", "<town>", "<city>"))
    tuned, asked = local(), PromptedConfig(name="p", id="prompted", base=base, shots=1)
    tuned = tuned.model_copy(update={"base": base})
    asking = Example("asking", {"sentence": "<city> far"}, "hut[]")
    answering = Example("answering", {"sentence": "far"}, "<town>")
    rows = len(load_tokenizer(base)) - 2
    expected = (
        rf"example '{{}}': base '{base}': the token '<{{}}>' has the id {{}}, for the tokenizer "
        rf"knows {rows + 2} tokens, and the model's embedding has {rows} rows; take"
    )
    for settings, split, example, word, token in (
        (tuned, "test", asking, "city", rows + 1),
        (tuned, "train", answering, "town", rows),
        (tuned, "validation", answering, "town", rows),
        (asked, "test", asking, "city", rows + 1),
    ):
        with pytest.raises(DataError, match=expected.format(example.id, word, token)):
            length_check.check_lengths(settings, work(tmp_path, **{split: [*SHORT, example]}))
    # A word that no example has does no harm, nor does an answer that is not learned.
    assert length_check.check_lengths(tuned, work(tmp_path, test=[*SHORT, answering])) == []
    assert length_check.check_lengths(asked, work(tmp_path, validation=[answering])) == []
    with pytest.raises(DataError, match=f"the token '<town>' has the id {rows}"):
        length_check.check_lengths(asked, work(tmp_path, train=[answering]))  # a shot


def test_the_size_of_an_embedding_is_read_without_its_weights(tmp_path: Path) -> None:
    base = grown(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    for values, rows in (
        ({**config, "vocab_size": 77}, 77),
        ({"text_config": {"vocab_size": 78}}, 78),
        ({"model_type": "llama"}, 512),  # as the weights' header says
    ):
        (base / "config.json").write_text(json.dumps(values))
        assert count_rows(str(base)) == rows
    (base / "model.safetensors").rename(base / "model-1-of-1.safetensors")
    assert count_rows(str(base)) is None
    index = {"weight_map": {"model.embed_tokens.weight": "model-1-of-1.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert count_rows(str(base)) == 512
    assert count_rows("someone/no-such-model") is None


def test_a_base_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    base = grown(tmp_path / "base")
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    tuned = local().model_copy(update={"base": str(base)})
    asked = PromptedConfig(name="p", id="prompted", base=str(base))
    sentence = rf"base '{base}' has no end-of-sequence token, so no answer could be ended; name"
    file.write_text(json.dumps({**settings, "eos_token": None}))
    for contender in (tuned, asked):
        with pytest.raises(ConfigError, match=sentence):
            length_check.check_lengths(contender, work(tmp_path))
    with pytest.raises(ConfigError, match=sentence):
        load_tokenizer(str(base))
    with pytest.raises(ConfigError, match=sentence):
        build_server_config(tmp_path, (str(base),), "127.0.0.1", None)
    del settings["eos_token"]
    file.write_text(json.dumps(settings))
    # An older file beside it may name it, and some classes have one without being told.
    (base / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    assert length_check.check_lengths(tuned, work(tmp_path)) == []
    (base / "special_tokens_map.json").unlink()
    file.write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    assert length_check.check_lengths(tuned, work(tmp_path)) == []
