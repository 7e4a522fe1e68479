"""Reads answers for every scorer: takes off what stands around an answer and is no part of it.

Thoughts. Models that reason write a thought before their answer, and servers without a reasoning
parser hand it out with the answer. An answer begins behind the last end of a thought; a chat
template may have opened that thought, so no opening is needed. A thought without its end leaves
no answer. A reference that has a thought of its own is compared with the whole answer.

Fences. Markdown puts code between runs of three or more backticks or tildes. Which text of a
fenced answer counts depends on who reads it. A language (SQL, function calls) takes the last text
that it can read, whatever prose stands around it. A text comparison takes a fence off only where
nothing but fences is there. Where the reference is fenced, a fence is part of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

UNFINISHED = "a thought without its end"
BYTE_ORDER_MARK = "\ufeff"  # with which some editors begin a file

# How models mark their thoughts: XML tags (DeepSeek, Qwen, Seed and prompts that ask for them),
# Mistral's [THINK], Kimi's triangles, OpenThinker's tokens, and gpt-oss's channels (Harmony),
# which come without their signs where special tokens are not decoded.
_TAG = r"(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)"
_END = re.compile(
    rf"<\s*/\s*{_TAG}\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>\s*final[^<\n]*<\|message\|>|\A\s*analysis(?s:.*)assistantfinal",
    re.IGNORECASE,
)
_BEGIN = re.compile(
    rf"<\s*{_TAG}\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)\b",
    re.IGNORECASE,
)
_HARMONY_ENDS = re.compile(r"(?:<\|(?:return|end|call)\|>\s*)+\Z")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`")
_QUOTES = "'\"`"

_RUN = re.compile(r"`{3,}|(?:(?<=\n)|(?<=\r)|\A)[ \t]*~{3,}|~{3,}(?=[ \t]*(?:\r|\n|\Z))")
_SPAN = re.compile(r"(`{1,2})([^`\r\n]+)\1")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK_LINE = re.compile(r"[ \t]*(?:\r|\n|\Z)")
_ATTRIBUTE = re.compile(r"[={]")
_INFO, _WORD = re.compile(r"[ \t]*\w"), re.compile(r"\s*(\S+)")
# What a fence on one line may say of itself before a text that is compared as text.
_LANGUAGES = frozenset((
    "bash", "code", "css", "csv", "go", "html", "java", "javascript", "js", "json", "markdown",
    "md", "mysql", "plain", "plaintext", "postgresql", "python", "python3", "rust", "sh", "shell",
    "sql", "sqlite", "sqlite3", "text", "toml", "txt", "typescript", "xml", "yaml",
))  # fmt: skip
# More fences than this are no answer; looking at each of them would only take time.
_MAX_BLOCKS, _MAX_DEPTH, _MAX_RUNS = 64, 2, 8


def strip_blanks(text: str) -> str:
    """Returns a text without blanks of any kind, or byte order marks, around it."""
    return text.strip().strip(BYTE_ORDER_MARK).strip()


def strip_thoughts(answer: str, reference: str) -> str | None:
    """Returns an answer without its thoughts; None where a thought never ends.

    Args:
        reference: what the answer is compared with. Its own thoughts keep those of the answer, and
            a tag that it quotes is text.

    >>> strip_thoughts("<think>Capitals.</think> OSLO", "OSLO")
    ' OSLO'
    """
    if _has_thought(reference):
        return answer
    ends = [end for end in _END.finditer(answer) if not _is_quoted(answer, end)]
    quoted = sum(not _is_quoted(reference, end) for end in _END.finditer(reference))
    if quoted and len(ends) > quoted:
        end: re.Match[str] | None = ends[-quoted - 1]
    else:
        end = ends[-1] if ends and not quoted else None
    rest = answer[end.end() :] if end else answer
    if not _BEGIN.search(reference) and _opens_thought(rest):
        return None
    return _HARMONY_ENDS.sub("", rest) if end and "|" in end[0] else rest


def ends_unopened_thought(answer: str) -> bool:
    """Tells whether an answer ends a thought that it did not begin: its prompt did."""
    end = _END.search(answer)
    return end is not None and _BEGIN.search(answer, 0, end.start()) is None


def ends_thought(answer: str) -> bool:
    """Tells whether an answer holds the end of a thought."""
    return _END.search(answer) is not None


def _has_thought(reference: str) -> bool:
    """Tells whether a reference holds a thought, and not only the word for one in quotes."""
    bare = _QUOTED.sub("", reference) if _BEGIN.search(reference) or _END.search(reference) else ""
    return _BEGIN.search(bare) is not None or _END.search(bare) is not None


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """Tells whether a tag is all that stands between two quotes, but for SQL's wildcards."""
    before, after = text[: tag.start()].rstrip("%")[-1:], text[tag.end() :].lstrip("%")[:1]
    return before != "" and before in _QUOTES and before == after


