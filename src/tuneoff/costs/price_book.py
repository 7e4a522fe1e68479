"""The price book: what a model or an accelerator costs on a day.

`prices/*.yaml` ships with tuneoff: one file per provider and one for accelerators. Every figure has
its source and the day it was read. A user's own file comes before it; a contender's `price:` comes
before both. Units are in the names: USD per million tokens, or per hour.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from tuneoff import environment
from tuneoff.config.base import PriceConfig
from tuneoff.config.contenders import Hardware
from tuneoff.costs.price_file import (
    Accelerator,
    DatedFigure,
    HourPrice,
    Method,
    ModelEnd,
    ModelPrice,
    PriceFile,
    Variant,
    read_price_files,
)
from tuneoff.errors import explain_unknown

SHIPPED_DIR = Path(__file__).parent / "prices"
STALE_DAYS = 90
YEAR = datetime.timedelta(days=365)
BAKEOFF_FILE = "the bake-off file"
TUNED_PREFIX = "ft:"
# "8B" of Qwen3-8B or Llama-3.1-8B-Instruct, "30B" of Qwen3-30B-A3B. Experts that are counted one by
# one (8x7B, 17B-128E) do not say how many parameters there are in all.
_BILLIONS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[Bb](?![\w.])(?!-\d+E)")


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs. None: not known, or not sold that way."""

    training_usd_per_million_tokens: Decimal | None = None
    input_usd_per_million_tokens: Decimal | None = None
    output_usd_per_million_tokens: Decimal | None = None
    cached_input_usd_per_million_tokens: Decimal | None = None
    cache_write_usd_per_million_tokens: Decimal | None = None
    batch_input_usd_per_million_tokens: Decimal | None = None
    batch_output_usd_per_million_tokens: Decimal | None = None
    hosting_usd_per_hour: Decimal | None = None
    source: str = BAKEOFF_FILE
    retrieved: datetime.date | None = None
    stale: bool = False
    """The price still holds as far as is known, and was read more than 90 days before."""
    ends: datetime.date | None = None
    training_ends: datetime.date | None = None
    replacement: str | None = None
    long_prompt_tokens: int | None = None
    """Longer prompts cost more than is said here."""


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Files of prices; the first file that knows a thing decides."""

    own: tuple[PriceFile, ...] = ()
    """The user's files."""
    shipped: tuple[PriceFile, ...] = ()

    @property
    def files(self) -> tuple[PriceFile, ...]:
        """Return all files, in the order in which they decide."""
        return self.own + self.shipped

    def model_prices(self, provider: str) -> Iterator[ModelPrice]:
        """Yield every price of a provider's models, in the order in which they decide."""
        for file in self.files:
            if file.provider == provider:
                yield from file.prices

    def providers(self) -> list[str]:
        """Return the providers that have prices."""
        return sorted({file.provider for file in self.files if file.provider})

    def find_model_end(self, provider: str, model: str, tuned: bool = False) -> ModelEnd | None:
        """Return when a model ends, or models tuned on it; None where that is not known.

        A name that begins with `ft:` means the tuned model anyway.
        """
        base, variant = get_base(model), _choose_variant(model, tuned)
        ends = (end for file in self.files if file.provider == provider for end in file.models)
        return next(
            (end for end in ends if base in end.models and end.variant in (None, variant)), None
        )

    def accelerators(self) -> list[Accelerator]:
        """Return every accelerator, the smallest memory first."""
        by_name: dict[str, Accelerator] = {}
        for file in self.files:
            for accelerator in file.accelerators:
                by_name.setdefault(accelerator.name, accelerator)
        return sorted(
            by_name.values(),
            key=lambda accelerator: (accelerator.memory_gb, accelerator.peak_teraflops),
        )

    def accelerator(self, name: str) -> Accelerator | None:
        """Return an accelerator by its name or an alias, ignoring case; None if unknown."""
        return next((a for a in self.accelerators() if name.lower() in a.names), None)

    def hour(self, name: str, as_of: datetime.date | None = None) -> HourPrice | None:
        """Return the price of an accelerator's hour on a day (default: today); None if unknown."""
        known = self.accelerator(name)
        names = known.names if known else (name.lower(),)
        day = as_of or environment.today()
        prices = (p for file in self.files for p in file.hours if p.accelerator.lower() in names)
        return next((price for price in prices if price.holds(day)), None)


