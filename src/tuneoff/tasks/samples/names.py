"""Invented proper names, built from syllables and kept apart by split.

The pool does not depend on a seed, so it can be listed in full. A name of one split never occurs in
another.
"""

from __future__ import annotations

import random

from tuneoff.records import Split

STARTS = (
    "Vel", "Tarr", "Orv", "Quen", "Bras", "Ild", "Morv", "Sket", "Fenn", "Gral",
    "Yst", "Dov", "Lum", "Hask", "Pell", "Rund", "Zem", "Calv", "Nith", "Wex",
    "Brom", "Thal", "Eskr", "Jorv", "Kest", "Ulm", "Aven", "Drus", "Oph", "Sarn",
)  # fmt: skip
ENDS = (
    "ora", "ith", "une", "arro", "eck", "ova", "ildo", "amun", "esk", "ury", "onde", "avel",
    "irra", "oth", "enza", "umar", "ile", "okka", "anth", "eris", "uvo", "adri", "olm", "iska",
)  # fmt: skip
# One remainder of five each for validation and test; the other three for train.
_REMAINDERS: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}


def list_name_words(split: Split) -> tuple[str, ...]:
    """Return all one-word names of a split, capitalized."""
    wanted = _REMAINDERS[split]
    return tuple(
        start + end
        for row, start in enumerate(STARTS)
        for column, end in enumerate(ENDS)
        if (row + column) % 5 in wanted
    )


def list_all_name_words() -> frozenset[str]:
    """Return every name word of every split, in lower case."""
    splits: tuple[Split, ...] = ("train", "validation", "test")
    return frozenset(word.lower() for split in splits for word in list_name_words(split))


def draw_full_names(split: Split, count: int, rng: random.Random) -> list[str]:
    """Return `count` different names of two words each."""
    words = list_name_words(split)
    names: dict[str, None] = {}
    while len(names) < count:
        names[" ".join(rng.sample(words, 2))] = None
    return list(names)
