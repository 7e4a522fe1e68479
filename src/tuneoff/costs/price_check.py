"""`tuneoff prices`: the price book as rows, and errors and warnings about it."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tuneoff import environment
from tuneoff.config.base import PriceConfig
from tuneoff.costs.price_book import PriceBook, build_price_book, is_stale
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
    def is_error(self) -> bool:
        """Return whether the book must be corrected, rather than read again."""
        return self.kind in ERROR_KINDS


def check_book(book: PriceBook, day: datetime.date) -> list[Finding]:
    """Return all findings about a book on a day, errors first."""
    findings = [finding for file in book.files for finding in _check_file(file, day)]
    return sorted(findings, key=lambda each: (not each.is_error, each.kind, each.what))


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


COLUMNS = {
    "training": "training_usd_per_million_tokens",
    "input": "input_usd_per_million_tokens",
    "cached": "cached_input_usd_per_million_tokens",
    "write": "cache_write_usd_per_million_tokens",
    "output": "output_usd_per_million_tokens",
    "USD/h": "usd_per_hour",
}
# Heading above all columns but the last.
TOKEN_PRICE_HEADING = " USD per million tokens "


def list_prices(own: Path | None = None, as_of: datetime.date | None = None) -> dict[str, Any]:
    """Return the prices of a day (default: today) as rows.

    Raises:
        ConfigError: `own`, the user's file of prices, cannot be read.
    """
    day = as_of or environment.today()
    prices = build_price_book(own)
    accelerators = [
        {"name": a.name, "memory_gb": a.memory_gb, "peak_teraflops": a.peak_teraflops}
        for a in prices.accelerators()
    ]
    rows = [row for file in prices.files for row in _build_rows(prices, file, day)]
    return {"schema": 1, "as_of": day, "prices": rows, "accelerators": accelerators}


def collect_findings(own: Path | None = None, as_of: datetime.date | None = None) -> dict[str, Any]:
    """Return the findings about the book; `ok` unless one of them is an error."""
    day = as_of or environment.today()
    findings = check_book(build_price_book(own), day)
    rows = [{"kind": f.kind, "what": f.what, "sentence": f.sentence} for f in findings]
    return {
        "schema": 1,
        "as_of": day,
        "ok": not any(f.is_error for f in findings),
        "findings": rows,
    }


def render_prices(prices: dict[str, Any]) -> str:
    """Render the rows as text, in USD per million tokens or per hour as the headings say."""
    lines = [["provider", "model", "", *COLUMNS, "ends", "read"]]
    for row in prices["prices"]:
        cells = [_format_usd(row[name]) for name in COLUMNS.values()]
        read = str(row["retrieved"] or "") + (" stale" if row["stale"] else "")
        names = [row["provider"], row["model"], row["variant"] or ""]
        lines.append([*names, *cells, str(row["ends"] or ""), read])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    money = range(3, 3 + len(COLUMNS))
    rows = [
        "  ".join(
            cell.rjust(widths[i]) if i in money else cell.ljust(widths[i])
            for i, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
    of_tokens = range(3, 3 + len(COLUMNS) - 1)
    begins = sum(widths[:3]) + 2 * len(widths[:3])
    across = sum(widths[i] for i in of_tokens) + 2 * (len(of_tokens) - 1)
    return "\n".join([" " * begins + TOKEN_PRICE_HEADING.center(across, "-"), *rows])


def _format_usd(usd: Any) -> str:
    """Return USD as text."""
    return "" if usd is None else f"{usd:f}"


def _build_rows(prices: PriceBook, file: PriceFile, day: datetime.date) -> Iterator[dict[str, Any]]:
    """Yield a file's prices of a day as rows."""
    for price in file.prices:
        if not price.holds(day):
            continue
        figures = {name: getattr(price, name) for name in PriceConfig.model_fields}
        for name in price.names:
            end = prices.find_model_end(file.provider or "", name, price.variant == "tuned")
            yield {
                "provider": file.provider,
                "model": name,
                "variant": price.variant,
                "method": price.method,
                **figures,
                "usd_per_hour": price.hosting_usd_per_hour,
                "ends": end.ends if end else None,
                "training_ends": end.training_ends if end else None,
                "replacement": end.replacement if end else None,
                **_build_origin(price, day),
            }
    for hour in file.hours:
        if hour.holds(day):
            yield {
                "provider": hour.vendor,
                "model": hour.accelerator,
                "variant": None,
                "method": None,
                **dict.fromkeys(PriceConfig.model_fields),
                "usd_per_hour": hour.usd_per_hour,
                **dict.fromkeys(("ends", "training_ends", "replacement")),
                **_build_origin(hour, day),
            }


def _build_origin(entry: DatedFigure, day: datetime.date) -> dict[str, Any]:
    """Return the source of a price and the days on which it holds."""
    return {
        "source": entry.source,
        "retrieved": entry.retrieved,
        "from": entry.first,
        "until": entry.until,
        "stale": is_stale(entry, day),
    }
