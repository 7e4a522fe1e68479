"""A text's tokens give its bytes back, also where characters are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneoff.inference.detokenizer import find_token_bytes

TEXT = "naïve café, 東京 costs 5 €, 🙂🙃\nend\ufffd."


def test_bytes_of_a_byte_level_vocabulary(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_base)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert sum("\ufffd" in tokenizer.decode([id]) for id in ids) > 10
    found = [find_token_bytes(tokenizer, id) for id in ids]
    assert b"".join(each or b"?" for each in found).decode() == TEXT


class Pieces:
    """SentencePiece's way to write bytes, and a piece of which nothing can be known."""

    names = ("<0xE2>", "<0x82>", "<0xAC>", "▁price", "東\ufffd")

    def decode(self, ids: list[int]) -> str:
        return "".join(
            "\ufffd" if name.startswith("<0x") else name.replace("▁", " ")
            for name in (self.names[id] for id in ids)
        )

    def convert_ids_to_tokens(self, id: int) -> str:
        return self.names[id]


def test_bytes_that_are_no_pieces_of_text() -> None:
    found = [find_token_bytes(Pieces(), id) for id in range(5)]
    assert b"".join(found[:3]).decode() == "€"  # type: ignore[arg-type]
    assert found[3:] == [b" price", None]
