"""A contender's past and future costs, from what a run left in its directory.

The same directory and the same file always give the same figures, at the prices of `as_of`, else of
the day on which the run began. The ledger says what was billed. What is not known is None, and a
sentence says why. Costs may also be reported
elsewhere, or computed from hours or tokens that were.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tuneoff import environment
from tuneoff.config.base import PriceConfig
from tuneoff.config.contenders import (
    Hardware,
    LocalConfig,
    PromptedConfig,
    RecordedConfig,
    ReportedTraining,
)
from tuneoff.config.schema import BakeOff
from tuneoff.costs.contender_prices import (
    build_judge_name,
    find_contender_price,
    is_free_local_server,
    is_hosted,
    is_outside_price_book,
    load_price_book,
)
from tuneoff.costs.ledger import Ledger, build_provider_cost
from tuneoff.costs.monthly import (
    HOURS_PER_MONTH,
    ZERO,
    HostedMonthlyCost,
    OwnedMonthlyCost,
    build_hosted_cost,
    build_owned_cost,
    compute_fixed_usd,
    compute_usd_per_1k,
    compute_usd_per_correct,
    spread_tuning_cost,
)
from tuneoff.costs.price_book import (
    Price,
    PriceBook,
    add_hour_price,
    find_model_price,
    format_hour_source,
)
from tuneoff.costs.token_costs import HOUR_SECONDS, build_own_cost, price_hours, price_training
from tuneoff.records import ServingRecord, TrainingRecord
from tuneoff.results import Cost, Hosting, LatencyStats
from tuneoff.scoring.added_metrics import list_judging_models
from tuneoff.storage.files import read_lines
from tuneoff.storage.run_dir import RunDir

# USD, how they were computed, the sources of the price, and unit prices by name.
ComputedCost = tuple[Decimal | None, str, tuple[str, ...], dict[str, float]]


def build_reported_cost(settings: RecordedConfig, prices: PriceBook, day: datetime.date) -> Cost:
    """Return the reported cost of training, and what its hours or tokens would cost.

    They are priced on a day. Where no money is reported, that price replaces it.
    """
    reported = settings.training
    if reported is None:
        return Cost()
    worked_out, how, sources, unit_prices = _compute_cost(settings, reported, prices, day)
    usd, basis = reported.usd, [how] if how else []
    if usd is None:
        usd = worked_out
    else:
        basis.insert(0, "reported")
        if worked_out is not None:
            basis[-1] += f" = ${worked_out:.3f}"
    return Cost(
        training_usd=None if usd is None else float(usd),
        training_basis="; ".join(basis),
        price_sources=(*sources, *([settings.source] if settings.source else [])),
        unit_prices=unit_prices,
    )


def _compute_cost(
    settings: RecordedConfig, reported: ReportedTraining, prices: PriceBook, day: datetime.date
) -> ComputedCost:
    """Compute the cost of reported hours or tokens at the prices of a day."""
    if reported.hours is not None and settings.hardware is not None:
        known, hour = add_hour_price(settings.hardware, prices, day)
        usd = price_hours(reported.hours * HOUR_SECONDS, known)
        if usd is not None:
            times = f" × {known.count}" if known.count > 1 else ""
            on = f" ({known.accelerator})" if known.accelerator else ""
            how = f"{reported.hours:g} h × ${known.usd_per_hour:g}/h{times}{on}"
            return (
                usd,
                how,
                (format_hour_source(hour),),
                {"usd_per_hour": known.usd_per_hour or 0.0},
            )
    if reported.tokens_billed is not None and settings.provider and settings.model:
        price = find_model_price(settings.provider, settings.model, day, tuned=True, prices=prices)
        usd = price_training(price, reported.tokens_billed) if price else None
        if price is not None and usd is not None:
            usd_per_million = price.training_usd_per_million_tokens
            how = f"{reported.tokens_billed:,} tokens × ${usd_per_million:f} per million"
            unit_prices = {"training_usd_per_million_tokens": float(usd_per_million or 0)}
            return usd, how, (price.source,), unit_prices
    hours = f"{reported.hours:g} h" if reported.hours is not None else ""
    tokens = f"{reported.tokens_billed:,} tokens" if reported.tokens_billed else ""
    return None, ", ".join(part for part in (hours, tokens) if part), (), {}


NO_HARDWARE = "not priced: name hardware"
MonthlyCost = OwnedMonthlyCost | HostedMonthlyCost


@dataclass(frozen=True, slots=True)
class Measurements:
    """What a contender's directory says about it."""

    training: TrainingRecord | None
    answering_seconds: float | None
    serving: LatencyStats
    record: ServingRecord | None
    correct: float | None
    """Share of correct answers."""
    planned_usd: float | None
    times_answered: float = 1.0
    """How often a provider answered each example."""


