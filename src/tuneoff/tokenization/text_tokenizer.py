"""Tokenizers that write special tokens as text, except those that they are told to keep.

`FastTokenizer` wraps one of the `tokenizers` library. It uses a copy in which special tokens are
off and which has a secret word for each of them; a control token to keep is written as its word.
The copy encodes a whole text at once, so that splitting, normalizing and prefixing are the
tokenizer's own. Nothing is switched on the tokenizer itself, which other threads use.

`SlowTokenizer` wraps one of transformers in Python and encodes piece by piece.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from tuneoff.errors import DataError
from tuneoff.tokenization.spellings import Span, draw_mark

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# A control token in a text: its id, and its span of characters.
Control = tuple[int, int, int]


class SpellingError(DataError):
    """A text spells a special token, and the tokenizer has no other tokens for it."""


@dataclass(frozen=True)
class Special:
    """A tokenizer's control tokens."""

    tokens: Mapping[int, AddedToken]
    """The control tokens by id."""
    normalize: Callable[[str], str]
    """Normalizes a text as the tokenizer does."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _copies: list[tuple[Tokenizer, dict[int, str], dict[int, int]]] = field(default_factory=list)

    def is_control(self, token: int, text: str) -> bool:
        """Return whether a token for this text is a control token.

        It is not if it replaces a character that the vocabulary lacks, as `<unk>` may.
        """
        if token not in self.tokens:
            return False
        spelled = self.tokens[token].content
        return spelled in text or self.normalize(spelled) in self.normalize(text)

    def get_copy(self, backend: Tokenizer) -> tuple[Tokenizer, dict[int, str], dict[int, int]]:
        """Return the copy of a tokenizer, built at the first call, with its secret words.

        Returns:
            the copy, its word for each control token, and the control token of each word's id.
        """
        with self._lock:
            if not self._copies:
                self._copies.append(self._make_copy(backend))
            return self._copies[0]

    def _make_copy(self, backend: Tokenizer) -> tuple[Tokenizer, dict[int, str], dict[int, int]]:
        """Build the copy of a tokenizer; return it with its secret words."""
        from tokenizers import AddedToken, Tokenizer

        copy = Tokenizer.from_str(backend.to_str())
        copy.no_truncation()
        copy.no_padding()
        # Some are special only by their role, like an EOS that was added as a word.
        copy.add_special_tokens([token for token in self.tokens.values() if not token.special])
        copy.encode_special_tokens = True
        words = {token: draw_mark() for token in self.tokens}
        copy.add_tokens(
            [
                AddedToken(words[token], normalized=added.normalized, special=False)
                for token, added in self.tokens.items()
            ]
        )
        numbers = copy.get_vocab(with_added_tokens=True)
        return copy, words, {numbers[word]: token for token, word in words.items()}


class TextTokenizer(Protocol):
    """A tokenizer whose methods add no token at either end."""

    @property
    def special(self) -> Special: ...

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, special tokens included."""
        ...

    def find_controls(self, text: str) -> tuple[list[int], list[Control]]:
        """Return a text's token ids, and the control tokens among them."""
        ...

    def encode_as_text(self, text: str, controls: Sequence[Control] = ()) -> list[int]:
        """Return token ids in which only `controls` are control tokens.

        Raises:
            SpellingError: the vocabulary has no other tokens for the text.
        """
        ...


