"""Decodes tokens that come one by one, without decoding all of them again each time.

A token's text may depend on the tokens before it (a space, a character of several tokens). So each
is decoded together with the tokens of the last piece, and that piece's text is cut off. Half a
character decodes to U+FFFD: such an end is held back until it is complete, or until the text ends.

A single token may be part of a character, so its bytes are returned. Byte-level vocabularies
(GPT-2's, Llama 3's, Qwen's) write each byte as a visible character. SentencePiece vocabularies
write a byte without a text piece as `<0xE2>`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tuneoff.tokenization.decode import REPLACEMENT_CHARACTER, decode, decode_token
from tuneoff.tokenization.text_tokenizer import list_byte_letters


class IncrementalDetokenizer:
    """Returns each piece of text once it can no longer change."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Tokens of the last returned piece, and these with the tokens held back since.
        self._given: list[int] = []
        self._window: list[int] = []
        self._known = ""

    def add(self, token: int) -> str:
        """Return the new text that this token completes."""
        self._window.append(token)
        text = self._text()
        if text.endswith(REPLACEMENT_CHARACTER) or len(text) <= len(self._known):
            return ""
        new = text[len(self._known) :]
        self._given = self._window[len(self._given) :]
        self._window = list(self._given)
        self._known = self._text()
        return new

    def rest(self) -> str:
        """Return the text held back, when no more tokens come."""
        return self._text()[len(self._known) :]

    def _text(self) -> str:
        return decode(self._tokenizer, self._window)


_SINGLE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def find_token_bytes(tokenizer: Any, token: int) -> bytes | None:
    """Return the UTF-8 bytes that a token adds to a text; None if unknown."""
    text = decode_token(tokenizer, token)
    if REPLACEMENT_CHARACTER not in text:
        return text.encode()
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if single := _SINGLE.fullmatch(piece):
        return bytes([int(single[1], 16)])
    decoded = decode_byte_level(piece)
    return decoded if decoded is not None and decoded.decode(errors="replace") == text else None


def decode_byte_level(piece: str) -> bytes | None:
    """Return the bytes of a byte-level piece; None if it is not in that alphabet."""
    alphabet = _build_alphabet()
    if all(character in alphabet for character in piece):
        return bytes(alphabet[character] for character in piece)
    return None


@cache
def _build_alphabet() -> dict[str, int]:
    """Return the byte of each letter in byte-level BPE's alphabet."""
    return {letter: byte for byte, letter in enumerate(list_byte_letters())}
