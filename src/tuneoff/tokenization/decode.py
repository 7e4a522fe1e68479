"""Decodes token ids as text.

A byte-level decoder takes every letter for a byte, also in a word that was added to the vocabulary
later: `naïve` comes out with half a character. Such words are written out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

REPLACEMENT_CHARACTER = "\ufffd"
# By tokenizer: the words that its decoder spoils, as they should be written.
_spoiled_words: WeakKeyDictionary[Any, Mapping[int, str]] = WeakKeyDictionary()


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of token ids, without special tokens."""
    words = find_spoiled_words(tokenizer)
    if not words or words.keys().isdisjoint(ids):
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))
    parts, first = [], 0
    for place, token in enumerate(ids):
        if token in words:
            parts += [decode(tokenizer, ids[first:place]), words[token]]
            first = place + 1
    return "".join([*parts, decode(tokenizer, ids[first:])])


def decode_token(tokenizer: Any, token: int) -> str:
    """Return the text of one token, also of a special one."""
    word = find_spoiled_words(tokenizer).get(token)
    return str(tokenizer.decode([token])) if word is None else word


def find_spoiled_words(tokenizer: Any) -> Mapping[int, str]:
    """Return the added words that the tokenizer's decoder spoils, by id."""
    words = _spoiled_words.get(tokenizer)
    if words is None:
        added = getattr(tokenizer, "added_tokens_decoder", {})
        words = {
            token: entry.content
            for token, entry in added.items()
            if not entry.content.isascii()
            and REPLACEMENT_CHARACTER in str(tokenizer.decode([token]))
            and REPLACEMENT_CHARACTER not in entry.content
        }
        _spoiled_words[tokenizer] = words
    return words
