"""The learning curve: the metric after training on growing fractions of the examples.

Each point is scored like any training. It is tested against the point before, on the same test
examples (`pairs.compare_all`). The test does not cover the variance between training runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuneoff.records import ScoredRow
from tuneoff.results import CurvePoint
from tuneoff.scoring.aggregate import aggregate
from tuneoff.scoring.base import MetricKind
from tuneoff.scoring.pairs import compare_all

TrainingScores = tuple[float, int, Mapping[str, ScoredRow]]


def build_learning_curve(
    measured: Sequence[TrainingScores],
    metric: str,
    kind: MetricKind,
    clusters: Mapping[str, str] | None = None,
) -> tuple[CurvePoint, ...]:
    """Return the points of a curve, the smallest fraction first; none for a single point.

    Args:
        measured: (fraction, training examples, scored rows by example id) of each training; a
            training without scores is left out.
        clusters: example id → cluster, as in `compare_all`.
    """
    points: list[CurvePoint] = []
    before: dict[str, float] = {}
    for fraction, examples, rows in sorted(measured, key=lambda point: point[0]):
        score = aggregate(rows.values(), {metric: kind}, clusters=clusters)[metric]
        if score.value is None:
            continue
        values = {id: float(row.scores[metric]) for id, row in rows.items() if metric in row.scores}
        pairs = compare_all({"this": values, "before": before}, metric, clusters)
        p_value = pairs[0].p_value if pairs else None
        points.append(CurvePoint(fraction, examples, score.value, score.low, score.high, p_value))
        before = values
    return tuple(points) if len(points) > 1 else ()
