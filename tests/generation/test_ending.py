"""An answer ends where it should, and its tokens are counted to there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneoff.generation.ending import ENDS, MAY_STOP, Ending, ending_of
from tuneoff.models.loading import load_model, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return load_tokenizer(str(tiny_base))


def test_an_answer_ends_at_eos_and_at_a_stop_text(tokenizer: Any) -> None:
    ids = tokenizer("depict(hut[A])", add_special_tokens=False)["input_ids"]
    rest = tokenizer("\n\n### Sentence:\nmore", add_special_tokens=False)["input_ids"]
    ended = Ending(tokenizer, (2,), ()).prediction("1", 3, [*ids, 2, *rest], 0.1)
    assert (ended.prediction, ended.finish_reason, ended.tokens_out) == (
        "depict(hut[A])", "stop", len(ids),
    )  # fmt: skip
    stopped = Ending(tokenizer, (2,), ("\n###",)).prediction("1", 3, [*ids, *rest], 0.1)
    assert (stopped.prediction, stopped.finish_reason) == ("depict(hut[A])\n", "stop")
    # The first new line is before the stop text, and so belongs to the answer.
    assert stopped.tokens_out == len(ids) + 1
    assert stopped.tokens_in == 3


def test_the_first_of_several_stop_texts_counts(tokenizer: Any) -> None:
    ids = tokenizer("one; two | three", add_special_tokens=False)["input_ids"]
    found = Ending(tokenizer, (2,), ("|", ";")).prediction("1", 3, ids, 0.1)
    assert found.prediction == "one"
    assert Ending(tokenizer, (2,), ("!",)).prediction("1", 3, ids, 0.1).finish_reason == "length"


@pytest.mark.parametrize("stop", ["\n###", "; ", "é", "]"])
def test_only_tokens_that_may_complete_a_stop_text_are_looked_at(tokenizer: Any, stop: str) -> None:
    ending = Ending(tokenizer, (2,), (stop,))
    signs = ending.signs(600)
    assert len(signs) == 600
    assert signs[2] == ENDS
    new = tokenizer(f"abc{stop}de", add_special_tokens=False)["input_ids"]
    complete = next(n for n in range(1, len(new) + 1) if ending.stopped(new[:n]))
    assert signs[new[complete - 1]] == MAY_STOP
    assert not Ending(tokenizer, (), ()).signs(600).any()


def test_a_models_other_end_tokens_are_known(tiny_base: Path, tokenizer: Any) -> None:
    import torch

    model: Any = load_model(str(tiny_base), "none", torch.float32)
    model.generation_config.eos_token_id = [2, 7]
    assert ending_of(model, tokenizer, ()).ends == (2, 7)
    model.generation_config.eos_token_id = 5
    assert ending_of(model, tokenizer, ["\n"]).ends == (2, 5)