@dataclass(frozen=True, slots=True)
class PricedContender:
    """A contender's money."""

    cost: Cost
    monthly: MonthlyCost | None = None
    """Its monthly cost, where answering has a price."""
    elsewhere: str | None = None
    """A sentence where its speed was measured on other hardware than is priced."""


class RunPricing:
    """The prices of a run: those of its day, from the book and the file."""

    def __init__(self, bakeoff: BakeOff, run: RunDir) -> None:
        self.bakeoff, self.prices = bakeoff, load_price_book(bakeoff)
        self.ledger, self.day = Ledger(run.events), find_price_day(bakeoff, run)

    def priced(self, settings: Any, measurements: Measurements) -> PricedContender:
        """Return a contender's past and future costs."""
        if isinstance(settings, RecordedConfig):
            return PricedContender(build_reported_cost(settings, self.prices, self.day))
        monthly: MonthlyCost | None
        if is_hosted(settings):
            billed = measurements.training.tokens_billed if measurements.training else None
            cost = _price_one_sample(
                build_provider_cost(settings.name, billed, self.ledger), measurements.times_answered
            )
            cost = replace(cost, unit_prices=self._unit_prices(settings))
            monthly, basis = self._hosted(settings, measurements, cost)
        else:
            seconds = measurements.training.seconds if measurements.training else None
            cost = self.hours(settings, seconds, measurements.answering_seconds)
            monthly, basis = self._own(settings, measurements)
        elsewhere = _explain_other_hardware(settings, measurements.record)
        cost = replace(
            cost,
            training_basis=_append_warning(cost.training_basis, elsewhere),
            training_usd_planned=measurements.planned_usd,
            serving_basis=_append_warning(basis, elsewhere) if monthly is not None else basis,
        )
        return PricedContender(
            self._served(cost, monthly, measurements.correct), monthly, elsewhere
        )

    def judge_usd(self) -> float | None:
        """Return the cost of the judge's answers from the ledger; None where they have no price."""
        names = dict.fromkeys(build_judge_name(each) for each in list_judging_models(self.bakeoff))
        known = [self.ledger.spent(name).known for name in names if name in self.ledger.priced]
        return float(sum(known, ZERO)) if known else None

    def hours(self, settings: Any, training: float | None, answering: float | None) -> Cost:
        """Return the cost of an own model's hours."""
        hardware: Hardware | None = getattr(settings, "hardware", None)
        if hardware is None:
            return Cost()
        known, hour = add_hour_price(hardware, self.prices, self.day)
        return build_own_cost(known, format_hour_source(hour), training, answering)

    def ends(self, settings: Any) -> str | None:
        """Return the day on which a provider's model ends, as ISO text; None if it is not known."""
        day = find_end(settings, self.prices)
        return day.isoformat() if day else None

    def _served(self, cost: Cost, monthly: MonthlyCost | None, correct: float | None) -> Cost:
        """Return the cost with the cost of answering added."""
        if monthly is None:
            return cost
        load = self.bakeoff.serving.requests_per_month
        per_1k = compute_usd_per_1k(monthly, load)
        right = None
        if correct is not None and 0 <= correct <= 1:
            right = compute_usd_per_correct(per_1k, Decimal(str(correct)))
        return replace(
            cost,
            serving_usd_per_1k_requests=float(per_1k),
            fixed_usd_per_month=float(compute_fixed_usd(monthly, load)),
            usd_per_correct_answer=None if right is None else float(right),
        )

    def _own(
        self, settings: LocalConfig, measurements: Measurements
    ) -> tuple[OwnedMonthlyCost | None, str]:
        """Return the monthly cost of reserved machines, and its basis in words."""
        if settings.hardware is None:
            return None, NO_HARDWARE
        hardware, _ = add_hour_price(settings.hardware, self.prices, self.day)
        named = hardware.accelerator
        if hardware.usd_per_hour is None:
            return None, (
                f"not priced: an hour of {named or 'this hardware'} has no price on {self.day}; "
                "give hardware.usd_per_hour"
            )
        record, rules = measurements.record, self.bakeoff.serving
        if record is None or not record.requests_per_second:
            return None, "not priced: its throughput was not measured"
        monthly = build_owned_cost(
            Decimal(str(hardware.usd_per_hour)),
            hardware.count,
            Decimal(str(record.requests_per_second)),
            Decimal(str(rules.utilization)),
        )
        machines = monthly.machines(Decimal(rules.requests_per_month or 0))
        times = f" × {hardware.count}" if hardware.count > 1 else ""
        reserved = f"{machines} × " if machines > 1 else ""
        basis = (
            f"reserved: {reserved}${hardware.usd_per_hour:g}/h{times} × "
            f"{HOURS_PER_MONTH} h "
            f"a month; used to {rules.utilization:.0%} of {record.requests_per_second:.3g} "
            f"requests a second, a machine answers {_format_requests(monthly.machine_requests)} "
            "a month"
        )
        if _explain_other_hardware(settings, record) is None:
            basis += f", measured on {record.accelerator or record.machine}"
        return monthly, basis

    def _hosted(
        self, settings: Any, measurements: Measurements, cost: Cost
    ) -> tuple[HostedMonthlyCost | None, str]:
        """Return the monthly cost of a provider's model, and its basis in words."""
        if is_free_local_server(settings):
            return None, "not priced: a server on this machine"
        price = find_contender_price(settings, self.prices, self.day)
        if price is None:
            return None, "not priced: its model has no price in the book; give it a `price:`"
        tokens_in, tokens_out = (
            measurements.serving.tokens_in_mean,
            measurements.serving.tokens_out_mean,
        )
        if tokens_in is None or tokens_out is None:
            return None, "not priced: no answer says how many tokens it took"
        again, words = self._tuning_again(settings, cost, measurements.planned_usd)
        monthly = build_hosted_cost(
            price,
            Decimal(str(tokens_in)),
            Decimal(str(tokens_out)),
            batch=settings.batch,
            tuning_again_usd=again,
        )
        if monthly is None:
            return None, "not priced: answering has no price; give it a `price:`"
        basis = _format_token_prices(price, tokens_in, tokens_out, settings.batch)
        return monthly, "; ".join(
            [*basis, f"prices of {self.day}: {_format_source(price)}", *words]
        )

    def _unit_prices(self, settings: Any) -> dict[str, float]:
        """Return a provider's unit prices of a model; empty where they are not known."""
        price = (
            None
            if is_free_local_server(settings)
            else find_contender_price(settings, self.prices, self.day)
        )
        unit_prices = {name: getattr(price, name, None) for name in PriceConfig.model_fields}
        return {name: float(usd) for name, usd in unit_prices.items() if usd is not None}

    def _tuning_again(
        self, settings: Any, cost: Cost, planned: float | None
    ) -> tuple[Decimal, list[str]]:
        """Return the monthly share of tuning a model again that will end; 0 where it will not."""
        training = cost.training_usd if cost.training_usd is not None else planned
        ends = self.ends(settings)
        if ends is None:
            return ZERO, []
        if training is None:
            return ZERO, [f"it ends on {ends}"]
        months = self.bakeoff.serving.tune_again_months
        usd = spread_tuning_cost(Decimal(str(training)), months)
        return usd, [
            f"it ends on {ends}: tuning again every {months} months at ${training:,.2f} is "
            f"${usd:,.2f} a month"
        ]