@cache
def load_shipped() -> PriceBook:
    """Return the price book that ships with tuneoff."""
    files = sorted(SHIPPED_DIR.glob("*.yaml"))
    return PriceBook(shipped=tuple(part for file in files for part in read_price_files(file)))


def build_price_book(own: Path | None = None) -> PriceBook:
    """Return the shipped price book behind the user's own file of prices.

    Raises:
        ConfigError: that file cannot be read.
    """
    return (
        PriceBook(own=read_price_files(own), shipped=load_shipped().shipped)
        if own
        else load_shipped()
    )


def add_hour_price(
    hardware: Hardware, prices: PriceBook, day: datetime.date
) -> tuple[Hardware, HourPrice | None]:
    """Return hardware with the price of its hour, and that price if it is the book's."""
    if hardware.usd_per_hour is not None or hardware.accelerator is None:
        return hardware, None
    hour = prices.hour(hardware.accelerator, day)
    if hour is None:
        return hardware, None
    return hardware.model_copy(update={"usd_per_hour": float(hour.usd_per_hour)}), hour


def explain_missing_hour_price(
    name: str, hardware: Hardware, prices: PriceBook, day: datetime.date
) -> str | None:
    """Explain in one sentence why a contender's hardware has no hourly price, and what to do.

    None where it has one on this day.
    """
    if add_hour_price(hardware, prices, day)[0].usd_per_hour is not None:
        return None
    named, what_to_do = hardware.accelerator, f"give contender {name} hardware.usd_per_hour"
    if named is not None and prices.accelerator(named) is None:
        known = [each.name for each in prices.accelerators()]
        return f"hardware: {explain_unknown('accelerator', named, known)}; {what_to_do}."
    return f"an hour of {named or 'this hardware'} has no price on {day}; {what_to_do}."


def format_hour_source(hour: HourPrice | None) -> str:
    """Return the source of an hourly price."""
    return f"{hour.vendor or 'your prices file'}, read {hour.retrieved}" if hour else BAKEOFF_FILE


def find_model_price(
    provider: str,
    model: str,
    as_of: datetime.date | None = None,
    override: PriceConfig | None = None,
    *,
    tuned: bool = False,
    method: Method = "lora",
    prices: PriceBook | None = None,
) -> Price | None:
    """Return what a model costs on a day; None when neither the book nor the file says so.

    Args:
        as_of: the day; today if left out.
        override: the contender's own `price:`; its figures come before the book's.
        tuned: price of the model after (and for) its own fine-tuning; a name that begins with `ft:`
            means that anyway.
        method: for providers whose price depends on it.
        prices: the book; the shipped one if left out.
    """
    prices = prices or load_shipped()
    day = as_of or environment.today()
    entry = _find_entry(prices, provider, model, day, _choose_variant(model, tuned), method)
    if entry is None and override is None:
        return None
    own = _collect_figures(override)
    end = prices.find_model_end(provider, model, tuned)
    return Price(
        **(_collect_figures(entry) | own),
        source=_format_source(entry, own),
        retrieved=entry.retrieved if entry else None,
        stale=entry is not None and is_stale(entry, day),
        ends=end.ends if end else None,
        training_ends=end.training_ends if end else None,
        replacement=end.replacement if end else None,
        long_prompt_tokens=entry.long_prompt_tokens if entry else None,
    )


