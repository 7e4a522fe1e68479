"""The bytes of one token, which may be a part of a character.

Byte-level vocabularies (GPT-2's, Llama 3's, Qwen's) write each byte as a character that can be
seen; SentencePiece ones write a byte that is no piece of text as `<0xE2>`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tuneoff.tokenization.decode import HALF, decode_token
from tuneoff.tokenization.text_tokenizer import byte_letters

_SINGLE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def bytes_of(tokenizer: Any, token: int) -> bytes | None:
    """What a token adds to a text in UTF-8; None where that cannot be known."""
    text = decode_token(tokenizer, token)
    if HALF not in text:
        return text.encode()
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if single := _SINGLE.fullmatch(piece):
        return bytes([int(single[1], 16)])
    found = byte_level(piece)
    return found if found is not None and found.decode(errors="replace") == text else None


def byte_level(piece: str) -> bytes | None:
    """Return the bytes that a byte-level vocabulary writes as `piece`; None where it is not
    written in that alphabet."""
    alphabet = _alphabet()
    if all(character in alphabet for character in piece):
        return bytes(alphabet[character] for character in piece)
    return None


@cache
def _alphabet() -> dict[str, int]:
    """Return the byte that each of byte-level BPE's letters stands for."""
    return {letter: byte for byte, letter in enumerate(byte_letters())}
