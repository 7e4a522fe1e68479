"""The most that a run asks leave for before it begins, worked out as the run does it.

A run that was not begun, without a run directory and without a key: all answers are still to be
had, all jobs to be sent. USD at today's prices, whatever `as_of` says, for those are paid.
"""

from __future__ import annotations

from decimal import Decimal

from tuneoff.config import BakeOff
from tuneoff.contenders import Work, load_contender
from tuneoff.costs.pricebook import PriceBook
from tuneoff.spending import asked_models, judge_price, most_usd, paid


def most_of_run(bakeoff: BakeOff, work: Work, prices: PriceBook) -> Decimal:
    """The most, in USD, that providers can bill for all contenders together.

    Args:
        work: all examples; `directory` is that of a run which was not begun.
    """
    return sum(
        (
            most_usd(load_contender(settings.id), settings, work, prices)
            for settings in bakeoff.contenders
            if paid(settings)
        ),
        Decimal(),
    )


def about_judges(bakeoff: BakeOff, prices: PriceBook) -> list[str]:
    """What a judge costs depends on answers that nobody has yet."""
    found = []
    for settings in asked_models(bakeoff):
        price, unpriced = judge_price(settings, prices)
        if price is not None:
            found.append(
                f"what the judge {settings.model} will cost is in no figure here; each of its "
                "questions asks leave by itself."
            )
        found += [unpriced] if unpriced else []
    return found