@dataclass(frozen=True)
class FastTokenizer:
    """A tokenizer of the `tokenizers` library."""

    backend: Tokenizer
    special: Special
    encode_with_spans: Callable[[str], tuple[list[int], list[Span]]]
    """Returns a text's token ids, and the span of characters of each."""
    encode: Callable[[str], list[int]]
    """Returns a text's token ids."""

    def find_controls(self, text: str) -> tuple[list[int], list[Control]]:
        """Return a text's token ids, and the control tokens among them."""
        ids, spans = self.encode_with_spans(text)
        controls = [
            (token, start, end)
            for token, (start, end) in zip(ids, spans, strict=True)
            if self.special.is_control(token, text[start:end])
        ]
        return ids, controls

    def encode_as_text(self, text: str, controls: Sequence[Control] = ()) -> list[int]:
        """Return token ids in which only `controls` are control tokens."""
        copy, words, tokens = self.special.get_copy(self.backend)
        parts, at = [], 0
        for token, start, end in controls:
            parts += [text[at:start], words[token]]
            at = end
        text = "".join([*parts, text[at:]])
        encoding = copy.encode(text, add_special_tokens=False)
        ids: list[int] = []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in tokens:
                ids.append(tokens[token])
            elif self.special.is_control(token, text[start:end]):
                ids += self._spell_out(token, text[start:end])
            else:
                ids.append(token)
        return ids

    def _spell_out(self, token: int, text: str) -> list[int]:
        """Return the tokens of single characters, for a spelling that is one entry of the
        vocabulary.

        SentencePiece vocabularies may have such entries.

        Raises:
            SpellingError: it lacks one of these characters.
        """
        spelled: list[int] = []
        for character in text:
            parts = character.encode()
            written = (
                ["▁" if character == " " else character],
                [list_byte_letters()[byte] for byte in parts],
                [f"<0x{byte:02X}>" for byte in parts],
            )
            whole = next(filter(None, map(self._find_ids, written)), None)
            if whole is None:
                raise _build_spelling_error(self.special.tokens[token].content)
            spelled += whole
        return spelled

    def _find_ids(self, pieces: Sequence[str]) -> list[int] | None:
        """Return the ids of vocabulary pieces; None if one is missing or a control token."""
        ids = []
        for piece in pieces:
            token = self.backend.token_to_id(piece)
            if token is None or token in self.special.tokens:
                return None
            ids.append(token)
        return ids


@dataclass(frozen=True)
class SlowTokenizer:
    """A tokenizer of transformers that is written in Python."""

    tokenizer: Any
    special: Special

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, special tokens included."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def find_controls(self, text: str) -> tuple[list[int], list[Control]]:
        """Return a text's token ids, and the control tokens among them."""
        numbers = {added.content: token for token, added in self.special.tokens.items()}
        controls = []
        for match in self._added.finditer(text):
            token = numbers.get(match[0])
            if token is not None:
                added, (start, end) = self.special.tokens[token], match.span()
                while added.lstrip and start and text[start - 1].isspace():
                    start -= 1
                while added.rstrip and end < len(text) and text[end].isspace():
                    end += 1
                controls.append((token, start, end))
        return self.encode(text), controls

    def encode_as_text(self, text: str, controls: Sequence[Control] = ()) -> list[int]:
        """Return token ids in which only `controls` are control tokens."""
        ids: list[int] = []
        at = 0
        for token, start, end in controls:
            ids += [*self._encode_pieces(text[at:start]), token]
            at = end
        return ids + self._encode_pieces(text[at:])

    def _encode_pieces(self, text: str) -> list[int]:
        """Return the token ids of a text; added tokens that are ordinary words stay whole."""
        words = self.tokenizer.get_added_vocab()
        special = {added.content for added in self.special.tokens.values()}
        ids: list[int] = []
        at = 0
        for match in self._added.finditer(text):
            if match[0] not in special:
                ids += [*self._encode_plain(text[at : match.start()]), words[match[0]]]
                at = match.end()
        return ids + self._encode_plain(text[at:])

    def _encode_plain(self, text: str) -> list[int]:
        """Return the token ids of a text without added tokens, special tokens split.

        Raises:
            SpellingError: it spells a special token that cannot be split.
        """
        if not text:
            return []
        asked = {"add_special_tokens": False, "split_special_tokens": True}
        ids: list[int] = self.tokenizer(text, **asked)["input_ids"]
        for token in set(ids) & self.special.tokens.keys():
            if self.special.is_control(token, text):
                raise _build_spelling_error(self.special.tokens[token].content)
        return ids

    @cached_property
    def _added(self) -> re.Pattern[str]:
        """Return a pattern of every added token, the longest first."""
        texts = sorted(filter(None, self.tokenizer.get_added_vocab()), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def _build_spelling_error(token: str) -> SpellingError:
    """Return the error for a special token that cannot be written as text."""
    return SpellingError(
        f"a text spells {token!r}, a special token that this tokenizer cannot write as text; take "
        "it out, or use another base."
    )


@cache
def list_byte_letters() -> list[str]:
    """Return the letter of each byte in byte-level BPE.

    Printable bytes of Latin-1 are their own letters; the others are the characters from 256 on, in
    order.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
