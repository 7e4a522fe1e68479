"""The results of people's labels of a judge's answers, in words and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.results import Comparison, ContenderResult, CorrectedScore, LabelStats, Results
from tuneoff.scoring.corrected import MIN_LABELS
from tuneoff.scoring.llm_judge import Judge
from tuneoff.scoring.paired import MIN_UNITS

JUDGE_WORDS = ("not worse", "undecided", "worse")
PEOPLE_WORDS = ("better", "equal", "worse")
CORRECTED_NOTE = (
    "Corrected: what people would say of all rows, estimated from their labels and the judge's "
    "scores of the other rows (PPI++), with 95% intervals, which are not adjusted for several "
    "pairs."
)
ROWS_NEEDED_NOTE = (
    "To find 5 points: how many labelled rows would show a true difference of 5 points in four "
    "cases of five."
)


def build_label_view(
    results: Results, contenders: Sequence[ContenderResult]
) -> dict[str, Any] | None:
    """Return what the report shows of labels; None without labels.

    Args:
        contenders: in the order in which they are shown.
    """
    labels = results.labels
    if labels is None:
        return None
    corrected = [(c, c.corrected[Judge.PRIMARY]) for c in contenders if c.corrected]
    pairs = [pair for pair in results.comparisons if pair.corrected is not None]
    return {
        "text": " ".join(describe_labels(labels)),
        "table": _build_table(labels),
        "scores": [_build_score_row(c, found) for c, found in corrected],
        "pairs": [_build_pair_row(pair) for pair in pairs],
        "needs": any(p.corrected.value is not None for p in pairs if p.corrected),
        "short": explain_too_few([found for _, found in corrected]),
        "explained": CORRECTED_NOTE,
        "needed": ROWS_NEEDED_NOTE,
        "contradictions": list_contradictions(results),
    }


def describe_labels(labels: LabelStats) -> list[str]:
    """Return sentences: how far judge and people agree, and which labels were not used."""
    by = f"{labels.people} people" if labels.people > 1 else "A person"
    counted = f"{_count(labels.answers, 'answer')} to {_count(labels.rows, 'test row')}"
    sentences = [f"{by} labelled {counted}, drawn at random."]
    if not labels.answers:
        sentences = ["No answer has a label of a person that can be used."]
    if labels.agreement is not None:
        score = labels.agreement
        kappa = (
            ""
            if labels.kappa is None
            else f"; Cohen's kappa {f.difference(labels.kappa, share=False)}"
        )
        sentences.append(
            f"The judge agrees with people in {f.score(score.value)} of its readings "
            f"{f.interval(score.low, score.high)} whether an answer is worse than the reference"
            f"{kappa}."
        )
    if labels.between_people is not None:
        score = labels.between_people
        sentences.append(
            f"People agree with each other in {f.score(score.value)} "
            f"{f.interval(score.low, score.high)} of the {_count(score.n, 'answer')} that several "
            "of them labelled; the mean of their labels counts."
        )
    if labels.skipped:
        verb = "was" if labels.skipped == 1 else "were"
        sentences.append(f"{_count(labels.skipped, 'answer')} {verb} skipped.")
    if labels.changed:
        verb = "is" if labels.changed == 1 else "are"
        sentences.append(
            f"{_count(labels.changed, 'label')} {verb} not used: answer, reference or rubric have "
            "changed since, or the answer has no score of the judge now."
        )
    return sentences


def explain_too_few(corrected: Sequence[CorrectedScore]) -> str:
    """Return why no score is corrected; empty if one is."""
    if not corrected or any(each.value is not None for each in corrected):
        return ""
    most = max(corrected, key=lambda each: each.n)
    if most.n < MIN_LABELS:
        return (
            f"No corrected scores: {_count(most.n, 'labelled row')} cannot show enough, "
            f"{MIN_LABELS} are the least; `tuneoff label` adds some."
        )
    clusters = _count(most.clusters or 0, "cluster")
    return (
        f"No corrected scores: the labelled rows are of {clusters}, and {MIN_UNITS} are the "
        "least; `tuneoff label` with more --rows may reach others."
    )


def list_contradictions(results: Results) -> list[str]:
    """Return a sentence for each pair where people's labels contradict the judge."""
    sentences = [
        _explain_contradiction(pair) for pair in results.comparisons if pair.corrected is not None
    ]
    return [sentence for sentence in sentences if sentence]


def _explain_contradiction(pair: Comparison) -> str:
    """Return the sentence on one pair; empty without a contradiction."""
    corrected = pair.corrected
    if (
        corrected is None
        or corrected.value is None
        or corrected.low is None
        or corrected.high is None
    ):
        return ""
    sign = -1 if corrected.value < 0 else 1
    ahead, behind = (pair.a, pair.b) if sign > 0 else (pair.b, pair.a)
    low, high = sorted((sign * corrected.low, sign * corrected.high))
    numbers = f"{f.difference(sign * corrected.value)} {f.interval(low, high)}"
    is_shown = corrected.low > 0 or corrected.high < 0
    by_judge = {"a better": pair.a, "b better": pair.b}.get(pair.verdict)
    if is_shown and by_judge != ahead:
        verdict = f"finds {by_judge} better" if by_judge else "shows no difference"
        return (
            f"People's labels contradict the judge: by them {ahead} is better than {behind} by "
            f"{numbers}, where the judge {verdict}. Verdict and choice go by the judge."
        )
    if not corrected.low <= pair.difference <= corrected.high:
        return (
            f"People's labels put the difference between {ahead} and {behind} at {numbers}, the "
            f"judge at {f.difference(sign * pair.difference)}. Verdict and choice go by the judge."
        )
    return ""


def _build_table(labels: LabelStats) -> list[tuple[str, list[str]]]:
    """Return the counts of labels by the judge's reading × people's."""
    return [
        (word, [f.count(labels.table[word].get(said, 0)) for said in PEOPLE_WORDS])
        for word in JUDGE_WORDS
        if word in labels.table
    ]


def _build_score_row(
    contender: ContenderResult, corrected: CorrectedScore
) -> tuple[str, list[str]]:
    """Return a contender's row of corrected scores."""
    score = contender.scores.get(Judge.PRIMARY)
    by_judge = f"{f.score(score.value)} {f.interval(score.low, score.high)}" if score else f.MISSING
    by_people = f"{f.score(corrected.value)} {f.interval(corrected.low, corrected.high)}".rstrip()
    return contender.name, [by_judge, by_people, _format_labelled(corrected)]


def _build_pair_row(pair: Comparison) -> tuple[str, list[str]]:
    """Return a pair's row of corrected differences."""
    corrected = pair.corrected
    if corrected is None or corrected.value is None:
        cells = [f.difference(pair.difference), f.MISSING, f.MISSING, f.MISSING]
    else:
        shown = f"{f.difference(corrected.value)} {f.interval(corrected.low, corrected.high)}"
        needed = f"more than all {f.count(corrected.of)}"
        if corrected.rows_needed is not None:
            needed = f.count(corrected.rows_needed)
        cells = [f.difference(pair.difference), shown, _format_labelled(corrected), needed]
    return f"{pair.a} − {pair.b}", cells


def _format_labelled(corrected: CorrectedScore) -> str:
    """Return how many rows have labels, of how many."""
    return f"{f.count(corrected.n)} of {f.count(corrected.of)}"


def _count(count: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{f.count(count)} {what}{'' if count == 1 else 's'}"