def _price_one_sample(cost: Cost, times: float) -> Cost:
    """Return a cost whose answering is that of one answer per example, not of all samples."""
    if times <= 1 or cost.answering_usd is None:
        return cost
    once = cost.answering_usd / times
    return replace(cost, answering_usd=once, all_answers_usd=cost.answering_usd)


def find_price_day(bakeoff: BakeOff, run: RunDir) -> datetime.date:
    """Return the day whose prices count: `as_of`, else the day on which the run began."""
    if bakeoff.as_of is not None:
        return bakeoff.as_of
    first = next(read_lines(run.events), None)
    if first is None:
        return environment.today()
    return datetime.datetime.fromisoformat(first["at"]).date()


def find_end(settings: Any, prices: PriceBook) -> datetime.date | None:
    """Return the day on which a provider's model ends; None where that is not known."""
    provider, model = getattr(settings, "provider", None), getattr(settings, "model", None)
    if not model or find_hosting(settings) != "provider" or is_outside_price_book(settings):
        return None
    end = prices.find_model_end(provider or "openai", model, settings.id == "hosted")
    return end.ends if end else None


def find_hosting(settings: Any) -> Hosting | None:
    """Return who answers: an own model or a provider; None where that is not known."""
    if isinstance(settings, LocalConfig):
        return "own"
    if isinstance(settings, RecordedConfig):
        if settings.provider is not None or (settings.model or "").startswith("ft:"):
            return "provider"
        return "own" if settings.hardware is not None else None
    if isinstance(settings, PromptedConfig) and settings.base is not None:
        return "own"
    return "own" if is_free_local_server(settings) else "provider"


