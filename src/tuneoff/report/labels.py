"""What people's labels say of a judge, in words and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneoff.report import format as f
from tuneoff.results import Comparison, ContenderResult, Corrected, Labels, Results
from tuneoff.scoring.corrected import LEAST_LABELS
from tuneoff.scoring.judge import Judge
from tuneoff.scoring.paired import LEAST_UNITS

JUDGE_WORDS = ("not worse", "undecided", "worse")
PEOPLE_WORDS = ("better", "equal", "worse")
EXPLAINED = (
    "Corrected: what people would say of all rows, estimated from their labels and the judge's "
    "scores of the other rows (PPI++), with 95% intervals, which are not adjusted for several "
    "pairs."
)
NEEDED = (
    "To find 5 points: how many labelled rows would show a true difference of 5 points in four "
    "cases of five."
)


def label_view(results: Results, contenders: Sequence[ContenderResult]) -> dict[str, Any] | None:
    """Return what the report shows of labels; None where there are none.

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
        "table": _table(labels),
        "scores": [_score_row(c, found) for c, found in corrected],
        "pairs": [_pair_row(pair) for pair in pairs],
        "needs": any(p.corrected.value is not None for p in pairs if p.corrected),
        "short": explain_too_few([found for _, found in corrected]),
        "explained": EXPLAINED,
        "needed": NEEDED,
        "contradictions": list_contradictions(results),
    }


def describe_labels(labels: Labels) -> list[str]:
    """Return sentences: how far judge and people agree, and what was not used."""
    by = f"{labels.people} people" if labels.people > 1 else "A person"
    counted = f"{_count(labels.answers, 'answer')} to {_count(labels.rows, 'test row')}"
    said = [f"{by} labelled {counted}, drawn at random."]
    if not labels.answers:
        said = ["No answer has a label of a person that can be used."]
    if labels.agreement is not None:
        score = labels.agreement
        kappa = (
            ""
            if labels.kappa is None
            else f"; Cohen's kappa {f.difference(labels.kappa, share=False)}"
        )
        said.append(
            f"The judge agrees with people in {f.score(score.value)} of its readings "
            f"{f.interval(score.low, score.high)} whether an answer is worse than the reference"
            f"{kappa}."
        )
    if labels.between_people is not None:
        score = labels.between_people
        said.append(
            f"People agree with each other in {f.score(score.value)} "
            f"{f.interval(score.low, score.high)} of the {_count(score.n, 'answer')} that several "
            "of them labelled; the mean of their labels counts."
        )
    if labels.skipped:
        verb = "was" if labels.skipped == 1 else "were"
        said.append(f"{_count(labels.skipped, 'answer')} {verb} skipped.")
    if labels.changed:
        verb = "is" if labels.changed == 1 else "are"
        said.append(
            f"{_count(labels.changed, 'label')} {verb} not used: answer, reference or rubric have "
            "changed since, or the answer has no score of the judge now."
        )
    return said


def explain_too_few(found: Sequence[Corrected]) -> str:
    """Say why scores are not corrected; empty where one is."""
    if not found or any(each.value is not None for each in found):
        return ""
    most = max(found, key=lambda each: each.n)
    if most.n < LEAST_LABELS:
        return (
            f"No corrected scores: {_count(most.n, 'labelled row')} cannot show enough, "
            f"{LEAST_LABELS} are the least; `tuneoff label` adds some."
        )
    clusters = _count(most.clusters or 0, "cluster")
    return (
        f"No corrected scores: the labelled rows are of {clusters}, and {LEAST_UNITS} are the "
        "least; `tuneoff label` with more --rows may reach others."
    )


def list_contradictions(results: Results) -> list[str]:
    """Return a sentence for each pair of which people's labels say something else than the
    judge."""
    told = [_contradict(pair) for pair in results.comparisons if pair.corrected is not None]
    return [sentence for sentence in told if sentence]


def _contradict(pair: Comparison) -> str:
    found = pair.corrected
    if found is None or found.value is None or found.low is None or found.high is None:
        return ""
    sign = -1 if found.value < 0 else 1
    ahead, behind = (pair.a, pair.b) if sign > 0 else (pair.b, pair.a)
    low, high = sorted((sign * found.low, sign * found.high))
    numbers = f"{f.difference(sign * found.value)} {f.interval(low, high)}"
    is_shown = found.low > 0 or found.high < 0
    by_judge = {"a better": pair.a, "b better": pair.b}.get(pair.verdict)
    if is_shown and by_judge != ahead:
        said = f"finds {by_judge} better" if by_judge else "shows no difference"
        return (
            f"People's labels contradict the judge: by them {ahead} is better than {behind} by "
            f"{numbers}, where the judge {said}. Verdict and choice go by the judge."
        )
    if not found.low <= pair.difference <= found.high:
        return (
            f"People's labels put the difference between {ahead} and {behind} at {numbers}, the "
            f"judge at {f.difference(sign * pair.difference)}. Verdict and choice go by the judge."
        )
    return ""


def _table(labels: Labels) -> list[tuple[str, list[str]]]:
    """Return what the judge said × what people said, as counts of labels."""
    return [
        (word, [f.count(labels.table[word].get(said, 0)) for said in PEOPLE_WORDS])
        for word in JUDGE_WORDS
        if word in labels.table
    ]


def _score_row(contender: ContenderResult, found: Corrected) -> tuple[str, list[str]]:
    score = contender.scores.get(Judge.PRIMARY)
    by_judge = f"{f.score(score.value)} {f.interval(score.low, score.high)}" if score else f.MISSING
    by_people = f"{f.score(found.value)} {f.interval(found.low, found.high)}".rstrip()
    return contender.name, [by_judge, by_people, _of(found)]


def _pair_row(pair: Comparison) -> tuple[str, list[str]]:
    found = pair.corrected
    if found is None or found.value is None:
        cells = [f.difference(pair.difference), f.MISSING, f.MISSING, f.MISSING]
    else:
        shown = f"{f.difference(found.value)} {f.interval(found.low, found.high)}"
        needed = f"more than all {f.count(found.of)}"
        if found.rows_needed is not None:
            needed = f.count(found.rows_needed)
        cells = [f.difference(pair.difference), shown, _of(found), needed]
    return f"{pair.a} − {pair.b}", cells


def _of(found: Corrected) -> str:
    return f"{f.count(found.n)} of {f.count(found.of)}"


def _count(count: int, what: str) -> str:
    return f"{f.count(count)} {what}{'' if count == 1 else 's'}"
