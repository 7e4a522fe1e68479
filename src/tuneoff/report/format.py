"""Formats values for readers: percent, points, seconds, bytes, counts, money, plain text.

Every function takes None for "not measured" and returns an en dash for it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

MISSING = "–"
MINUS = "−"
_KEPT = "\n\t\u200c\u200d"  # line breaks, tabs, and the joiners of scripts and emoji


def is_share(*values: float | None) -> bool:
    """Return whether all values lie in [0, 1], so that they read as percent."""
    return all(value is None or 0 <= value <= 1 for value in values)


def percent(value: float | None, sign: str = "%") -> str:
    """Return a share in [0, 1] as `83.4%`."""
    return MISSING if _is_missing(value) else f"{100 * value:.1f}{sign}"  # type: ignore[operator]


def score(value: float | None, share: bool = True) -> str:
    """Return a metric's value: percent for a share, else two decimals."""
    if value is None or _is_missing(value):
        return MISSING
    return percent(value) if share else f"{value:.2f}"


def interval(low: float | None, high: float | None, share: bool = True) -> str:
    """Return bounds as `[79.1, 87.0]`; empty without bounds."""
    if low is None or high is None or _is_missing(low) or _is_missing(high):
        return ""
    scale, decimals = (100, 1) if share else (1, 2)
    return f"[{_format_signed(low * scale, decimals)}, {_format_signed(high * scale, decimals)}]"


def by_seed(values: Sequence[float], share: bool = True) -> str:
    """Return each seed's value, `71.2, 70.1, 72.5`; the lowest and highest of more than five."""
    shown = [percent(v, "") if share else score(v, share) for v in values]
    if len(values) <= 5:
        return ", ".join(shown)
    low, high = values.index(min(values)), values.index(max(values))
    return f"{shown[low]} to {shown[high]}"


def difference(value: float, share: bool = True) -> str:
    """Return a difference of scores: `12.5 points`, one point being one percent of a share."""
    return f"{_format_signed(100 * value, 1)} points" if share else _format_signed(value, 2)


def points(margin: float) -> str:
    """Return a margin as `3 points`."""
    return f"{100 * margin:g} point{'s' * (f'{100 * margin:g}' != '1')}"


def p_value(value: float | None) -> str:
    """Return a p-value in two significant digits, never as 0."""
    if value is None or _is_missing(value):
        return MISSING
    if value < 0.0001:
        return "< 0.0001"
    return f"{value:.4f}" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def p_equals(value: float | None) -> str:
    """Return `p = 0.0003`, or `p < 0.0001`."""
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def count(value: float | None) -> str:
    """Return a whole number with thousands separators."""
    return MISSING if value is None or _is_missing(value) else f"{value:,.0f}"


def number(value: float | None) -> str:
    """Return a number in three significant digits, with thousands separators."""
    if value is None or _is_missing(value):
        return MISSING
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def large(value: float | None) -> str:
    """Return a large number in two significant digits: `840`, `12,000`, `3.2 million`."""
    if value is None or _is_missing(value):
        return MISSING
    rounded = float(f"{value:.2g}")
    if rounded < 1e6:
        return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"
    unit, name = (1e9, "billion") if rounded >= 1e9 else (1e6, "million")
    return f"{rounded / unit:,.3g} {name}" if rounded < 1e12 else f"{rounded / unit:,.0f} {name}"


def seconds(value: float | None) -> str:
    """Return a duration: `340 ms`, `4.2 s`, `2 min 14 s`, `1 h 3 min`."""
    if value is None or _is_missing(value):
        return MISSING
    if value < 0.9995:
        return f"{1000 * value:.3g} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def size(value: int | None) -> str:
    """Return bytes as MiB, or GiB from one GiB on."""
    if value is None:
        return MISSING
    mib = value / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def usd(value: float | None) -> str:
    """Return money in cents, or in two significant digits below ten cents."""
    if value is None or _is_missing(value):
        return MISSING
    if value == 0 or value >= 0.1:
        return f"${value:,.2f}"
    return f"${Decimal(f'{value:.2g}'):f}"


def requests(count: int) -> str:
    """Return a number of requests: `1 request`, `1,083 requests`."""
    return f"{count:,} request{'' if count == 1 else 's'}"


def at_once(concurrency: int | None) -> str:
    """Return the number of requests in flight: `up to 16 at once`; empty if one or unknown."""
    return f"up to {concurrency:,} at once" if concurrency and concurrency > 1 else ""


def words(identifier: str) -> str:
    """Return an identifier as words: `exact_match` → `exact match`."""
    return identifier.replace("_", " ")


def clean(text: str) -> str:
    """Return text with its invisible characters made visible, which can always be written as UTF-8.

    Control and invisible characters, lone surrogates and those that reverse the reading direction
    become their number: `⟨U+202E⟩`.
    """
    text = text.replace("\r\n", "\n")
    return text if text.isascii() and text.isprintable() else "".join(map(_make_visible, text))


def shorten(text: str, limit: int) -> str:
    """Return the first `limit` characters, and how many there are if some were cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text):,} characters in all)"


def _make_visible(character: str) -> str:
    """Return a character, or its number if it is invisible."""
    if character in _KEPT:
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def _format_signed(value: float, decimals: int) -> str:
    """Return a number with a minus sign (not a hyphen), and without one if it rounds to 0."""
    shown = f"{value:.{decimals}f}"
    if float(shown) == 0:
        return shown.removeprefix("-")
    return shown.replace("-", MINUS)


def _is_missing(value: float | None) -> bool:
    """Return whether a value is missing, or not a number."""
    return value is None or not math.isfinite(value)
