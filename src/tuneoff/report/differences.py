"""Marks the differences between an answer and its reference, word by word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["", "added", "missing"]
Piece = tuple[Kind, str]
# A word or a punctuation mark with the blanks after it, at the beginning also those before.
_WORDS = re.compile(r"(?:\A\s+)?(?:\w+|[^\w\s])\s*")
# Max equal pairs of words: the time of comparing grows with them, and a text that repeats one word
# has very many.
MAX_EQUAL_PAIRS = 20_000
# Min similarity of the two texts. Below it nearly everything would be marked, which tells nothing.
MIN_SIMILARITY = 0.3


def mark_differences(answer: str, reference: str) -> list[Piece]:
    """Return an answer in pieces: common, added, and, in their place, missing words; blanks do not
    count.

    If comparing would tell nothing, the answer is one unmarked piece.
    """
    ours, theirs = _WORDS.findall(answer), _WORDS.findall(reference)
    a, b = [word.strip() for word in theirs], [word.strip() for word in ours]
    if a == b or not _is_worth_comparing(a, b):
        return [("", answer)]
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < MIN_SIMILARITY:
        return [("", answer)]
    pieces: list[Piece] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(("", "".join(ours[k:m])))
        else:
            both: tuple[Piece, Piece] = (
                ("missing", "".join(theirs[i:j])),
                ("added", "".join(ours[k:m])),
            )
            pieces += [piece for piece in both if piece[1]]
    return pieces


def _is_worth_comparing(a: Sequence[str], b: Sequence[str]) -> bool:
    """Return whether two texts have enough in common, and are quick to compare."""
    times_a, times_b = Counter(a), Counter(b)
    alike = sum(times * times_b[word] for word, times in times_a.items())
    common = (times_a & times_b).total()
    return 2 * common >= MIN_SIMILARITY * (len(a) + len(b)) > 0 and alike <= MAX_EQUAL_PAIRS
