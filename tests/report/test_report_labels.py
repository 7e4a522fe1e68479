"""Where people's labels say something else than the judge, the report says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_results import contender, pair

from tuneoff.report.labels import describe_labels, explain_too_few, list_contradictions
from tuneoff.results import CorrectedScore, LabelStats, Results


@pytest.mark.parametrize(
    ("verdict", "by_judge", "corrected", "words"),
    [
        ("a better", 0.1, (0.12, 0.02, 0.22), None),
        ("a better", 0.1, (0.02, -0.09, 0.13), None),
        ("a better", 0.1, (-0.1, -0.18, -0.02),
         "by them y is better than x by 10.0 points [2.0, 18.0], where the judge finds x better."),
        ("tie", 0.01, (0.1, 0.02, 0.18),
         "by them x is better than y by 10.0 points [2.0, 18.0], where the judge shows no"),
        ("a better", 0.3, (0.1, 0.02, 0.18),
         "between x and y at 10.0 points [2.0, 18.0], the judge at 30.0 points."),
        ("a better", 0.3, (None, None, None), None),
    ],
)  # fmt: skip
def test_a_contradiction_is_a_sentence(
    verdict: str,
    by_judge: float,
    corrected: tuple[float | None, float | None, float | None],
    words: str | None,
) -> None:
    made = replace(pair("x", "y", verdict, by_judge), corrected=CorrectedScore(*corrected, 40, 400))
    results = Results(
        1, "r", "chat", "s", "judge", {}, {}, "2026-01-01", "", {}, "", {}, {}, "m",
        (contender("x"), contender("y")), (made,),
    )  # fmt: skip
    found = list_contradictions(results)
    assert [words in sentence for sentence in found if words] == [True] * (words is not None)
    assert bool(found) == (words is not None)


def test_counts_of_one_and_none_read_well() -> None:
    assert describe_labels(LabelStats(rows=2, answers=0, people=0, skipped=1, changed=1)) == [
        "No answer has a label of a person that can be used.",
        "1 answer was skipped.",
        "1 label is not used: answer, reference or rubric have changed since, or the answer has no "
        "score of the judge now.",
    ]
    few = explain_too_few([CorrectedScore(None, None, None, 30, 40, clusters=1)])
    assert "the labelled rows are of 1 cluster, and 6 are the least" in few
