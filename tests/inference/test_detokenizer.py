"""Pieces of an answer's text, put together, are the text of all its tokens, for tokenizers of
both common kinds: bytes, and words with a mark for the space and bytes for what they lack."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from tuneoff.inference.detokenizer import REPLACEMENT_CHARACTER, IncrementalDetokenizer
from tuneoff.models.loading import SHIPPED_BASE_DIR, load_tokenizer

TEXTS = ["the river runs  past the mill", "name[The Mill], area[riverside]", "größer, schöner"]


@cache
def bytes_tokenizer() -> Any:
    return load_tokenizer(str(SHIPPED_BASE_DIR))


@cache
def marked_tokenizer() -> Any:
    """As Llama 2's: spaces are ▁, the text begins with one, unknown characters are bytes."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # The bytes are ordinary tokens of the vocabulary; only these are special.
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


KINDS = {"bytes": bytes_tokenizer, "marked": marked_tokenizer}


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    text = IncrementalDetokenizer(tokenizer)
    return [*(text.add(token) for token in ids), text.rest()]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" the▁ü,漢🙂"))))
def test_a_text_comes_back(kind: str, text: str) -> None:
    tokenizer = KINDS[kind]()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    found = pieces(tokenizer, ids)
    assert "".join(found) == whole
    if REPLACEMENT_CHARACTER not in text:
        assert not any(REPLACEMENT_CHARACTER in piece for piece in found)


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 4095), max_size=60))
def test_any_tokens_of_bytes(ids: list[int]) -> None:
    tokenizer = bytes_tokenizer()
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(pieces(tokenizer, ids)) == whole


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_tokens_of_words(data: st.DataObject) -> None:
    tokenizer = marked_tokenizer()
    words = [i for word, i in tokenizer.get_vocab().items() if not word.startswith("<0x")]
    ids = data.draw(st.lists(st.sampled_from(words), max_size=60))
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(pieces(tokenizer, ids)) == whole


def test_few_tokens_are_decoded_at_a_time() -> None:
    tokenizer, most = bytes_tokenizer(), 0

    class Watched:
        def decode(self, ids: list[int], **options: Any) -> str:
            nonlocal most
            most = max(most, len(ids))
            return str(tokenizer.decode(ids, **options))

    ids = tokenizer("the river runs past the mill, größer " * 40)["input_ids"]
    pieces(Watched(), ids)
    assert most < 12
