"""Row scores made again from predictions and references: texts and calls (SQL: `sql.py`).

What an answer is, which metrics there are and when two results are the same is said in
docs/scoring.md. A metric that is not made here (`sql_normal_form`, `exact_set_match`,
`valid_format` of SQL, official mode, metrics of one's own, a judge) comes from `scores.jsonl`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

CALL_METRICS = (
    "exact_match", "normalized_match", "function_accuracy", "slot_precision", "slot_recall",
    "slot_f1", "order_insensitive_match", "valid_format",
)  # fmt: skip
TEXT_METRICS = ("exact_match", "normalized_match")

# --- what an answer is --------------------------------------------------------------------------

TAG = r"(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)"
THOUGHT = re.compile(
    rf"<\s*{TAG}\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)\b",
    re.IGNORECASE,
)
THOUGHT_END = re.compile(
    rf"<\s*/\s*{TAG}\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>\s*final[^<\n]*<\|message\|>|\A\s*analysis(?s:.*)assistantfinal",
    re.IGNORECASE,
)
QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`")
MARKS = re.compile(r"`{3,}|~{3,}")
SPAN = re.compile(r"(`{1,2})([^`\n]+)\1")
LANGUAGES = frozenset((
    "bash", "code", "css", "csv", "go", "html", "java", "javascript", "js", "json", "markdown",
    "md", "mysql", "plain", "plaintext", "postgresql", "python", "python3", "rust", "sh", "shell",
    "sql", "sqlite", "sqlite3", "text", "toml", "txt", "typescript", "xml", "yaml",
))  # fmt: skip


def strip(text):
    return text.strip().strip("\ufeff").strip()


def is_quoted(text, tag):
    """Whether a tag is all that stands between two quotes."""
    before, after = text[: tag.start()][-1:], text[tag.end() :][:1]
    return before == after and before in set("'\"`")


def strip_thoughts(answer, reference):
    """The answer behind its last thought; None where a thought never ends."""
    bare = QUOTED.sub("", reference)
    if THOUGHT.search(bare) or THOUGHT_END.search(bare):
        return answer
    ends = [tag for tag in THOUGHT_END.finditer(answer) if not is_quoted(answer, tag)]
    rest = answer[ends[-1].end() :] if ends else answer
    if THOUGHT.search(QUOTED.sub("", rest)):
        return None
    harmony = r"(?:<\|(?:return|end|call)\|>\s*)+\Z"
    return re.sub(harmony, "", rest) if ends and "|" in ends[-1][0] else rest


def find_text(answer, reference, may_be):
    """The last text between fences that passes a test; the answer itself where it does, or none.

    Marks divide a text into pieces, whichever of them open and close; the first word, or line, of a
    piece may name its language.
    """
    answer = strip(answer)
    if may_be(answer) or (MARKS.search(reference) and not may_be(strip(reference))):
        return answer
    span = SPAN.fullmatch(answer)
    if not span and not MARKS.search(answer):
        return answer
    for piece in (span[2],) if span else reversed(MARKS.split(answer)):
        first_word, first_line = re.match(r"\s*\S*", piece), piece.partition("\n")
        for text in (piece, piece[first_word.end() :], first_line[2]):
            inner = SPAN.fullmatch(strip(text))
            text = inner[2] if inner else text
            if may_be(strip(text)):
                return strip(text)
    return answer


def unfence(answer, reference):
    """What the last fence holds of an answer that is nothing but fences."""
    answer = strip(answer)
    span = SPAN.fullmatch(answer)
    pieces = MARKS.split(answer)
    if MARKS.search(reference) or SPAN.fullmatch(strip(reference)):
        return answer
    if span:
        return strip(span[2])
    if len(pieces) == 2 and not strip(pieces[1]):  # closed, and opened by the prompt
        return strip(pieces[0])
    if len(pieces) == 1 or strip("".join(pieces[::2])):
        return answer
    content = pieces[1::2][-1]
    first, line_end, rest = content.partition("\n")
    word = re.match(r"\s*(\S*)", content)
    if line_end and rest.strip() and (len(first.split()) < 2 or re.search("[={]", first)):
        return strip(rest)
    behind = content[word.end() :]
    return strip(behind if behind.strip() and word[1].lower() in LANGUAGES else content)


def normalize(text):
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split()).rstrip(".; ")


def find_cut_ids(test, predictions):
    """Ids of answers that were cut in a thought which their prompt had begun."""

    def has_end(text):
        return THOUGHT_END.search(text) is not None

    def ends_unopened(text):
        end = THOUGHT_END.search(text)
        return end is not None and THOUGHT.search(text, 0, end.start()) is None

    of = [(example, predictions[example["id"]]) for example in test if example["id"] in predictions]
    if not any(ends_unopened(p["prediction"]) and not has_end(e["completion"]) for e, p in of):
        return set()
    return {
        e["id"]
        for e, p in of
        if p.get("finish_reason") == "length"
        and not (has_end(p["prediction"]) or has_end(e["completion"]))
    }


# --- texts and calls ----------------------------------------------------------------------------

CALL = re.compile(r"\s*([\w.-]+)\s*\((.*)\)\s*\Z", re.DOTALL)
SLOT = re.compile(r"\s*([\w.-]+)\s*(?:\[([^\]]*)\]\s*)?(,|\Z)")


def parse_call(text):
    """function(attribute[value], …) as (function, [(attribute, [items])]); None if it is none."""
    call = CALL.match(text)
    if call is None:
        return None
    slots, at, inner = [], 0, call[2]
    more = bool(inner.strip())
    while more:
        slot = SLOT.match(inner, at)
        if slot is None:
            return None
        items = [item.strip() for item in re.split(r",\s+", (slot[2] or "").strip())]
        slots.append((slot[1], items))
        at, more = slot.end(), slot[3] == ","
    return call[1], slots


def score_text(reference, answer):
    """Metrics of a text task."""
    return {
        "exact_match": answer.strip() == reference.strip(),
        "normalized_match": normalize(unfence(answer, reference)) == normalize(reference),
    }


def score_call(reference, answer):
    """Metrics of functional representation; None where the reference is no call."""
    expected = parse_call(reference)
    if expected is None:
        return None
    text = find_text(answer, reference, lambda t: parse_call(t) is not None)
    if parse_call(text) is None:
        text = unfence(answer, reference)
    scores = dict.fromkeys(CALL_METRICS, False) | {
        "exact_match": answer.strip() == reference.strip(),
        "normalized_match": normalize(text) == normalize(reference),
    }
    given = parse_call(text)
    if given is None:
        return scores
    want, have = (
        Counter((name, item) for name, items in call[1] for item in items)
        for call in (expected, given)
    )
    common, n_want, n_have = (want & have).total(), want.total(), have.total()
    both_empty = not (n_want or n_have)
    unordered = [
        (call[0], Counter((name, *sorted(items)) for name, items in call[1]))
        for call in (expected, given)
    ]
    return scores | {
        "function_accuracy": expected[0] == given[0],
        "slot_precision": 1.0 if both_empty else common / n_have if n_have else 0.0,
        "slot_recall": 1.0 if both_empty else common / n_want if n_want else 0.0,
        "slot_f1": 1.0 if both_empty else 2 * common / (n_want + n_have),
        "order_insensitive_match": unordered[0] == unordered[1],
        "valid_format": True,
    }
