"""Batched answers are those of one prompt at a time, and end where they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneoff import prompts
from tuneoff.inference.generate import generate_answers
from tuneoff.models.loading import choose_rendering, load_model, load_tokenizer, resolve_base
from tuneoff.records import Prediction
from tuneoff.tasks import functional_representation as task
from tuneoff.tasks.samples import functional
from tuneoff.tokenization.examples import (
    IGNORE_INDEX,
    encode_completion,
    encode_example,
    encode_prompt,
)

EXAMPLES = functional.generate()["test"][:7]


@pytest.fixture(scope="module")
def loaded(tiny_base: Path) -> tuple[Any, Any, list[tuple[str, list[int]]]]:
    import torch

    tokenizer = load_tokenizer(str(tiny_base))
    model = load_model(str(tiny_base), "none", torch.float32)
    tokens = [
        (e.id, encode_prompt(tokenizer, e, task.SAMPLE.drop_instruction(), "text"))
        for e in EXAMPLES
    ]
    return model, tokenizer, tokens


def by_id(batches: Any) -> dict[str, Prediction]:
    return {prediction.id: prediction for batch in batches for prediction in batch}


def test_a_batch_answers_what_single_prompts_answer(loaded: Any) -> None:
    model, tokenizer, tokens = loaded
    single = by_id(generate_answers(model, tokenizer, tokens, 10, batch_size=1))
    batched = by_id(generate_answers(model, tokenizer, tokens, 10, batch_size=4))
    assert {id: p.prediction for id, p in single.items()} == {
        id: p.prediction for id, p in batched.items()
    }
    assert set(batched) == {example.id for example in EXAMPLES}
    lengths = dict(tokens)
    for id, prediction in batched.items():
        assert prediction.tokens_in == len(lengths[id])
        assert prediction.tokens_out == 10
        assert prediction.finish_reason == "length"


def test_a_prompt_without_room_is_an_error_row(loaded: Any) -> None:
    model, tokenizer, tokens = loaded
    long = ("long", tokens[0][1] * 40)
    found = by_id(generate_answers(model, tokenizer, [long, tokens[0]], 4))
    assert "1024 positions" in (found["long"].error or "")
    assert found[tokens[0][0]].error is None


def test_only_the_completion_is_learned_unless_the_text_is(loaded: Any) -> None:
    _, tokenizer, _ = loaded
    example, template = EXAMPLES[0], task.SAMPLE
    encoded = encode_example(tokenizer, example, template, "text", "completion", 1024)
    answer_ids = encode_completion(tokenizer, example)
    assert (
        list(encoded.input_ids) == encode_prompt(tokenizer, example, template, "text") + answer_ids
    )
    assert [label for label in encoded.labels if label != IGNORE_INDEX] == answer_ids
    assert answer_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(encoded.input_ids) == (
        prompts.render_text(example, template) + example.completion + tokenizer.eos_token
    )
    whole = encode_example(tokenizer, example, template, "text", "text", 1024)
    assert whole.labels == whole.input_ids


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    from helpers import write_base

    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    base = write_base(tmp_path / "chat", ["a b c"], template)
    tokenizer = load_tokenizer(str(base))
    assert choose_rendering(tokenizer, None) == "chat"
    assert choose_rendering(tokenizer, "text") == "text"
    ids = encode_prompt(tokenizer, EXAMPLES[0], task.SAMPLE, "chat")
    assert tokenizer.decode(ids) == (
        f"<system>{functional.INSTRUCTION}<user>{EXAMPLES[0].inputs['sentence']}<assistant>"
    )


def test_a_local_folder_and_the_shipped_base_are_found(tiny_base: Path, tmp_path: Path) -> None:
    assert resolve_base(str(tiny_base), tmp_path) == str(tiny_base)
    shipped = Path(resolve_base("tiny", tmp_path))
    assert shipped.name == "tiny-base"
    assert resolve_base("Qwen/Qwen3-0.6B", tmp_path) == "Qwen/Qwen3-0.6B"
