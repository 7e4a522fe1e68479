"""The first sentence of a report: the recommended contender, with reservations.

`find_caveats` finds values; `render_headline` makes the sentence from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuneoff.report import format as f
from tuneoff.report.baselines import describe_baseline
from tuneoff.report.comparisons import find_comparison, get_metric_value
from tuneoff.results import Baseline, Caveat, Comparison, ContenderResult, Recommendation
from tuneoff.scoring.base import MetricKind
from tuneoff.scoring.paired import MIN_UNITS

POOR_SCORE = 0.5
NUMBER_WORDS = (
    "none",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)


def find_caveats(
    choice: ContenderResult,
    scores: Sequence[float],
    metric: str,
    share: bool,
    kind: MetricKind = "yes/no",
    baselines: Sequence[Baseline] = (),
    leaving: str | None = None,
    pair: Comparison | None = None,
    is_not_worse: bool | None = None,
) -> tuple[Caveat, ...]:
    """Return the reservations about the choice, the most important first.

    Args:
        scores: those of all contenders that have one.
        share: whether the metric lies between 0 and 1.
        kind: whether the metric says right or wrong of each example.
        leaving: the model that is being left.
        pair: the choice's comparison with it, where there is one.
        is_not_worse: whether parity with it is shown; None: as the pair's own interval says.
    """
    caveats = (
        []
        if leaving is None
        else list(_find_migration_caveats(choice.name, leaving, pair, is_not_worse))
    )
    value = get_metric_value(choice, metric)
    if share and value is not None and value < POOR_SCORE:
        # A contender that is as good and cheaper need not have the best score.
        rank = len(scores) if value >= max(scores) else None
        caveats.append(Caveat("poor" if kind == "yes/no" else "low", value=value, contenders=rank))
    caveats += [
        Caveat("baseline", value=score.value, other=baseline.name)
        for baseline in baselines
        if (score := baseline.scores.get(metric)) and not _is_beaten(baseline, choice.name)
    ]
    if choice.ends is not None:
        caveats.append(Caveat("ends", ends=choice.ends))
    return tuple(caveats)


def _find_migration_caveats(
    choice: str, leaving: str, pair: Comparison | None, is_not_worse: bool | None
) -> Iterator[Caveat]:
    """Yield the reservations from the comparison with the model that is being left."""
    if pair is None:  # it failed, or only its figures are known
        yield Caveat("unproven", other=leaving)
        return
    lead = pair.difference if pair.a == choice else -pair.difference
    if pair.verdict == "tie":
        shown = _is_not_worse(choice, pair) if is_not_worse is None else is_not_worse
        if not shown:
            yield Caveat("unproven", value=pair.margin, other=leaving)
    elif lead < 0:
        yield Caveat("behind", value=-lead, other=leaving)


def _is_not_worse(choice: str, pair: Comparison) -> bool:
    """Return whether a tie shows that the choice is not worse by the margin (one-sided, 5%), as in
    parity."""
    if pair.low_90 is None or pair.high_90 is None or pair.margin is None:
        return False
    return (pair.low_90 if pair.a == choice else -pair.high_90) > -pair.margin


def _is_beaten(baseline: Baseline, choice: str) -> bool:
    """Return whether the choice is better than a baseline.

    If the test set is too small for a test, its score decides.
    """
    pair = find_comparison(baseline.comparisons, choice, baseline.name)
    if pair is None:
        return True  # no measurement contradicts it
    if pair.units is not None and pair.units < MIN_UNITS:
        return pair.difference > 0
    return pair.verdict == "a better"


def render_headline(
    recommendation: Recommendation,
    metric: str,
    share: bool = True,
    baselines: Sequence[Baseline] = (),
) -> str:
    """Return the headline: `Use lora, the best of three, but wrong in 6 of 10.`

    Args:
        share: whether the metric lies between 0 and 1.
    """
    if recommendation.choice is None:
        return "No contender can be recommended."
    bars = [each for each in recommendation.caveats if each.kind == "baseline"]
    clauses = [
        _render_bars(bars, share, baselines)
        if each in bars
        else _render_caveat(each, metric, share)
        for each in recommendation.caveats
        if each not in bars[1:]
    ]
    if not clauses:
        return f"Use {recommendation.choice}."
    return f"Use {recommendation.choice}: {'; '.join(clauses)}."


def _render_bars(bars: Sequence[Caveat], share: bool, baselines: Sequence[Baseline]) -> str:
    """Return the clause on the baselines that the choice is not shown to beat."""
    named = (f"{describe_baseline(b.other, baselines)} ({f.score(b.value, share)})" for b in bars)
    return f"not shown to be better than {' or '.join(named)}"


def _render_caveat(caveat: Caveat, metric: str, share: bool) -> str:
    """Return the clause of any other reservation."""
    value = caveat.value or 0.0
    if caveat.kind in ("poor", "low"):
        low = f"at only {f.score(value)} {f.words(metric)}"
        return _render_rank(caveat.contenders) + (
            _render_failure(value) if caveat.kind == "poor" else low
        )
    if caveat.kind == "behind":
        return f"worse than {caveat.other}, which is being left, by {f.difference(value, share)}"
    if caveat.kind == "unproven":
        lost = f"more than {f.points(value)}" if value else "something"
        return f"it may lose {lost} against {caveat.other}, which is being left"
    return f"it ends on {caveat.ends}"


def _render_rank(contenders: int | None) -> str:
    """Return the clause on how many contenders the choice is the best of."""
    if contenders is None:
        return ""
    return "the only one compared, " if contenders == 1 else f"the best of {_spell(contenders)}, "


def _render_failure(value: float) -> str:
    """Return the share of wrong answers in words."""
    wrong = round(10 * (1 - value))
    return f"wrong in {f'{wrong} of 10' if wrong < 10 else f'{100 * (1 - value):.1f}%'}"


def _spell(count: int) -> str:
    """Return a number as a word, up to ten."""
    return NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