def explain_no_price(
    name: str,
    provider: str,
    model: str,
    as_of: datetime.date | None = None,
    *,
    tuned: bool = False,
    method: Method = "lora",
    prices: PriceBook | None = None,
) -> str:
    """Explain in one sentence why a contender's model has no price, and what to do."""
    prices = prices or load_shipped()
    variant = _choose_variant(model, tuned)
    base, day = get_base(model), as_of or environment.today()
    what_to_do = f"give contender {name} a `price:` in the file, or run with --yes"
    if provider not in prices.providers():
        known = ", ".join(prices.providers())
        return (
            f"the price book has no prices of provider {provider!r} (it has those of: {known}); "
            f"{what_to_do}."
        )
    billions = parse_billions(base)
    same = [e for e in prices.model_prices(provider) if e.covers(base, billions)]
    matching = [e for e in same if e.variant == variant and e.method in (None, method)]
    if not matching:
        named = [m for e in prices.model_prices(provider) for m in e.models]
        if not same and named:
            return (
                f"{explain_unknown(f'model of {provider}', base, dict.fromkeys(named))}; "
                f"{what_to_do}."
            )
        how = ""
        if same:
            how = " after fine-tuning" if variant == "tuned" else " without fine-tuning"
            if any(e.variant == variant for e in same):
                how += f" by method {method}"
        return f"the price book has no price of {provider}'s {base}{how}; {what_to_do}."
    begins = min(entry.first for entry in matching)
    if day < begins:
        when = f"begins on {begins}, after {day}"
    else:
        before = max(e.until for e in matching if e.until is not None and e.until < day)
        when = f"has none of {day}: the last one before held until {before}"
    return f"the price book for {provider}'s {base} {when}; {what_to_do}."


def explain_lifetime(price: Price, model: str, day: datetime.date, trains: bool) -> list[str]:
    """Explain that a model has ended, ends within a year, or is no longer trained."""
    instead = f"; instead: {price.replacement}" if price.replacement else ""
    if price.ends is not None and price.ends < day:
        return [f"{model} ended on {price.ends}{instead}."]
    sentences = []
    if trains and price.training_ends is not None:
        if price.training_ends <= day:
            sentences.append(
                f"{model} takes no training jobs since {price.training_ends}{instead}."
            )
        elif price.training_ends - day < YEAR:
            sentences.append(f"{model} takes training jobs until {price.training_ends}.")
    if price.ends is not None and price.ends - day < YEAR:
        sentences.append(f"{model}, and what is tuned on it, ends on {price.ends}{instead}.")
    return sentences


def get_base(model: str) -> str:
    """Return the base of a tuned model: `ft:BASE:ORGANIZATION:SUFFIX:ID` → `BASE`."""
    return model.split(":")[1] if model.startswith(TUNED_PREFIX) else model


def parse_billions(model: str) -> float | None:
    """Return the billions of parameters that a model's name states; None where it does not."""
    match = _BILLIONS.search(model.rpartition("/")[2])
    return float(match[1]) if match else None


def is_stale(entry: DatedFigure, day: datetime.date) -> bool:
    """Return whether a price that still holds was read too long before a day to be relied on."""
    if entry.until is not None or entry.retrieved is None:
        return False
    return (day - entry.retrieved).days > STALE_DAYS


def _choose_variant(model: str, tuned: bool) -> Variant:
    """Return which price is meant: the tuned model's or the base's."""
    return "tuned" if tuned or model.startswith(TUNED_PREFIX) else "base"


def _find_entry(
    prices: PriceBook,
    provider: str,
    model: str,
    day: datetime.date,
    variant: Variant,
    method: Method,
) -> ModelPrice | None:
    """Find the price of a model on a day; None if there is none."""
    base = get_base(model)
    billions = parse_billions(base)
    for entry in prices.model_prices(provider):
        if entry.variant != variant or entry.method not in (None, method):
            continue
        if entry.covers(base, billions) and entry.holds(day):
            return entry
    return None


def _collect_figures(settings: PriceConfig | None) -> dict[str, Decimal]:
    """Return the prices that are set, by name."""
    named = {name: getattr(settings, name, None) for name in PriceConfig.model_fields}
    return {name: usd for name, usd in named.items() if usd is not None}


def _format_source(entry: ModelPrice | None, own: dict[str, Decimal]) -> str:
    """Return where a price comes from: the bake-off file, the book, or both."""
    book_says = (entry.source or "your prices file") if entry else None
    sources = [BAKEOFF_FILE] if own or book_says is None else []
    return " and ".join([*sources, *([book_says] if book_says else [])])
