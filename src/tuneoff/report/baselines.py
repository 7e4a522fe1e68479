"""Baselines in words: the scores that are reached without a model."""

from __future__ import annotations

from collections.abc import Sequence

from tuneoff.report import format as f
from tuneoff.results import Baseline
from tuneoff.scoring.baselines import MOST_FREQUENT, NEAREST

MAX_ANSWER_LETTERS = 40


def describe_baseline(name: str | None, baselines: Sequence[Baseline]) -> str:
    """Return what a baseline does, as a noun phrase."""
    if name == NEAREST:
        return "the answer of the nearest training example"
    answer = next((each.answer for each in baselines if each.name == name), None)
    if name != MOST_FREQUENT or answer is None:
        return str(name)
    return f"always answering “{f.shorten(' '.join(f.clean(answer).split()), MAX_ANSWER_LETTERS)}”"


def render_baselines(baselines: Sequence[Baseline], metric: str, share: bool) -> str:
    """Return one sentence about the baselines' scores; empty without baselines."""
    scored = []
    for each in baselines:
        score = each.scores.get(metric)
        if score is None:
            continue
        of = "" if each.share is None else f" ({f.percent(each.share)} of the training answers)"
        bounds = f.interval(score.low, score.high, share)
        value = f"{f.score(score.value, share)} {bounds}".rstrip()
        scored.append(f"{describe_baseline(each.name, baselines)}{of} gets {value}")
    return f"Without a model, {' and '.join(scored)}." if scored else ""
