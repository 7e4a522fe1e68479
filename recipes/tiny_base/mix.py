"""Which family a document comes from, by its seed and index and the stage of training."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tiny_base import copying, prose, records, sql
from tiny_base.copying import Document

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


def document(seed: int, index: int, early: bool = False, family: str = "") -> Document:
    """The document with this seed and index; `early` makes it short and mostly copying."""
    rng = random.Random(f"{seed}/{index}")
    weights = EARLY if early else FULL
    drawn = rng.choices(list(weights), list(weights.values()))[0]
    small = early or rng.random() < 0.2
    return make(family or drawn, rng, small)


def documents(seed: int, start: int, early: bool = False, family: str = "") -> Iterator[Document]:
    """Documents from an index on, without end."""
    while True:
        yield document(seed, start, early, family)
        start += 1
