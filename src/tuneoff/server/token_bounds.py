"""A lower bound on the number of tokens of a text, without tokenizing it.

Every byte of a text lies in one token. If no token with an `e` in it is longer than 30 bytes, each
`e` takes at least 1/30 of a token, and a million of them take 33,334. This holds for lossless
tokenizers: byte-level BPE, SentencePiece's BPE and Unigram. Characters that a tokenizer may remove
(its normalizer says so) count as 0. For a tokenizer that is not understood here, everything counts
as 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneoff.inference.detokenizer import decode_byte_level

BLANKS = frozenset(" \t\n\r\v\f")
_LOOKAHEAD = re.compile(r"\(\?[=!][^()]*\)$")
_LITERAL = re.compile(r"\\(\W)|([^\\.^$*+?()\[\]{}|])", re.DOTALL)
# Normalizers and pre-tokenizers that remove nothing; the first ones only for ASCII texts.
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_LOSSLESS = ("Prepend", "ByteLevel", "Metaspace", "Digits", "UnicodeScripts")
_BLANK_STRIPPING = ("Strip", "Whitespace", "WhitespaceSplit", "BertPreTokenizer")
_PARTS = ("normalizers", "pretokenizers")


class TokenLowerBound:
    """The minimum share of a token that each byte of a text takes, for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._weights: NDArray[np.float64] = np.zeros(256)
        self._ascii_only = False
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None and _is_plain(backend.model):
            self._weigh(
                tokenizer, _parse_state(backend.normalizer), _parse_state(backend.pre_tokenizer)
            )

    def of(self, text: str) -> float:
        """Return the minimum number of tokens of a text."""
        if self._ascii_only and not text.isascii():
            return 0.0
        counted = np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256)
        return float(counted @ self._weights)

    def _weigh(self, tokenizer: Any, normalizer: Any, pre_tokenizer: Any) -> None:
        """Compute the minimum share of a token for each byte."""
        steps = [*_list_steps(normalizer), *_list_steps(pre_tokenizer)]
        removed = _find_removed(steps)
        if removed is None:
            return
        added = tokenizer.added_tokens_decoder.values()
        in_bytes = any(step["type"] == "ByteLevel" for step in steps)
        strips = any(token.lstrip or token.rstrip for token in added) or any(
            step["type"] in _BLANK_STRIPPING for step in steps
        )
        longest, single = _measure_tokens(tokenizer.get_vocab(), in_bytes)
        self._ascii_only = any(step["type"] in _UNICODE_FORMS for step in steps)
        for byte in range(256 if in_bytes and not strips else 128):
            if single[byte] and not (strips and chr(byte) in BLANKS):
                self._weights[byte] = 1 / longest[byte]
        # A byte of a longer character may belong to many characters.
        for byte in "".join(removed).encode():
            self._weights[byte] = 0


def _measure_tokens(vocabulary: Iterable[str], in_bytes: bool) -> tuple[list[int], list[bool]]:
    """Return, for each byte, the length of its longest token and whether it is a token alone."""
    longest, single = [0] * 256, [False] * 256
    for token in vocabulary:
        token_bytes = decode_byte_level(token) if in_bytes else None
        raw = token_bytes if token_bytes is not None else token.replace("▁", " ").encode()
        for byte in set(raw):
            longest[byte] = max(longest[byte], len(raw))
        if len(raw) == 1:
            single[raw[0]] = True
    return longest, single


def _is_plain(model: Any) -> bool:
    """Return whether tokens are parts of the text, and each character lies in exactly one."""
    kind = type(model).__name__
    if kind == "BPE":
        return not (model.continuing_subword_prefix or model.end_of_word_suffix or model.dropout)
    return kind == "Unigram"


def _parse_state(component: Any) -> Any:
    """Return a component of a tokenizer as in its file; None where there is none."""
    return None if component is None else json.loads(component.__getstate__())


def _list_steps(state: Any) -> list[Mapping[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer in order."""
    if state is None:
        return []
    parts = next((state[name] for name in _PARTS if name in state), None)
    return [state] if parts is None else [step for part in parts for step in _list_steps(part)]


def _find_removed(steps: Iterable[Mapping[str, Any]]) -> set[str] | None:
    """Return the characters, besides blanks, that these steps may remove; None if a step is
    unknown."""
    removed = set[str]()
    for step in steps:
        kind = step["type"]
        if kind == "Replace":
            literal = _parse_literal(step["pattern"])
            if literal is None:
                return None
            removed |= set() if literal in step["content"] else set(literal)
        elif kind in ("Split", "Punctuation"):
            if step["behavior"] == "Removed":
                return None
        elif kind not in (*_LOSSLESS, *_UNICODE_FORMS, *_BLANK_STRIPPING):
            return None
    return removed


def _parse_literal(pattern: Mapping[str, str]) -> str | None:
    """Return the literal text that a pattern matches, or None.

    That is a plain text, or one character with a condition on the text after it.
    """
    if "String" in pattern:
        return pattern["String"]
    match = _LITERAL.fullmatch(_LOOKAHEAD.sub("", pattern["Regex"]))
    return (match[1] or match[2]) if match else None
