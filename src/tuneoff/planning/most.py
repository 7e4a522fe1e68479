"""The maximum cost of a run, computed as the run reserves it before it begins.

It is the maximum for a run that has not begun: all answers are missing, and no job was sent. It
needs neither a run directory nor a key. USD at today's prices, whatever `as_of` says, because those
are paid.
"""

from __future__ import annotations

from decimal import Decimal

from tuneoff.bakeoff.budget import compute_max_usd, list_judging_models
from tuneoff.config.schema import BakeOff
from tuneoff.contenders.base import ContenderContext, load_contender
from tuneoff.costs.contender_prices import find_judge_price, is_hosted
from tuneoff.costs.price_book import PriceBook


def compute_max_run_usd(bakeoff: BakeOff, work: ContenderContext, prices: PriceBook) -> Decimal:
    """Return the maximum, in USD, that providers can bill for all contenders together.

    Args:
        work: all examples; `directory` is that of a run which was not begun.
    """
    return sum(
        (
            compute_max_usd(load_contender(settings.id), settings, work, prices)
            for settings in bakeoff.contenders
            if is_hosted(settings)
        ),
        Decimal(),
    )


def warn_about_judges(bakeoff: BakeOff, prices: PriceBook) -> list[str]:
    """Return warnings about judges: their cost depends on answers that do not exist yet."""
    warnings = []
    for settings in list_judging_models(bakeoff):
        price, unpriced = find_judge_price(settings, prices)
        if price is not None:
            warnings.append(
                f"what the judge {settings.model} will cost is in no figure here; each of its "
                "questions asks leave by itself."
            )
        warnings += [unpriced] if unpriced else []
    return warnings
