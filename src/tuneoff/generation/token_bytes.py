"""Returns the bytes of one token, which may be part of a character.

Byte-level vocabularies (GPT-2's, Llama 3's, Qwen's) write each byte as a visible character.
SentencePiece vocabularies write a byte without a text piece as `<0xE2>`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tuneoff.tokenization.decode import REPLACEMENT_CHARACTER, decode_token
from tuneoff.tokenization.text_tokenizer import list_byte_letters

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
