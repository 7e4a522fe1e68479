"""A candidate beside its reference, in words: one wording for files, runs and exits."""

from __future__ import annotations

from tuneoff.report import format as f
from tuneoff.report.pairs import numbers, same_numbers, show_training_numbers
from tuneoff.scoring.parity import Parity

# After new trainings, of whichever of the two is trained.
ANEW = {
    "a better": "after new trainings it would be better again",
    "b better": "after new trainings it would be worse again",
    "cannot be told": "which of the two would be ahead after new trainings cannot be told",
}


def describe_parity(parity: Parity, reference: str | None = None) -> str:
    """Return what is known of a candidate as a sentence; no full stop.

    Args:
        reference: what to call the reference, if not by its name.
    """
    name, other, said = parity.name, reference or parity.reference, say_figures(parity)
    if parity.reference_has_none and parity.outcome != "better":
        found = (
            f"Whether {name} is as good as {other} cannot be told: none of {other}'s answers is "
            "right"
        )
    elif parity.outcome in ("better", "worse"):
        found = f"{name} is {parity.outcome} than {other}{said}"
    elif parity.outcome == "same":
        found = f"{name} is the same as {other} within {_margin(parity)}{said}"
    elif parity.is_not_worse:
        found = f"{name} is not worse than {other} by {_margin(parity)} or more{said}"
    else:
        found = f"Whether {name} is as good as {other} cannot be told{said}"
    return found + _add_training(parity)


def describe_change(parity: Parity) -> str:
    """Return what became of a candidate that is held against itself before; no full stop."""
    said = say_figures(parity)
    if parity.reference_has_none and parity.outcome != "better":
        found = (
            "whether it is as good as before cannot be told: none of the answers before is right"
        )
    elif parity.outcome in ("better", "worse"):
        found = f"{parity.outcome}{said}"
    elif parity.outcome == "same":
        found = f"the same as before within {_margin(parity)}{said}"
    elif parity.is_not_worse:
        found = f"not worse than before by {_margin(parity)} or more{said}"
    else:
        found = f"whether it is as good as before cannot be told{said}"
    return found + _add_training(parity)


def say_figures(parity: Parity) -> str:
    """Return the figures that follow an outcome, and what they rest on: ` by 3.2 points [1.1, 5.3],
    p = 0.002, on 1,083 examples`."""
    pair, share, margin = parity.pair, parity.is_share, _margin(parity)
    said = f": {numbers(pair, share)}"
    if parity.outcome in ("better", "worse"):
        within = pair.within_margin
        said = f", by less than {margin}{said}" if within else f" by {numbers(pair, share)}"
    elif parity.outcome == "same":
        said = f": {same_numbers(pair, share)}"
    elif parity.is_not_worse:
        said = (
            f" (one-sided {f.p_equals(parity.p_not_worse)}); whether it is better cannot be "
            f"told{said}"
        )
    return f"{said}, on {f.count(parity.n)} example{'s' * (parity.n != 1)}{_add_needed(parity)}"


def _add_needed(parity: Parity) -> str:
    """Return how many examples would tell, and where there is no margin, that there is none."""
    if not parity.is_share and parity.outcome == "cannot be told":
        return "; these scores are no shares of 1, so no margin in points holds for them"
    if parity.needed is None:
        return ""
    return (
        f"; about {f.large(parity.needed)} examples of this kind would show that an equal one is "
        f"not worse by {_margin(parity)} or more"
    )


def _add_training(parity: Parity) -> str:
    """Return whether it would be so again after new trainings; empty where nobody knows."""
    way = parity.pair.training
    if way is None:
        return ""
    shown = show_training_numbers(parity.pair, way, parity.is_share)
    return f"; {ANEW[way.outcome]}: {shown}"


def _margin(parity: Parity) -> str:
    return f.points(parity.pair.margin or 0)