def _opens_thought(text: str) -> bool:
    """Tells whether a thought begins in a text; a tag within quotes on its line is text."""
    for line in text.split("\n"):
        at, open_quotes = 0, set[str]()
        for begin in _BEGIN.finditer(line):
            between = line[at : begin.start()]
            open_quotes ^= {quote for quote in _QUOTES if between.count(quote) % 2}
            if not open_quotes:
                return True
            at = begin.start()
    return False


@dataclass(frozen=True, slots=True)
class _Block:
    """A fence's content, its first line being what stands behind the opening marks.

    `lines` says that the content goes over lines; `longer` is the content up to the last marks of
    the line, where it could also end there.
    """

    content: str
    lines: bool
    longer: str | None = None

    def readings(self) -> Iterator[str]:
        """Yields what the content may be: all of it, all but its first word, all but its line."""
        for content in filter(None, (self.content, self.longer)):
            yield content
            yield _split_word(content)[1]
            if self.lines:
                yield _split_line(content)[1]

    def text(self) -> str:
        """Returns the content without the language that it is said to be in."""
        word, rest = _split_word(self.content)
        if self.lines:
            line, below = _split_line(self.content)
            if len(line.split()) < 2 or _ATTRIBUTE.search(line):
                return below
        return rest if rest.strip() and word.lower() in _LANGUAGES else self.content


def is_fenced(text: str) -> bool:
    """Tells whether a text holds a fence, or is a code span."""
    return _RUN.search(text) is not None or _SPAN.fullmatch(strip_blanks(text)) is not None


def strip_fence(answer: str, reference: str) -> str:
    """Returns an answer without the fence around the whole of it, and without outer blanks.

    Of several fences with nothing between them the last one counts.

    >>> strip_fence("```text\\nParis\\n```", "Paris")
    'Paris'
    """
    text = strip_blanks(answer)
    if is_fenced(reference):
        return text
    span = _SPAN.fullmatch(text)
    if span:
        return strip_blanks(span[2])
    blocks, outside, whole = _split_fences(text)
    if not blocks:
        return text
    if not whole and len(blocks) == 1 and not strip_blanks(blocks[0].content):
        return strip_blanks(outside)  # only closed
    return text if strip_blanks(outside) else strip_blanks(blocks[-1].text())


def find_in_language(answer: str, reference: str, *tests: Callable[[str], bool]) -> str:
    """Returns the part of an answer that a language reads: the last fenced text that passes.

    Args:
        reference: where it is fenced, the answer is returned as it is.
        tests: whether a text is one of the language, the strictest test first. A later test is
            tried where nothing passes those before it.
    """
    text = strip_blanks(answer)
    if not is_fenced(text) or tests[0](text):
        return text
    # Marks within a text of the language, a string of SQL for one, are no fence.
    if is_fenced(reference) and not tests[0](strip_blanks(reference)):
        return text
    candidates = list(_candidates(text))
    for test in tests:
        for candidate in candidates:
            if test(candidate):
                return strip_blanks(candidate)
    return strip_fence(candidates[0], "") if candidates else text


