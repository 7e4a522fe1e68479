"""The one reader of answers: removes what surrounds an answer and is not part of it.

Thoughts. Reasoning models write a thought before their answer, and servers without a reasoning
parser return it with the answer. An answer begins after the last end of a thought. The chat
template may have opened the thought, so no opening is needed. A thought without an end leaves no
answer. A reference with a thought of its own is compared with the whole answer.

Fences. Markdown puts code between runs of three or more backticks or tildes. Which part of a fenced
answer counts depends on the metric. A language metric (SQL, function calls) takes the last fenced
text that it can parse, whatever prose surrounds it. A text metric removes a fence only if the
answer is nothing but fences. Where the reference is fenced, the fence is part of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

UNFINISHED_THOUGHT = "a thought without its end"
BYTE_ORDER_MARK = "\ufeff"  # some editors begin a file with it

# How models mark their thoughts: XML tags (DeepSeek, Qwen, Seed, and prompts that ask for them),
# Mistral's [THINK], Kimi's triangles, OpenThinker's tokens, and gpt-oss's channels (Harmony). The
# latter lack their signs if special tokens are not decoded.
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

_FENCE_MARKS = re.compile(r"`{3,}|(?:(?<=\n)|(?<=\r)|\A)[ \t]*~{3,}|~{3,}(?=[ \t]*(?:\r|\n|\Z))")
_SPAN = re.compile(r"(`{1,2})([^`\r\n]+)\1")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANK_LINE = re.compile(r"[ \t]*(?:\r|\n|\Z)")
_ATTRIBUTE = re.compile(r"[={]")
_INFO, _WORD = re.compile(r"[ \t]*\w"), re.compile(r"\s*(\S+)")
# Language names that a one-line fence may begin with, if its text is compared as text.
_LANGUAGES = frozenset((
    "bash", "code", "css", "csv", "go", "html", "java", "javascript", "js", "json", "markdown",
    "md", "mysql", "plain", "plaintext", "postgresql", "python", "python3", "rust", "sh", "shell",
    "sql", "sqlite", "sqlite3", "text", "toml", "txt", "typescript", "xml", "yaml",
))  # fmt: skip
# Bounds on the time: an answer with more fences is not an answer.
_MAX_BLOCKS, _MAX_DEPTH, _MAX_RUNS = 64, 2, 8


def strip_blanks(text: str) -> str:
    """Return a text without blanks and byte order marks around it."""
    return text.strip().strip(BYTE_ORDER_MARK).strip()


def strip_thoughts(answer: str, reference: str) -> str | None:
    """Return an answer without its thoughts; None if a thought never ends.

    Args:
        reference: what the answer is compared with. If it has a thought, the answer keeps its own;
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
    if not _BEGIN.search(reference) and _has_open_thought(rest):
        return None
    return _HARMONY_ENDS.sub("", rest) if end and "|" in end[0] else rest


def has_unopened_thought_end(answer: str) -> bool:
    """Return whether an answer ends a thought that its prompt began."""
    end = _END.search(answer)
    return end is not None and _BEGIN.search(answer, 0, end.start()) is None


def has_thought_end(answer: str) -> bool:
    """Return whether an answer holds the end of a thought."""
    return _END.search(answer) is not None


def _has_thought(reference: str) -> bool:
    """Return whether a reference holds a thought, and not only a quoted tag."""
    bare = _QUOTED.sub("", reference) if _BEGIN.search(reference) or _END.search(reference) else ""
    return _BEGIN.search(bare) is not None or _END.search(bare) is not None


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """Return whether a tag is alone between two quotes, apart from SQL's wildcards."""
    before, after = text[: tag.start()].rstrip("%")[-1:], text[tag.end() :].lstrip("%")[:1]
    return before != "" and before in _QUOTES and before == after


def _has_open_thought(text: str) -> bool:
    """Return whether a thought begins in a text; a tag within quotes on its line is text."""
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
    """The content of a fence, beginning right after the opening marks."""

    content: str
    lines: bool
    """Whether the content spans several lines."""
    longer_content: str | None = None
    """The content up to the last marks of the line, if it could end there instead."""

    def list_readings(self) -> Iterator[str]:
        """Yield the possible contents: all, without the first word, without the first line."""
        for content in filter(None, (self.content, self.longer_content)):
            yield content
            yield _split_word(content)[1]
            if self.lines:
                yield _split_line(content)[1]

    def text(self) -> str:
        """Return the content without the name of its language."""
        word, rest = _split_word(self.content)
        if self.lines:
            line, below = _split_line(self.content)
            if len(line.split()) < 2 or _ATTRIBUTE.search(line):
                return below
        return rest if rest.strip() and word.lower() in _LANGUAGES else self.content


def is_fenced(text: str) -> bool:
    """Return whether a text holds a fence or is a code span."""
    return _FENCE_MARKS.search(text) is not None or _SPAN.fullmatch(strip_blanks(text)) is not None


