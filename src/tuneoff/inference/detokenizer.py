"""Decodes tokens that come one by one, without decoding all of them again each time.

A token's text may depend on the tokens before it (a space, a character of several tokens). So each
is decoded together with the tokens of the last piece, and that piece's text is cut off. Half a
character decodes to U+FFFD: such an end is held back until it is complete, or until the text ends.
"""

from __future__ import annotations

from typing import Any

from tuneoff.tokenization.decode import REPLACEMENT_CHARACTER, decode


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
