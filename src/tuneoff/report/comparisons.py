"""Comparisons of two contenders, in words and as rows of the report's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tuneoff.report import format as f
from tuneoff.results import Comparison, ContenderResult, Results, SeedSpread, WayOfTraining
from tuneoff.scoring.paired import MIN_UNITS
from tuneoff.scoring.power import MEASURED_DEVIATION, describe_floor

# The contender classes that tuneoff trains, or has trained.
TRAINED_CLASSES = ("local", "hosted")
MAX_NAMES = 4


def get_metric_value(contender: ContenderResult, metric: str) -> float | None:
    """Return a contender's score; None if it has none."""
    score = contender.scores.get(metric)
    return score.value if score else None


def find_comparison(pairs: Iterable[Comparison], a: str, b: str) -> Comparison | None:
    """Return the comparison of two contenders, in either order; None without one."""
    return next((p for p in pairs if (p.a, p.b) in ((a, b), (b, a))), None)


def describe_comparison(pair: Comparison, share: bool = True) -> str:
    """Return a comparison in words, the better contender first; no full stop.

    `share`: whether the metric lies in [0, 1], so that a difference reads in points.
    """
    if pair.outcome == "same":
        return (
            f"{pair.a} and {pair.b} are {describe_same(pair)}: {format_same_numbers(pair, share)}"
        )
    if pair.verdict == "tie":
        return (
            f"no difference can be shown between {pair.a} and {pair.b}: "
            f"{format_numbers(pair, share)}"
        )
    a, b = (pair.b, pair.a) if pair.verdict == "b better" else (pair.a, pair.b)
    if pair.within_margin:
        return (
            f"{a} is better than {b}, by less than {format_margin(pair)}: "
            f"{format_numbers(pair, share)}"
        )
    return f"{a} is better than {b} by {format_numbers(pair, share)}"


def describe_same(pair: Comparison) -> str:
    """Return `the same within 3 points`."""
    return f"the same within {format_margin(pair)}"


def format_margin(pair: Comparison) -> str:
    """Return the margin of a pair: `3 points`."""
    return f.points(pair.margin or 0)


def format_same_numbers(pair: Comparison, share: bool = True) -> str:
    """Return the difference with the 90% interval that shows equivalence within the margin."""
    bounds = f.interval(pair.low_90, pair.high_90, share)
    return f"{f.difference(pair.difference, share)}, 90% {bounds}"


def format_numbers(pair: Comparison, share: bool = True) -> str:
    """Return `12.5 points [8.1, 16.9], p = 0.0003`, from the better one's side (in a tie, from
    a's).

    Interval and p are the adjusted ones, which belong together. If the examples are too few for an
    interval, that is said instead of p.
    """
    sign = -1 if pair.verdict == "b better" else 1
    shown = f.difference(sign * pair.difference, share)
    if pair.low is None and pair.units is not None and pair.units < MIN_UNITS:
        return f"{shown}, but {describe_floor(pair.units, pair.cluster)}"
    bounds = f.interval(*select_bounds(pair, sign), share)
    return f"{f'{shown} {bounds}'.rstrip()}, {f.p_equals(pair.p_adjusted)}"


def select_bounds(pair: Comparison, sign: int = 1) -> tuple[float | None, float | None]:
    """Return the bounds that belong to the adjusted p, times a sign.

    Results from before there were adjusted bounds have those of the pair alone.
    """
    low, high = pair.low_adjusted, pair.high_adjusted
    if pair.units is None:
        low, high = pair.low, pair.high
    if low is None or high is None:
        return None, None
    return (low, high) if sign > 0 else (-high, -low)