def _explain_other_hardware(settings: Any, record: ServingRecord | None) -> str | None:
    """Return a warning where time was measured on other hardware than is priced; else None."""
    hardware: Hardware | None = getattr(settings, "hardware", None)
    named = hardware.accelerator if hardware else None
    if record is None or named is None or environment.is_accelerator(named, record.accelerator):
        return None
    return (
        f"Mind: it was measured on {record.accelerator or record.machine} and is priced as "
        f"{named}, where it will be different."
    )


def _append_warning(basis: str | None, elsewhere: str | None) -> str | None:
    """Return a basis with the warning added."""
    return basis if basis is None or elsewhere is None else f"{basis}. {elsewhere.rstrip('.')}"


def _format_source(price: Price) -> str:
    """Return the source of a price, the day it was read, and whether that is too long ago."""
    read = f", read {price.retrieved}" if price.retrieved else ""
    return price.source + read + (", more than 90 days before" if price.stale else "")


def _format_token_prices(
    price: Price, tokens_in: float, tokens_out: float, batch: bool
) -> list[str]:
    """Return the prices of a typical request as phrases."""
    usd_in, usd_out = price.input_usd_per_million_tokens, price.output_usd_per_million_tokens
    batch_usd_in, batch_usd_out = (
        price.batch_input_usd_per_million_tokens,
        price.batch_output_usd_per_million_tokens,
    )
    batched = batch and (batch_usd_in is not None or batch_usd_out is not None)
    if batched:
        usd_in = usd_in if batch_usd_in is None else batch_usd_in
        usd_out = usd_out if batch_usd_out is None else batch_usd_out
    phrases = []
    if usd_in is not None and usd_out is not None:
        phrases.append(
            f"{tokens_in:,.0f} tokens in × ${usd_in:f} and {tokens_out:,.0f} out × ${usd_out:f} "
            f"per million{', prices of batches' if batched else ''}"
        )
    write = price.cache_write_usd_per_million_tokens
    if write is not None:
        phrases.append(f"cache writes (${write:f} per million) and reads are not counted")
    if price.hosting_usd_per_hour is not None:
        hour = price.hosting_usd_per_hour
        phrases.append(f"hosting ${hour:f}/h × {HOURS_PER_MONTH} h a month")
    return phrases


def _format_requests(requests: Decimal) -> str:
    """Return a number of requests in words."""
    millions = requests / 1_000_000
    if millions < 1:
        return f"{requests:,.0f}"
    return f"{millions:,.0f} million" if millions >= 100 else f"{millions:.3g} million"
