"""Encodes texts and chat turns as token ids. Data is text there, never control tokens.

A content that spells a special token is encoded as the characters that it has. A prompt without
such contents has exactly the tokens of `apply_chat_template(tokenize=True)`. Training, answering,
serving and the offline counts (`offline.py`) encode here.

To find the control tokens, the tokenizer reads the rendered text while the spellings in the data
are masked (`spellings.py`). Then `text_tokenizer.py` keeps these control tokens and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tuneoff.tokenization.chat_template import ChatTemplate, TemplateError, load_chat_template
from tuneoff.tokenization.spellings import Span, Spellings, Turn, mask_spans, render_with_spans
from tuneoff.tokenization.text_tokenizer import (
    Control,
    FastTokenizer,
    SlowTokenizer,
    Special,
    SpellingError,
    TextTokenizer,
)

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes with one tokenizer."""

    tokenizer: TextTokenizer
    """Encodes texts with or without control tokens."""
    spellings: Spellings | None
    """Finds where data spells special tokens; None if the tokenizer has none."""

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of a text that is data as a whole.

        Raises:
            SpellingError: it spells a special token that the tokenizer cannot write as text.
        """
        ids = self.tokenizer.encode(text)
        if self.tokenizer.special.tokens.keys().isdisjoint(ids):
            return ids
        _, controls = self.tokenizer.find_controls(text)
        return self.tokenizer.encode_as_text(text) if controls else ids

    def encode_turns(self, template: ChatTemplate, turns: Sequence[Turn]) -> list[int]:
        """Return the token ids of chat turns, up to where the assistant begins to answer.

        Raises:
            TemplateError: the template refuses the turns.
            SpellingError: a content spells a special token that the tokenizer cannot write as text.
        """
        contents = [turn.get("content") or "" for turn in turns]
        spellings = self.spellings
        if spellings is None:
            return self.tokenizer.encode(template.render(turns))
        suspected = [isinstance(text, str) and spellings.can_occur_in(text) for text in contents]
        if not any(suspected):
            return self.tokenizer.encode(template.render(turns))
        spans = [
            spellings.find_spans(content, self._control_spans(content)) if suspect else []
            for content, suspect in zip(contents, suspected, strict=True)
        ]
        rendered = render_with_spans(template.render, turns, spans)
        masked, unmasked = mask_spans(rendered.text, rendered.data)
        kept = [
            (token, unmasked(start), unmasked(end))
            for token, start, end in self.tokenizer.find_controls(masked)[1]
        ]
        if rendered.hidden is not None:
            self._check_hidden(rendered.hidden, kept)
        ids, controls = self.tokenizer.find_controls(rendered.text)
        # Equal if nothing is spelled after all: the match was a part of a word.
        return ids if controls == kept else self.tokenizer.encode_as_text(rendered.text, kept)

    def _check_hidden(self, hidden: str, kept: Sequence[Control]) -> None:
        """Raise an error if a template that reads a spelling writes other control tokens because of
        it.

        Raises:
            SpellingError: it does; whether one of them is data cannot be known.
        """
        expected = [token for token, _, _ in self.tokenizer.find_controls(hidden)[1]]
        written = [token for token, _, _ in kept]
        if written != expected:
            token = next((control for control in written if control not in expected), written[0])
            raise SpellingError(
                f"a text spells {self.tokenizer.special.tokens[token].content!r}, a special token "
                "that this base's chat template looks for; take it out, or use another base."
            )

    def _control_spans(self, content: str) -> list[Span]:
        """Return where the tokenizer finds control tokens in a content."""
        return [(start, end) for _, start, end in self.tokenizer.find_controls(content)[1]]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text that is data as a whole, without a BOS.

    Raises:
        SpellingError: it spells a special token that the tokenizer cannot write as text.
    """
    return load_encoder(tokenizer).encode_text(text)


def encode_turns(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    template: ChatTemplate | None = None,
) -> list[int]:
    """Return the token ids of chat turns, up to where the assistant begins to answer.

    Args:
        template: the template that renders them; by default the tokenizer's own.

    Raises:
        TemplateError: the chat template refuses the turns.
        SpellingError: a content spells a special token that the tokenizer cannot write as text.
    """
    return load_encoder(tokenizer).encode_turns(template or load_chat_template(tokenizer), turns)


# Cached by tokenizer, for its lifetime: its size and chat template (both may change), its special
# tokens and their spellings.
_Known = tuple[Special, Spellings | None]
_known: WeakKeyDictionary[Any, tuple[Any, _Known]] = WeakKeyDictionary()