def describe_training(pair: Comparison, share: bool = True) -> str:
    """Return whether the better one would be ahead again after new trainings; no full stop.

    Empty if that was not tested, or is not known.
    """
    way = pair.training
    if way is None:
        return ""
    trained = [n for n, seeds in ((pair.a, way.seeds_a), (pair.b, way.seeds_b)) if seeds]
    who = "both" if len(trained) > 1 else trained[0]
    shown = format_training_numbers(pair, way, share)
    if way.outcome == "cannot be told":
        return f"Which would be ahead if {who} were trained anew cannot be told: {shown}"
    ahead = pair.a if way.outcome == "a better" else pair.b
    again = "it" if who == ahead else who
    return f"{ahead} would be ahead again if {again} were trained anew: {shown}"


def format_training_numbers(pair: Comparison, way: WayOfTraining, share: bool = True) -> str:
    """Return `[2.0, 23.0], p = 0.02`, from the same side as the verdict."""
    low, high = way.low_adjusted, way.high_adjusted
    if pair.verdict == "b better":
        low, high = -high, -low
    return f"{f.interval(low, high, share)}, {f.p_equals(way.p_adjusted)}"


def list_training_notes(results: Results, share: bool = True) -> list[str]:
    """Return sentences on the variation between trainings, known and unknown."""
    spreads: dict[str, SeedSpread] = {}
    for pair in results.comparisons:
        if pair.training is not None:
            sides = ((pair.a, pair.training.seeds_a), (pair.b, pair.training.seeds_b))
            spreads |= {name: seeds for name, seeds in sides if seeds is not None}
    return [*describe_spreads(spreads, share), *_describe_once_trained(results, spreads, share)]


def describe_spreads(spreads: Mapping[str, SeedSpread], share: bool = True) -> list[str]:
    """Return a sentence on how far the trainings of contenders vary, and by whose seeds.

    Empty if that is known of no contender.
    """
    if not spreads:
        return []
    shown = "; ".join(_describe_spread(name, spread, share) for name, spread in spreads.items())
    return [
        "Trained anew: Student's t over examples and seeds, p adjusted by Holm. From seed to seed "
        f"a score moves (one standard deviation) by {shown}."
    ]


def _describe_spread(name: str, spread: SeedSpread, share: bool) -> str:
    """Return the variation of one contender in words."""
    freedom = f"{spread.freedom:g} degree{'s' * (spread.freedom != 1)} of freedom"
    others = (
        "" if spread.contenders == (name,) else f"by the seeds of {join_names(spread.contenders)}, "
    )
    return f"{f.difference(spread.deviation, share)} for {name} ({others}{freedom})"


def _describe_once_trained(
    results: Results, known: Mapping[str, SeedSpread], share: bool
) -> list[str]:
    """Return a sentence on the contenders that were trained once; empty without any."""
    compared = {name for pair in results.comparisons for name in (pair.a, pair.b)}
    once = [
        c
        for c in results.contenders
        if c.id in TRAINED_CLASSES
        and c.name in compared
        and c.name not in known
        and len(c.seeds) < 2
    ]
    if not once:
        return []
    return [describe_unknown([c.name for c in once], any(c.id == "local" for c in once), share)]


def describe_unknown(names: Sequence[str], seeds: bool, share: bool = True) -> str:
    """Return a sentence: these contenders were trained once.

    Args:
        seeds: whether `seeds` is a key of one of them.
        share: whether the metric lies in [0, 1], as it did where seeds were measured.
    """
    who = join_names(names) if len(names) <= MAX_NAMES else f"{len(names)} contenders"
    were, each = ("was", "its") if len(names) == 1 else ("were", "a")
    once = "once" if len(names) == 1 else "once each"
    tail = "; seeds: [0, 1, 2] would tell more" if seeds else ""
    about = f" by about {100 * MEASURED_DEVIATION:g} points (measured on ViGGO)" if share else ""
    return (
        f"{who} {were} trained {once}: another seed may move {each} score{about}, and the verdict "
        f"is about the models at hand{tail}."
    )


def join_names(names: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(x for x in (", ".join(names[:-1]), names[-1]) if x)
