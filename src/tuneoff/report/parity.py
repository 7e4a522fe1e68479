"""A candidate compared with its reference, in words: one wording for files, runs and exits."""

from __future__ import annotations

from tuneoff.report import format as f
from tuneoff.report.comparisons import format_numbers, format_same_numbers, format_training_numbers
from tuneoff.scoring.parity import Parity

# The outcome after new trainings of those of the two that are trained.
NEW_TRAINING_WORDS = {
    "a better": "after new trainings it would be better again",
    "b better": "after new trainings it would be worse again",
    "cannot be told": "which of the two would be ahead after new trainings cannot be told",
}


def describe_parity(parity: Parity, reference: str | None = None) -> str:
    """Return what is known about a candidate, as a sentence; no full stop.

    Args:
        reference: what to call the reference, if not by its name.
    """
    name, other, figures = parity.name, reference or parity.reference, format_figures(parity)
    if parity.reference_has_none and parity.outcome != "better":
        sentence = (
            f"Whether {name} is as good as {other} cannot be told: none of {other}'s answers is "
            "right"
        )
    elif parity.outcome in ("better", "worse"):
        sentence = f"{name} is {parity.outcome} than {other}{figures}"
    elif parity.outcome == "same":
        sentence = f"{name} is the same as {other} within {_format_margin(parity)}{figures}"
    elif parity.is_not_worse:
        sentence = f"{name} is not worse than {other} by {_format_margin(parity)} or more{figures}"
    else:
        sentence = f"Whether {name} is as good as {other} cannot be told{figures}"
    return sentence + _describe_training(parity)


def describe_change(parity: Parity) -> str:
    """Return the change of a candidate that is compared with itself before; no full stop."""
    figures = format_figures(parity)
    if parity.reference_has_none and parity.outcome != "better":
        sentence = (
            "whether it is as good as before cannot be told: none of the answers before is right"
        )
    elif parity.outcome in ("better", "worse"):
        sentence = f"{parity.outcome}{figures}"
    elif parity.outcome == "same":
        sentence = f"the same as before within {_format_margin(parity)}{figures}"
    elif parity.is_not_worse:
        sentence = f"not worse than before by {_format_margin(parity)} or more{figures}"
    else:
        sentence = f"whether it is as good as before cannot be told{figures}"
    return sentence + _describe_training(parity)


def format_figures(parity: Parity) -> str:
    """Return the figures behind an outcome: ` by 3.2 points [1.1, 5.3], p = 0.002, on 1,083
    examples`."""
    pair, share, margin = parity.pair, parity.is_share, _format_margin(parity)
    figures = f": {format_numbers(pair, share)}"
    if parity.outcome in ("better", "worse"):
        within = pair.within_margin
        figures = (
            f", by less than {margin}{figures}" if within else f" by {format_numbers(pair, share)}"
        )
    elif parity.outcome == "same":
        figures = f": {format_same_numbers(pair, share)}"
    elif parity.is_not_worse:
        figures = (
            f" (one-sided {f.p_equals(parity.p_not_worse)}); whether it is better cannot be "
            f"told{figures}"
        )
    return (
        f"{figures}, on {f.count(parity.n)} "
        f"example{'s' * (parity.n != 1)}{_describe_needed(parity)}"
    )


def _describe_needed(parity: Parity) -> str:
    """Return how many examples would be enough to tell, or that there is no margin."""
    if not parity.is_share and parity.outcome == "cannot be told":
        return "; these scores are no shares of 1, so no margin in points holds for them"
    if parity.needed is None:
        return ""
    return (
        f"; about {f.large(parity.needed)} examples of this kind would show that an equal one is "
        f"not worse by {_format_margin(parity)} or more"
    )


def _describe_training(parity: Parity) -> str:
    """Return whether the outcome would recur after new trainings; empty if it is not known."""
    way = parity.pair.training
    if way is None:
        return ""
    shown = format_training_numbers(parity.pair, way, parity.is_share)
    return f"; {NEW_TRAINING_WORDS[way.outcome]}: {shown}"


def _format_margin(parity: Parity) -> str:
    """Return the margin in points."""
    return f.points(parity.pair.margin or 0)