def strip_fence(answer: str, reference: str) -> str:
    """Return an answer without the fence around all of it, and without outer blanks.

    Of several fences with nothing between them, the last one counts.

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
    """Return the part of an answer in a language: the last fenced text that passes a test.

    Args:
        reference: if it is fenced, the answer is returned as it is.
        tests: each returns whether a text is in the language, the strictest first. A later test is
            tried only if nothing passes the earlier ones.
    """
    text = strip_blanks(answer)
    if not is_fenced(text) or tests[0](text):
        return text
    # Marks inside a text of the language, for example in an SQL string, are not a fence.
    if is_fenced(reference) and not tests[0](strip_blanks(reference)):
        return text
    candidates = list(_list_candidates(text))
    for test in tests:
        for candidate in candidates:
            if test(candidate):
                return strip_blanks(candidate)
    return strip_fence(candidates[0], "") if candidates else text


def _list_candidates(text: str, depth: int = 0) -> Iterator[str]:
    """Yield the texts that may be the answer, the last block's first."""
    span = _SPAN.fullmatch(text)
    if span:
        yield span[2]
        return
    blocks, _, whole = _split_fences(text)
    for block in blocks[: -_MAX_BLOCKS - 1 : -1]:
        for reading in block.list_readings():
            yield reading
            if depth < _MAX_DEPTH and _FENCE_MARKS.search(reading):
                yield from _list_candidates(strip_blanks(reading), depth + 1)
    first = _FENCE_MARKS.search(text)
    if first and not whole:  # the first marks may end a fence that the prompt opened
        yield text[: first.start()]
        yield _split_word(text[: first.start()])[1]


def _split_fences(text: str) -> tuple[Sequence[_Block], str, bool]:
    """Split a text at its fences.

    Returns:
        The blocks, the text outside of them, and whether every fence was closed.
    """
    blocks: list[_Block] = []
    outside: list[str] = []
    runs = list(_FENCE_MARKS.finditer(text))
    place = at = 0
    whole = True
    while place < len(runs):
        opening = runs[place]
        outside.append(text[at : opening.start()])
        closing = _find_closing(text, runs, place)
        if closing is None:
            blocks.append(_build_block(text[opening.end() :]))
            return blocks, "".join(outside), False
        end = runs[closing]
        reopens = _has_info(text, end) and not _is_same_line(text, opening, end)
        blocks.append(
            _build_block(
                text[opening.end() : end.start()], _find_longer_content(text, opening, runs)
            )
        )
        at, place = (end.start(), closing) if reopens else (end.end(), closing + 1)
        whole = whole and not reopens
    outside.append(text[at:])
    return blocks, "".join(outside), whole


def _build_block(content: str, longer: str | None = None) -> _Block:
    return _Block(content, _LINE_END.search(content.lstrip(" \t")) is not None, longer)


def _find_closing(text: str, runs: Sequence[re.Match[str]], place: int) -> int | None:
    """Return the index of the run of marks that ends a fence, or None.

    The run is at least as long as the opening one, and on the same line or at the end of a line.
    Marks that open the next fence also end this one.
    """
    opening = runs[place]
    mark = opening[0].strip()
    for number in range(place + 1, len(runs)):
        run = runs[number]
        other = run[0].strip()
        if other[0] != mark[0] or len(other) < len(mark):
            continue
        if _is_same_line(text, opening, run) or _is_line_end(text, run) or _has_info(text, run):
            return number
    return None


def _find_longer_content(
    text: str, opening: re.Match[str], runs: Sequence[re.Match[str]]
) -> str | None:
    """Return a one-line fence's content up to the last marks of its line, or None."""
    if len(runs) > _MAX_RUNS:
        return None
    end = _LINE_END.search(text, opening.end())
    stop = end.start() if end else len(text)
    after = [run for run in runs if opening.end() <= run.start() < stop]
    return text[opening.end() : after[-1].start()] if len(after) > 1 else None


def _is_same_line(text: str, opening: re.Match[str], run: re.Match[str]) -> bool:
    return _LINE_END.search(text, opening.end(), run.start()) is None


def _is_line_end(text: str, run: re.Match[str]) -> bool:
    return _BLANK_LINE.match(text, run.end()) is not None


def _has_info(text: str, run: re.Match[str]) -> bool:
    """Return whether marks open a fence: they begin a line, and a word follows."""
    at = run.start()
    while at and text[at - 1] in " \t\ufeff":
        at -= 1
    return (not at or text[at - 1] in "\r\n") and _INFO.match(text, run.end()) is not None


def _split_word(content: str) -> tuple[str, str]:
    """Split a content after its first word."""
    match = _WORD.match(content)
    return (match[1], content[match.end() :]) if match else ("", content)


def _split_line(content: str) -> tuple[str, str]:
    """Split a content after its first line."""
    end = _LINE_END.search(content)
    return (content[: end.start()], content[end.end() :]) if end else (content, "")
