"""An answer with its differences to the reference marked, word by word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

Kind = Literal["", "added", "missing"]
Piece = tuple[Kind, str]
# A word or a sign, with the blanks after it (and, of the first, before).
_WORDS = re.compile(r"(?:\A\s+)?(?:\w+|[^\w\s])\s*")
# Comparing takes time by the number of places that are alike: a text that says one word again
# and again is not marked.
MOST_ALIKE = 20_000
# With less in common nearly everything would be marked, and nothing told.
LEAST_COMMON = 0.3


def marked(answer: str, reference: str) -> list[Piece]:
    """The answer in pieces: what both have, what was added, and, where it is missing, what only
    the reference has; blanks do not count. One plain piece where comparing would tell nothing."""
    ours, theirs = _WORDS.findall(answer), _WORDS.findall(reference)
    a, b = [word.strip() for word in theirs], [word.strip() for word in ours]
    if a == b or not _worth_comparing(a, b):
        return [("", answer)]
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < LEAST_COMMON:
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


def _worth_comparing(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether there is enough in common, and comparing ends soon; both are cheap to count."""
    times_a, times_b = Counter(a), Counter(b)
    alike = sum(times * times_b[word] for word, times in times_a.items())
    common = (times_a & times_b).total()
    return 2 * common >= LEAST_COMMON * (len(a) + len(b)) > 0 and alike <= MOST_ALIKE
