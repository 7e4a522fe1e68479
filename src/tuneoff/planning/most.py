"""The most that a run asks leave for before it begins, worked out as the run does it.

A run that was not begun, without a run directory and without a key: all answers are still to be
had, all jobs to be sent. USD at today's prices, whatever `as_of` says, for those are paid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tuneoff.config import BakeOff, HostedSettings
from tuneoff.contenders import Work, load_contender
from tuneoff.costs.pricebook import PriceBook
from tuneoff.records import Example, Split
from tuneoff.spending import judge_price, judges, most_usd, paid


@dataclass(frozen=True, slots=True)
class OfSplit(Sequence[Example]):
    """The examples of one split, gone through anew each time: of large files none is held."""

    rows: Iterable[tuple[Split, Example]]
    split: Split
    size: int

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Example]:
        return (example for split, example in self.rows if split == self.split)

    def __getitem__(self, place: Any) -> Any:
        return list(self)[place]


def most_of_run(
    bakeoff: BakeOff,
    work: Work,
    rows: Iterable[tuple[Split, Example]],
    sizes: Mapping[Split, int],
    prices: PriceBook,
) -> Decimal:
    """The most, in USD, that all paid contenders together can be billed.

    Args:
        work: what contenders work with; its `train` are those that shots are drawn from.
        rows: all examples with their split, again and again.
    """
    splits: dict[Split, OfSplit] = {s: OfSplit(rows, s, size) for s, size in sizes.items()}
    whole = replace(work, validation=splits["validation"], test=splits["test"])
    most = Decimal()
    for settings in bakeoff.contenders:
        if not paid(settings):
            continue
        trained = isinstance(settings, HostedSettings)
        mine = replace(whole, train=splits["train"]) if trained else whole
        most += most_usd(load_contender(settings.id), settings, mine, prices)
    return most


def about_judges(bakeoff: BakeOff, prices: PriceBook) -> list[str]:
    """What a judge costs depends on answers that nobody has yet."""
    found = []
    for settings in judges(bakeoff):
        price, unpriced = judge_price(settings, prices)
        if price is not None:
            found.append(
                f"what the judge {settings.model} will cost is in no figure here; each of its "
                "questions asks leave by itself."
            )
        found += [unpriced] if unpriced else []
    return found
