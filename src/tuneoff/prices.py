"""`tuneoff prices`: the price book as rows, and findings about it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneoff import environment
from tuneoff.config.base import PriceConfig
from tuneoff.costs import price_check
from tuneoff.costs.price_book import PriceBook, build_price_book, is_stale
from tuneoff.costs.price_file import DatedFigure, PriceFile

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
    findings = price_check.check_book(build_price_book(own), day)
    rows = [{"kind": f.kind, "what": f.what, "sentence": f.sentence} for f in findings]
    return {"schema": 1, "as_of": day, "ok": not any(f.wrong for f in findings), "findings": rows}


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
