"""Errors and warnings about a price book: `tuneoff prices check`."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from tuneoff.costs.price_book import PriceBook, is_stale
from tuneoff.costs.price_file import DatedFigure, HourPrice, ModelPrice, PriceFile

FindingKind = Literal["overlap", "gap", "stale", "no batch price", "ended", "ends soon"]
# Two prices on one day: chance decides which counts. All other findings are facts of the world.
ERROR_KINDS: tuple[FindingKind, ...] = ("overlap",)
SOON = datetime.timedelta(days=90)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about the book, as a sentence."""

    kind: FindingKind
    what: str
    sentence: str

    @property
    def wrong(self) -> bool:
        """Return whether the book must be corrected, rather than read again."""
        return self.kind in ERROR_KINDS


def check_book(book: PriceBook, day: datetime.date) -> list[Finding]:
    """Return all findings about a book on a day, errors first."""
    findings = [finding for file in book.files for finding in _check_file(file, day)]
    return sorted(findings, key=lambda each: (not each.wrong, each.kind, each.what))


def _check_file(file: PriceFile, day: datetime.date) -> Iterator[Finding]:
    """Yield the findings about one file."""
    for what, entries in _group_prices(file).items():
        yield from _check_dates(what, entries)
    priced_entries: tuple[ModelPrice | HourPrice, ...] = (*file.prices, *file.hours)
    for entry in priced_entries:
        if is_stale(entry, day):
            what = _name_entry(file, entry)
            age = (day - (entry.retrieved or day)).days
            yield Finding(
                "stale",
                what,
                f"{what}: read on {entry.retrieved}, {age} days ago; look again at {entry.source}.",
            )
    yield from _find_missing_batch_prices(file, day)
    for end in file.models:
        what = f"{file.provider} {', '.join(end.models)}"
        what += f", {end.variant}" if end.variant else ""
        instead = f"; instead: {end.replacement}" if end.replacement else ""
        if end.ends < day:
            yield Finding("ended", what, f"{what}: ended on {end.ends}{instead}.")
        elif end.ends - day <= SOON:
            days = (end.ends - day).days
            yield Finding(
                "ends soon", what, f"{what}: ends on {end.ends}, in {days} days{instead}."
            )


def _find_missing_batch_prices(file: PriceFile, day: datetime.date) -> Iterator[Finding]:
    """Yield findings about models that lack batch prices on a day, or half of them.

    Only files with some batch prices are checked.
    """
    if not any(price.batch_input_usd_per_million_tokens for price in file.prices):
        return
    for price in file.prices:
        both = (price.batch_input_usd_per_million_tokens, price.batch_output_usd_per_million_tokens)
        if price.holds(day) and price.input_usd_per_million_tokens is not None and None in both:
            what = _name_entry(file, price)
            yield Finding(
                "no batch price",
                what,
                f"{what}: batches are counted at the price of single answers; add "
                "batch_input_usd_per_million_tokens and batch_output_usd_per_million_tokens.",
            )


def _name_entry(file: PriceFile, entry: ModelPrice | HourPrice) -> str:
    """Return the name of the thing that has this price."""
    if isinstance(entry, HourPrice):
        return f"an hour of {entry.accelerator}"
    return f"{file.provider} {', '.join(entry.names)}, {_format_variant(entry)}"


def _format_variant(price: ModelPrice) -> str:
    """Return a price's variant and method."""
    return price.variant + (f" ({price.method})" if price.method else "")


def _group_prices(file: PriceFile) -> Mapping[str, Sequence[DatedFigure]]:
    """Return the prices of each thing, by the thing's name."""
    groups: dict[str, list[DatedFigure]] = defaultdict(list)
    for price in file.prices:
        for name in price.names:
            groups[f"{file.provider} {name}, {_format_variant(price)}"].append(price)
    for hour in file.hours:
        groups[f"an hour of {hour.accelerator}"].append(hour)
    return groups


def _check_dates(what: str, entries: Sequence[DatedFigure]) -> Iterator[Finding]:
    """Yield findings about overlaps and gaps between the prices of one thing."""
    ordered = sorted(entries, key=lambda entry: entry.first)
    for i, earlier in enumerate(ordered):
        for later in ordered[i + 1 :]:
            if earlier.overlaps(later):
                yield Finding(
                    "overlap",
                    what,
                    f"{what}: two prices hold on {later.first}; end the earlier one the day before "
                    "(until).",
                )
    for earlier, later in pairwise(ordered):
        if earlier.until is not None and later.first - earlier.until > DAY:
            yield Finding(
                "gap",
                what,
                f"{what}: no price from {earlier.until + DAY} to {later.first - DAY}.",
            )
