"""The text of tokens that come one by one, without decoding all of them again each time.

A token's text may depend on the tokens before it (a space, a character of several tokens), so
each is decoded with those that gave the last piece, and what they gave is cut off. Half a
character decodes to U+FFFD: such an end is held back until it is whole, or nothing more comes.
"""

from __future__ import annotations

from typing import Any

from tuneoff.tokenization.decode import HALF, decode


class GrowingText:
    """Gives each piece of text once it will not change any more."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Tokens whose text was given last, and that with those that were held back since.
        self._given: list[int] = []
        self._window: list[int] = []
        self._known = ""

    def add(self, token: int) -> str:
        """What is new with this token."""
        self._window.append(token)
        text = self._text()
        if text.endswith(HALF) or len(text) <= len(self._known):
            return ""
        new = text[len(self._known) :]
        self._given = self._window[len(self._given) :]
        self._window = list(self._given)
        self._known = self._text()
        return new

    def rest(self) -> str:
        """What was held back, when no more tokens come."""
        return self._text()[len(self._known) :]

    def _text(self) -> str:
        return decode(self._tokenizer, self._window)
