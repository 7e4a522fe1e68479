"""What a server sends back of a key is struck out of every text."""

from __future__ import annotations

import pytest

from tuneoff.providers.http_errors import redact

KEY = "sk-proj-0123456789abcdefWXYZ"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: [key]."),
        ("key: sk-proj-********************WXYZ. Try", "key: [key]. Try"),
        ("sk-...WXYZ, sk-•••WXYZ", "[key], [key]"),
        ("'****WXYZ' and \"…WXYZ\"", "'[key]' and \"[key]\""),
        ("it ends in cdefWXYZ", "it ends in [key]"),
        ("a...WXYZb...WXYZc", "[key]c"),
        ("WXYZ alone says nothing, nor do ****", "WXYZ alone says nothing, nor do ****"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_key_is_struck_out_in_every_form(said: str, shown: str) -> None:
    assert redact(said, KEY) == shown


def test_a_key_that_is_too_short_to_be_one_strikes_nothing() -> None:
    assert redact("a short text", "short") == "a short text"
