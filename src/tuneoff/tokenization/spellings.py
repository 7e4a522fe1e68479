"""Finds where data spells a special token (`<s>`, `<|im_end|>`), also in a rendered chat template.

A chat template mixes its own control tokens with the contents of turns. To tell them apart, each
spelling in a content is replaced by a mark before rendering. Where a mark comes out, the text is
data.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.tokenization.chat_template import TemplateError

# A character range, the end excluded.
Span = tuple[int, int]
Turn = Mapping[str, Any]
Render = Callable[[Sequence[Turn]], str]

# Letters that no normalizer changes: not by NFKC, not by case, and not as control characters.
_LETTERS = [chr(0x13000 + number) for number in range(1024)]


def draw_mark() -> str:
    """Return a random text that nobody can guess, so no data contains it."""
    return "⟦" + "".join(secrets.choice(_LETTERS) for _ in range(12)) + "⟧"


_BEGIN, _END = draw_mark(), draw_mark()
_MARK = re.compile(f"{_BEGIN}([0-9]+){_END}")
MAX_ATTEMPTS = 8
# Replaces data while the tokenizer looks for control tokens.
MASK = draw_mark()


@dataclass(frozen=True, slots=True)
class Spellings:
    """The spellings of a tokenizer's special tokens."""

    pattern: re.Pattern[str]
    """Matches every spelling, also normalized."""
    texts: frozenset[str]
    """The special tokens' texts."""
    heads: frozenset[str]
    """Their proper prefixes."""
    tails: frozenset[str]
    """Their proper suffixes."""
    longest: int
    """The length of the longest one."""
    normalize: Callable[[str], str] | None
    """Normalizes a text as the tokenizer does; None: it does not."""

    @classmethod
    def build(
        cls, texts: Iterable[str], normalize: Callable[[str], str] | None = None
    ) -> Spellings | None:
        """Return the spellings of these tokens; None if there are none."""
        raw = {text for text in texts if text}
        if not raw:
            return None
        every = raw | ({normalize(text) for text in raw} - {""} if normalize else set())
        ordered = sorted(every, key=lambda text: (-len(text), text))
        return cls(
            pattern=re.compile("|".join(map(re.escape, ordered))),
            texts=frozenset(raw),
            heads=frozenset(text[:end] for text in raw for end in range(1, len(text))),
            tails=frozenset(text[start:] for text in raw for start in range(1, len(text))),
            longest=max(map(len, raw)),
            normalize=normalize,
        )

    def can_occur_in(self, text: str) -> bool:
        """Return whether a content spells a token, alone or together with the text around it."""
        if self.pattern.search(text) or self._find_edges(text):
            return True
        return self.normalize is not None and bool(self.pattern.search(self.normalize(text)))

    def find_spans(self, text: str, controls: Iterable[Span]) -> list[Span]:
        """Return the spans in which a content spells tokens.

        Args:
            controls: where the tokenizer itself finds control tokens in this text.
        """
        spans = [match.span() for match in self.pattern.finditer(text)]
        spans += [_strip_span(text, span) for span in controls]
        return _merge_spans([*spans, *self._find_edges(text)])

    def _find_edges(self, text: str) -> list[Span]:
        """Return the spans at a content's ends that may be part of a spelling.

        The template would write the other part.
        """
        start, end = _strip_span(text, (0, len(text)))
        most = min(self.longest - 1, end - start)
        if most == end - start and any(text[start:end] in token for token in self.texts):
            return [(start, end)] if most else []
        sizes = range(most, 0, -1)
        edges = []
        tail = next((size for size in sizes if text[start : start + size] in self.tails), 0)
        head = next((size for size in sizes if text[end - size : end] in self.heads), 0)
        if tail:
            edges.append((start, start + tail))
        if head:
            edges.append((end - head, end))
        return edges


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation."""

    text: str
    """Its text."""
    data: list[Span]
    """The spans of it that are data and spell tokens."""
    hidden: str | None = None
    """The text without any spelling, if the template's output depends on a spelling; else None."""