def _candidates(text: str, depth: int = 0) -> Iterator[str]:
    """Yields the texts that may be the answer, the last block's first."""
    span = _SPAN.fullmatch(text)
    if span:
        yield span[2]
        return
    blocks, _, whole = _split_fences(text)
    for block in blocks[: -_MAX_BLOCKS - 1 : -1]:
        for reading in block.readings():
            yield reading
            if depth < _MAX_DEPTH and _RUN.search(reading):
                yield from _candidates(strip_blanks(reading), depth + 1)
    first = _RUN.search(text)
    if first and not whole:  # the first marks may be the end of a fence that the prompt opened
        yield text[: first.start()]
        yield _split_word(text[: first.start()])[1]


def _split_fences(text: str) -> tuple[Sequence[_Block], str, bool]:
    """Splits a text at its fences.

    Returns:
        The blocks, the text outside of them, and whether every fence was closed.
    """
    blocks: list[_Block] = []
    outside: list[str] = []
    runs = list(_RUN.finditer(text))
    place = at = 0
    whole = True
    while place < len(runs):
        opening = runs[place]
        outside.append(text[at : opening.start()])
        closing = _closing(text, runs, place)
        if closing is None:
            blocks.append(_block(text[opening.end() :]))
            return blocks, "".join(outside), False
        end = runs[closing]
        reopens = _has_info(text, end) and not _same_line(text, opening, end)
        blocks.append(_block(text[opening.end() : end.start()], _longer(text, opening, runs)))
        at, place = (end.start(), closing) if reopens else (end.end(), closing + 1)
        whole = whole and not reopens
    outside.append(text[at:])
    return blocks, "".join(outside), whole


def _block(content: str, longer: str | None = None) -> _Block:
    return _Block(content, _LINE_END.search(content.lstrip(" \t")) is not None, longer)


def _closing(text: str, runs: Sequence[re.Match[str]], place: int) -> int | None:
    """Finds the marks that end a fence: as long as its own, on its line or at the end of one, or
    marks that open the next fence. Returns their place among the runs."""
    opening = runs[place]
    mark = opening[0].strip()
    for number in range(place + 1, len(runs)):
        run = runs[number]
        other = run[0].strip()
        if other[0] != mark[0] or len(other) < len(mark):
            continue
        if _same_line(text, opening, run) or _ends_line(text, run) or _has_info(text, run):
            return number
    return None


def _longer(text: str, opening: re.Match[str], runs: Sequence[re.Match[str]]) -> str | None:
    """Returns a one-line fence's content up to the last marks of its line."""
    if len(runs) > _MAX_RUNS:
        return None
    end = _LINE_END.search(text, opening.end())
    stop = end.start() if end else len(text)
    after = [run for run in runs if opening.end() <= run.start() < stop]
    return text[opening.end() : after[-1].start()] if len(after) > 1 else None


def _same_line(text: str, opening: re.Match[str], run: re.Match[str]) -> bool:
    return _LINE_END.search(text, opening.end(), run.start()) is None


def _ends_line(text: str, run: re.Match[str]) -> bool:
    return _BLANK_LINE.match(text, run.end()) is not None


def _has_info(text: str, run: re.Match[str]) -> bool:
    """Tells whether marks begin a line and are followed by a word: they open a fence."""
    at = run.start()
    while at and text[at - 1] in " \t\ufeff":
        at -= 1
    return (not at or text[at - 1] in "\r\n") and _INFO.match(text, run.end()) is not None


def _split_word(content: str) -> tuple[str, str]:
    """Splits a content behind its first word."""
    found = _WORD.match(content)
    return (found[1], content[found.end() :]) if found else ("", content)


def _split_line(content: str) -> tuple[str, str]:
    """Splits a content behind its first line."""
    end = _LINE_END.search(content)
    return (content[: end.start()], content[end.end() :]) if end else (content, "")