def load_encoder(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """Return the encoder of a loaded tokenizer; threads may share it."""
    untyped: Any = tokenizer
    state = len(untyped), str(untyped.chat_template)
    kept = _known.get(untyped)
    if kept is None or kept[0] != state:
        kept = state, _load_known(untyped)
        _known[untyped] = kept
    special, spellings = kept[1]
    return Encoder(_build_text_tokenizer(untyped, special), spellings)


def build_offline_encoder(
    backend: Tokenizer, names: Mapping[str, str], template: ChatTemplate
) -> Encoder:
    """Return the encoder of a `tokenizer.json`.

    Args:
        names: its special tokens by role.
    """

    def encode_with_spans(text: str) -> tuple[list[int], list[Span]]:
        encoding = backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def build(special: Special) -> TextTokenizer:
        return FastTokenizer(
            backend, special, encode_with_spans, lambda text: encode_with_spans(text)[0]
        )

    added = backend.get_added_tokens_decoder()
    special = _find_special(build, added, set(names.values()), template, _get_normalizer(backend))
    return Encoder(build(special), _build_spellings(special))


def _load_known(tokenizer: Any) -> _Known:
    """Return a loaded tokenizer's special tokens and their spellings."""

    def build(special: Special) -> TextTokenizer:
        return _build_text_tokenizer(tokenizer, special)

    normalize = _get_normalizer(tokenizer.backend_tokenizer) if tokenizer.is_fast else _keep_text
    added, named = tokenizer.added_tokens_decoder, set(tokenizer.all_special_tokens)
    special = _find_special(build, added, named, load_chat_template(tokenizer), normalize)
    return special, _build_spellings(special)


def _find_special(
    build: Callable[[Special], TextTokenizer],
    added: Mapping[int, AddedToken],
    named: set[str],
    template: ChatTemplate,
    normalize: Callable[[str], str],
) -> Special:
    """Return the control tokens of a tokenizer.

    These are the tokens marked special, those with a role, and the token with which the chat
    template closes an assistant turn.
    """
    tokens = {
        token: entry for token, entry in added.items() if entry.special or entry.content in named
    }
    special = Special(tokens, normalize)
    end = find_turn_end(build(special), template, added)
    return special if end is None else Special({**tokens, end: added[end]}, normalize)


def _build_spellings(special: Special) -> Spellings | None:
    """Return the spellings of special tokens; None if there are none."""
    normalize = None if special.normalize is _keep_text else special.normalize
    return Spellings.build((added.content for added in special.tokens.values()), normalize)


def _get_normalizer(backend: Tokenizer) -> Callable[[str], str]:
    """Return the function that normalizes a text as this tokenizer does."""
    normalizer = backend.normalizer
    return _keep_text if normalizer is None else normalizer.normalize_str


def _keep_text(text: str) -> str:
    """Return a text unchanged, for a tokenizer that normalizes nothing."""
    return text


def _build_text_tokenizer(tokenizer: Any, special: Special) -> TextTokenizer:
    """Return the text tokenizer of a loaded tokenizer, fast or in Python."""
    if not tokenizer.is_fast:
        return SlowTokenizer(tokenizer, special)

    def encode_with_spans(text: str) -> tuple[list[int], list[Span]]:
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoding["input_ids"], encoding["offset_mapping"]

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return FastTokenizer(tokenizer.backend_tokenizer, special, encode_with_spans, encode)


# A word that no template and no vocabulary contains.
_ANSWER = "Zqanswer"


def find_turn_end(
    tokenizer: TextTokenizer, template: ChatTemplate, added: Mapping[int, AddedToken]
) -> int | None:
    """Return the added token with which a template closes an assistant turn.

    None if it writes none, or other text before it.
    """
    if not template.source:
        return None
    turns = [{"role": "user", "content": "Zqquestion"}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = template.render(turns, add_generation_prompt=False)
    except TemplateError:
        return None
    _, answer, behind = rendered.rpartition(_ANSWER)
    first = tokenizer.encode(behind.lstrip())[:1] if answer else []
    written = first and first[0] in added and behind.lstrip().startswith(added[first[0]].content)
    return first[0] if written else None


def get_turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token with which a loaded tokenizer's chat template closes an assistant turn."""
    untyped: Any = tokenizer
    if not untyped.chat_template:
        return None
    built = load_encoder(tokenizer).tokenizer
    return find_turn_end(built, load_chat_template(tokenizer), untyped.added_tokens_decoder)
