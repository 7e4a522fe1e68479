"""Finds where a candidate and its reference differ: counts, and an example of each direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneoff.bakeoff.parity.sides import AnswerSet
from tuneoff.records import Example
from tuneoff.scoring.llm_judge import render_inputs
from tuneoff.scoring.paired import Pair


def count_flips(pair: Pair) -> dict[str, int]:
    """Return how often only one side, both or neither was right.

    For yes/no scores the keys are `both`, `only_reference`, `only_candidate` and `neither`. For
    others they say how often the candidate's score is `higher`, `lower` or `equal`.
    """
    scores = [(pair.scores_a[id], pair.scores_b[id]) for id in pair.list_common_ids()]
    if all(value in (0, 1) for both in scores for value in both):
        return {
            "both": scores.count((1, 1)),
            "only_reference": scores.count((0, 1)),
            "only_candidate": scores.count((1, 0)),
            "neither": scores.count((0, 0)),
        }
    return {
        "higher": sum(a > b for a, b in scores),
        "lower": sum(a < b for a, b in scores),
        "equal": sum(a == b for a, b in scores),
    }


def find_flip_examples(
    pair: Pair, side: AnswerSet, reference: AnswerSet, examples: Mapping[str, Example]
) -> dict[str, dict[str, Any]]:
    """Return an example where the candidate is `better` and one where it is `worse`.

    They are the first ones with the largest difference.
    """
    largest: dict[str, tuple[float, str]] = {}
    for id in pair.list_common_ids():
        difference = pair.scores_a[id] - pair.scores_b[id]
        kind = "better" if difference > 0 else "worse"
        if abs(difference) > largest.get(kind, (0.0, ""))[0]:
            largest[kind] = (abs(difference), id)
    return {
        kind: {
            "id": id,
            "inputs": render_inputs(examples[id].inputs),
            "reference": examples[id].completion,
            "reference_answer": reference.answers.get(id, ""),
            "candidate_answer": side.answers.get(id, ""),
            "reference_score": pair.scores_b[id],
            "candidate_score": pair.scores_a[id],
        }
        for kind, (_, id) in sorted(largest.items())
    }
