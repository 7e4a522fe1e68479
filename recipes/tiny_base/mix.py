"""Which family a document comes from, by its seed and index and the stage of training."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import lru_cache

from tiny_base import copying, prose, records, sql
from tiny_base.copying import Document
from tiny_base.words import FORBIDDEN_LABELS, blocked

EARLY = {"copying": 0.6, "records": 0.22, "sql": 0.15, "prose": 0.03}
FULL = {"copying": 0.18, "records": 0.42, "sql": 0.37, "prose": 0.03}


def make(family: str, rng: random.Random, small: bool) -> Document:
    """One document of a family."""
    if family == "copying":
        return copying.make(rng)
    if family == "records":
        return records.make(rng, small)
    if family == "sql":
        return sql.make(rng, small)
    return prose.make(rng)


@lru_cache(maxsize=1)
def _never() -> frozenset[str]:
    return blocked() | {label for label in FORBIDDEN_LABELS if label != "name"}


def clean(made: Document) -> bool:
    """Whether nothing of the samples or of the public task got in (as a plural, say)."""
    text = "".join(piece for piece, _ in made)
    if re.search(r"\w\[", text) or any(label in text for label in FORBIDDEN_LABELS if "_" in label):
        return False
    return _never().isdisjoint(re.findall(r"[a-z]+", text.lower()))


def document(seed: int, index: int, early: bool = False, family: str = "") -> Document:
    """The document with this seed and index; `early` makes it short and mostly copying."""
    rng = random.Random(f"{seed}/{index}")
    weights = EARLY if early else FULL
    drawn = rng.choices(list(weights), list(weights.values()))[0]
    small = early or rng.random() < 0.2
    while not clean(made := make(family or drawn, rng, small)):
        pass
    return made


def documents(seed: int, start: int, early: bool = False, family: str = "") -> Iterator[Document]:
    """Documents from an index on, without end."""
    while True:
        yield document(seed, start, early, family)
        start += 1