def render_with_spans(
    render: Render, turns: Sequence[Turn], spans: Sequence[Sequence[Span]]
) -> Rendered:
    """Render turns, and return the text with the spelled `spans` of the contents in it.

    A template that reads a spelling (`'</think>' in content`) renders other text without it. There
    a mark is put before the spelling instead. A spelling that the template changes or cuts out is
    then still not found.
    """
    text, hidden = render(turns), None
    for _ in range(MAX_ATTEMPTS):
        every, hidden = _render_marked(render, turns, spans, [_REPLACED] * len(turns))
        if every is not None and every.text == text:
            return every
        again = render(turns)
        if again == text:
            break
        text = again  # it writes the time, which has advanced
    modes: list[str | None] = [None] * len(turns)
    best = Rendered(text, [])
    for place, spelled in enumerate(spans):
        for mode in (_REPLACED, _PRECEDED) if spelled else ():
            tried: list[str | None] = [*modes[:place], mode, *modes[place + 1 :]]
            one, _ = _render_marked(render, turns, spans, tried)
            if one is not None and one.text == text:
                modes, best = tried, one
                break
    whole = all(mode for mode, spelled in zip(modes, spans, strict=True) if spelled)
    return best if whole else Rendered(text, best.data, hidden or "")


_REPLACED, _PRECEDED = "replaced", "preceded"


def _render_marked(
    render: Render,
    turns: Sequence[Turn],
    spans: Sequence[Sequence[Span]],
    modes: Sequence[str | None],
) -> tuple[Rendered | None, str | None]:
    """Render turns with marks; return the text with the marks removed, and with them.

    Both are None if the template fails with marks.
    """
    pieces: list[tuple[str, str]] = []
    marked = []
    for turn, spelled, mode in zip(turns, spans, modes, strict=True):
        if mode is None or not spelled:
            marked.append(turn)
            continue
        content, parts, at = turn["content"], [], 0
        for start, end in spelled:
            parts += [content[at:start], f"{_BEGIN}{len(pieces)}{_END}"]
            pieces.append((content[start:end], mode))
            at = end if mode == _REPLACED else start
        marked.append({**turn, "content": "".join([*parts, content[at:]])})
    try:
        rendered = render(marked)
    except TemplateError:
        return None, None
    return _remove_marks(rendered, pieces), rendered


def _remove_marks(rendered: str, pieces: Sequence[tuple[str, str]]) -> Rendered:
    """Remove the marks from a rendered text; return it with the spans of the marked data."""
    parts: list[str] = []
    spans: list[Span] = []
    at = length = 0
    for match in _MARK.finditer(rendered):
        spelled, mode = pieces[int(match[1])]
        length += match.start() - at
        parts.append(rendered[at : match.start()])
        if mode == _REPLACED or rendered.startswith(spelled, match.end()):
            spans.append((length, length + len(spelled)))
        if mode == _REPLACED:
            parts.append(spelled)
            length += len(spelled)
        at = match.end()
    return Rendered("".join([*parts, rendered[at:]]), spans)


def mask_spans(text: str, spans: Sequence[Span]) -> tuple[str, Callable[[int], int]]:
    """Mask spans of a text; return it, and a function from its places to those of `text`."""
    parts: list[str] = []
    # The start of each unmasked piece, in the masked text and in the text.
    masked_starts, starts = [0], [0]
    at = length = 0
    for start, end in _merge_spans(spans):
        parts += [text[at:start], MASK]
        length += start - at + len(MASK)
        masked_starts.append(length)
        starts.append(end)
        at = end

    def unmasked(place: int) -> int:
        index = bisect_right(masked_starts, place) - 1
        return starts[index] + place - masked_starts[index]

    return "".join([*parts, text[at:]]), unmasked


def _strip_span(text: str, span: Span) -> Span:
    """Return a span without the blanks at its ends."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, overlapping ones merged, empty ones left out."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
