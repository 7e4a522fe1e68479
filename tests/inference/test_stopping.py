"""An answer ends where it should, and its tokens are counted to there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from tuneoff.inference.detokenizer import IncrementalDetokenizer, find_token_bytes
from tuneoff.inference.stopping import (
    ENDS_ANSWER,
    MAY_STOP,
    StopCriteria,
    build_stop_criteria,
    find_end_tokens,
)
from tuneoff.models.loading import load_model, load_tokenizer
from tuneoff.tokenization.encode import encode_text


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return load_tokenizer(str(tiny_base))


def test_an_answer_ends_at_eos_and_at_a_stop_text(tokenizer: Any) -> None:
    ids = tokenizer("depict(hut[A])", add_special_tokens=False)["input_ids"]
    rest = tokenizer("\n\n### Sentence:\nmore", add_special_tokens=False)["input_ids"]
    ended = StopCriteria(tokenizer, (2,), ()).build_prediction("1", 3, [*ids, 2, *rest], 0.1)
    assert (ended.prediction, ended.finish_reason, ended.tokens_out) == (
        "depict(hut[A])", "stop", len(ids),
    )  # fmt: skip
    stopped = StopCriteria(tokenizer, (2,), ("\n###",)).build_prediction("1", 3, [*ids, *rest], 0.1)
    assert (stopped.prediction, stopped.finish_reason) == ("depict(hut[A])\n", "stop")
    # The first new line is before the stop text, and so belongs to the answer.
    assert stopped.tokens_out == len(ids) + 1
    assert stopped.tokens_in == 3


def test_the_first_of_several_stop_texts_counts(tokenizer: Any) -> None:
    ids = tokenizer("one; two | three", add_special_tokens=False)["input_ids"]
    found = StopCriteria(tokenizer, (2,), ("|", ";")).build_prediction("1", 3, ids, 0.1)
    assert found.prediction == "one"
    assert (
        StopCriteria(tokenizer, (2,), ("!",)).build_prediction("1", 3, ids, 0.1).finish_reason
        == "length"
    )


@pytest.mark.parametrize("stop", ["\n###", "; ", "é", "]"])
def test_only_tokens_that_may_complete_a_stop_text_are_looked_at(tokenizer: Any, stop: str) -> None:
    ending = StopCriteria(tokenizer, (2,), (stop,))
    signs = ending.flag_tokens(600)
    assert len(signs) == 600
    assert signs[2] == ENDS_ANSWER
    new = tokenizer(f"abc{stop}de", add_special_tokens=False)["input_ids"]
    complete = next(n for n in range(1, len(new) + 1) if ending.has_stop_text(new[:n]))
    assert signs[new[complete - 1]] == MAY_STOP
    assert not StopCriteria(tokenizer, (), ()).flag_tokens(600).any()


def test_a_models_other_end_tokens_are_known(tiny_base: Path, tokenizer: Any) -> None:
    import torch

    model: Any = load_model(str(tiny_base), "none", torch.float32)
    model.generation_config.eos_token_id = [2, 7]
    assert build_stop_criteria(model, tokenizer, ()).end_tokens == (2, 7)
    model.generation_config.eos_token_id = 5
    assert build_stop_criteria(model, tokenizer, ["\n"]).end_tokens == (2, 5)


def test_the_chat_templates_end_of_a_turn_ends_an_answer(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    from tuneoff.export.gguf_tokenizer import build_vocabulary

    chat: Any = AutoTokenizer.from_pretrained(tiny_base)
    chat.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|user|>"]})
    end, begin = chat.convert_tokens_to_ids(["<|end|>", "<|user|>"])
    turn = "{% for m in messages %}<|user|>{{ m.content }}CLOSED{% endfor %}"
    asks = "{% if add_generation_prompt %}<|user|>{% endif %}"
    for closed, expected in (
        ("\n<|end|>\n", (2, end)),
        ("</s>", (2,)),
        (" [end] <|end|>", (2,)),  # a text of its own closes the turn
        ("", (2,)),  # the next turn's beginning is no end of this one
    ):
        chat.chat_template = turn.replace("CLOSED", closed) + asks
        assert find_end_tokens(None, chat) == expected
        assert begin not in find_end_tokens(None, chat)
    chat.chat_template = turn.replace("CLOSED", "<|end|>")
    assert find_end_tokens(GenerationConfig(eos_token_id=[0, 2]), chat) == (0, 2, end)
    assert build_vocabulary(chat, len(chat), find_end_tokens(None, chat)).turn_end == end
    chat.chat_template = "{{ raise_exception('no assistant') }}"
    assert find_end_tokens(None, chat) == (2,)


def test_words_that_a_byte_level_decoder_spoils_are_whole(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    words: Any = AutoTokenizer.from_pretrained(tiny_base)
    words.add_tokens(["naïve", "<think>", "°C", "漢"])
    text = "a naïve <think> 5 °C°C 漢 naïvely <s>"
    ids = encode_text(words, text)
    assert words.decode(ids, skip_special_tokens=True) != text
    ending = StopCriteria(words, (2,), ("°C°",))
    assert StopCriteria(words, (2,), ()).build_prediction("1", 3, ids, 0.1).prediction == text
    assert ending.build_prediction("1", 3, ids, 0.1).prediction == "a naïve <think> 5 "
    growing = IncrementalDetokenizer(words)
    assert "".join(growing.add(token) for token in ids) + growing.rest() == text
    assert b"".join(find_token_bytes(words, token) or b"" for token in ids).decode() == text
