"""What `results.json` holds, schema 1, field by field.

Plain frozen dataclasses as those of `records.py`. A value that was not measured is None, never 0.
Units are in the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuneoff.records import LossRow, TrainingRecord

Place = Literal["own", "provider"]
# The key of `Results.rules` that says how intervals and tests were made; all others say how answers
# were scored.
TESTS_RULE = "tests"
CaveatKind = Literal["poor", "low", "baseline", "ends", "behind", "unproven"]
PairOutcome = Literal["a better", "b better", "same", "cannot be told"]
WayOutcome = Literal["a better", "b better", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric over a test set with 95% bounds (`scoring/intervals.py`), null where there are none.

    `errors` counts the examples without an answer; they are part of `n` and wrong.

    Of a contender with several training seeds, `by_seed` holds each seed's value in the
    file's order, and `value` is their mean. The bounds then cover the choice of test examples
    and the training. (Before `rules.tests` 2 they covered the examples alone, and knew no
    clusters.)
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    errors: int = 0
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Corrected:
    """A judge's score, or a difference of two, corrected by people's labels, with 95% bounds
    (`scoring/corrected.py`); without figures where the labels are too few.

    `n` rows have labels, of `of` that were judged; `clusters` of them, where rows have any.
    `weight` is how far the judge is trusted on the other rows (0: people alone). `rows_needed`
    labelled rows would show a difference of 5 points (power 80%); None where not even all do, and
    of scores.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    of: int
    weight: float | None = None
    clusters: int | None = None
    rows_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Money of one contender, in USD.

    `training_usd_planned` is what `tuneoff plan` said of one training when the run began. The
    bases say how the figures come about, or why there are none. `fixed_usd_per_month` is due
    whatever is asked: the machines that are reserved, or a provider's hosting fee and its share
    of tuning again. `answering_usd` is for answering the test set once; where each example was
    answered several times, `all_answers_usd` is what all that cost (else None). `unit_prices` are
    those of the day that the figures were made with, by their names in a file's `price:`, or
    `usd_per_hour`.
    """

    training_usd: float | None = None
    training_usd_planned: float | None = None
    training_basis: str | None = None
    answering_usd: float | None = None
    serving_usd_per_1k_requests: float | None = None
    fixed_usd_per_month: float | None = None
    usd_per_correct_answer: float | None = None
    serving_basis: str | None = None
    price_sources: tuple[str, ...] = ()
    all_answers_usd: float | None = None
    unit_prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Serving:
    """How fast a contender answers a request.

    `seconds_p50` and `seconds_p95` are of so many `requests`, of which no more than `concurrency`
    were under way at once: one at a time where that was measured, else, of a provider's model, as
    the test set was answered (None: a result from before this was kept). The `loaded_…` figures
    are a provider's under the run's own load. Its throughput, `requests_per_second`, nobody here
    knows. `batch` says that a provider answers in batches, which have no such times. Token counts
    are means of the test set. `backend` is what an own model answered with, and `agreement` how
    many of its answers transformers gives too (`ServingRecord`).
    """

    seconds_p50: float | None = None
    seconds_p95: float | None = None
    requests_per_second: float | None = None
    tokens_in_mean: float | None = None
    tokens_out_mean: float | None = None
    backend: str | None = None
    agreement: float | None = None
    compared: int | None = None
    requests: int | None = None
    concurrency: int | None = None
    loaded_seconds_p50: float | None = None
    loaded_seconds_p95: float | None = None
    loaded_requests: int | None = None
    loaded_concurrency: int | None = None
    batch: bool = False


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Primary metric after training on a fraction of the training examples, with 95% bounds.

    `p_value` is of the paired test against the point before; None for the first.
    """

    fraction: float
    examples: int
    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class AllTrainings:
    """What several trainings of one contender took together: every seed, and every part of
    the learning curve. `usd` is for training and answering; None without a price."""

    trainings: int
    training_seconds: float | None
    answering_seconds: float | None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class ContenderResult:
    """Everything known about one contender after a run.

    Of a contender with several `seeds`, scores, breakdowns and comparisons are of the mean
    over them, `serving` of all their answers; `training` is the first seed's, but for its
    `seconds`, the mean of one training; `cost` is that of one training and of answering the
    test set once, so that contenders with and without seeds can be compared. Loss, learning
    curve and classes of error are the first seed's. `all_trainings` says what all took;
    it is None where there was one.

    Of a contender that answered each example several times, `samples` says how often; scores,
    breakdowns and comparisons are of an example's mean over them, `errors` are the examples without
    one of their answers, and `samples_disagree` is the share of examples whose answers differ in
    their score by the primary metric. Classes of error are the first answers', times theirs alone.

    `rules` are the versions of the scoring rules that its scores were made by; empty where they
    were scored before rules were counted, when each was at version 1.
    `corrected` are a judge's scores as people's labels correct them.
    `place` says who answers: an `own` model, or a `provider`; None where that is not known.
    `data` is what reported figures are of, where that is not the run's own test set. The hashes
    and notes about its prompts are those of `PromptRecord`.
    """

    name: str
    id: str
    model: str
    prompt_sha256: str | None = None
    rendered_sha256: str | None = None
    rendering_notes: tuple[str, ...] = ()
    place: Place | None = None
    data: str | None = None
    ends: str | None = None
    error: str | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    corrected: Mapping[str, Corrected] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)
    breakdowns: Mapping[str, Mapping[str, Mapping[str, Score]]] = field(default_factory=dict)
    error_classes: Mapping[str, int] = field(default_factory=dict)
    training: TrainingRecord | None = None
    samples: int = 1
    samples_disagree: float | None = None
    seeds: tuple[int, ...] = ()
    all_trainings: AllTrainings | None = None
    learning_curve: tuple[CurvePoint, ...] = ()
    loss: tuple[LossRow, ...] = ()
    cost: Cost = field(default_factory=Cost)
    serving: Serving = field(default_factory=Serving)


@dataclass(frozen=True, slots=True)
class FlipCounts:
    """How many examples only a, only b, both and none of a pair have right."""

    only_a: int
    only_b: int
    both: int
    none: int

    @property
    def n(self) -> int:
        """Return how many these are together."""
        return self.only_a + self.only_b + self.both + self.none


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """How far apart the trainings of a contender lie: the standard deviation of its score between
    seeds, and the degrees of freedom of that. It is of these `contenders`: of itself, or, where it
    was trained once, of those of the same base and kind that have several seeds."""

    deviation: float
    freedom: float
    contenders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WayOfTraining:
    """Whether a pair's difference would be there again if its trained contenders were trained anew.

    Bounds and p-values are those of Student's t over examples (or clusters) and seeds, with so many
    degrees of `freedom`; adjusted or not as in `Comparison`, and no p-value is smaller than the one
    there, and no bounds are narrower. `seeds_a` is null where nothing of a is trained.
    """

    outcome: WayOutcome
    low: float
    high: float
    p_value: float
    low_adjusted: float
    high_adjusted: float
    p_adjusted: float
    freedom: float
    seeds_a: SeedSpread | None
    seeds_b: SeedSpread | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A pair of contenders on the same examples; `difference` is a minus b.

    `low` and `high` belong to `p_value`, `low_adjusted` and `high_adjusted` to `p_adjusted`: they
    leave out 0 exactly where it is under 0.05. `low_90` and `high_90` are the bounds of two
    one-sided tests at 5%. Bounds are null where the examples, or clusters (`units`), are too few
    for any; those of runs before `rules.tests` 2 are null, too. `flips`: of a yes/no metric.
    `outcome` is the verdict, or in a tie whether the two are the same within the margin;
    `within_margin` says whether the true difference is smaller than it, whichever is better. A
    margin is a share of 1, and null where scores are no shares. `corrected` is the difference by
    people's labels, where a judge decides. All of this is about the models at hand; `training` is
    about training them anew, and null where nothing is trained, or where it is not known how far
    apart trainings lie.
    """

    a: str
    b: str
    metric: str
    difference: float
    low: float | None
    high: float | None
    p_value: float
    p_adjusted: float
    test: str
    cluster: str | None
    verdict: Literal["a better", "b better", "tie"]
    low_adjusted: float | None = None
    high_adjusted: float | None = None
    low_90: float | None = None
    high_90: float | None = None
    units: int | None = None
    flips: FlipCounts | None = None
    outcome: PairOutcome | None = None
    margin: float | None = None
    within_margin: bool | None = None
    training: WayOfTraining | None = None
    corrected: Corrected | None = None


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The break-even if one thing were otherwise: `utilization` (a share), `usd_per_hour` or
    `hosted_usd_per_request` (as a factor). Requests as in `BreakEven`."""

    what: Literal["utilization", "usd_per_hour", "hosted_usd_per_request"]
    value: float
    requests_per_month: float | None
    first_requests_per_month: float | None = None
    until_requests_per_month: float | None = None


@dataclass(frozen=True, slots=True)
class CurvePair:
    """What so many requests a month cost, own and hosted."""

    requests_per_month: float
    own_usd: float
    hosted_usd: float


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Requests a month from which an own model is cheaper than a hosted one, however many more
    there are; None if there is no such number.

    Machines come whole, so the costs may cross more than once: first at
    `first_requests_per_month` (None: never). Where owning is cheaper for a while only,
    `until_requests_per_month` is the last crossing. `warning` says that the own model's speed
    was measured on other hardware than is priced.
    """

    own: str
    hosted: str
    requests_per_month: float | None
    utilization: float
    first_requests_per_month: float | None = None
    until_requests_per_month: float | None = None
    warning: str | None = None
    curve: tuple[CurvePair, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """Answers that no model gave: the most frequent training answer (`answer`, which `share` of
    the training examples has), or that of the nearest training input.

    `comparisons` test each contender, as `a`, against it, each pair by itself. A baseline is in no
    pair of `Results.comparisons` and is never chosen.
    """

    name: str
    answer: str | None = None
    share: float | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class Caveat:
    """What the headline must say beside the choice.

    - `poor`, `low`: its share of right answers, or its mean, `value`, is under a half; it is the
      best of so many `contenders` (null: another one has a better score).
    - `baseline`: it is not better than the baseline `other`, whose score is `value`.
    - `ends`: it ends on the day `ends`.
    - `behind`: it is worse than `other`, the model that is being left, by `value`.
    - `unproven`: it is not shown to lose less than the margin, `value` (null: there is none, or
      nothing to compare with), against `other`, the model that is being left.
    """

    kind: CaveatKind
    value: float | None = None
    other: str | None = None
    ends: str | None = None
    contenders: int | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to choose, why, and when not; `caveats` stand beside the choice in the headline."""

    choice: str | None
    because: tuple[str, ...] = ()
    when_not: tuple[str, ...] = ()
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, slots=True)
class UnreadReplies:
    """So many of the answers that a judge was asked about have no score, for its reply was none of
    its three words; one such reply, cut to its beginning, and the example it is about. `grader` is
    the metric of a grader whose model was asked, where it was no judge."""

    answers: int
    of: int
    id: str | None = None
    reply: str | None = None
    grader: str | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """What people said of answers that a judge scored (`labels.jsonl`), as far as it is used.

    `answers` of `rows` test rows were labelled by `people`. `agreement` is the share of the judge's
    readings that say what people say (not worse than the reference, or worse), `kappa` the same
    beyond chance (Cohen 1960), null where one of the two always says the same. `table` counts
    answers by what the judge said, then by what people did. `between_people` is how often two of
    them agree, over the answers that have labels of several. `changed` labels are of answers that
    are others now, and `skipped` answers have none.
    """

    rows: int
    answers: int
    people: int
    agreement: Score | None = None
    kappa: float | None = None
    table: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    between_people: Score | None = None
    changed: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Results:
    """`results.json`: every number the report shows. `judge_usd` is what the ledger has of the
    judge's answers; None where there is none, or none that is priced. `judge_unread` is None where
    all of its replies were read, `labels` where no person was asked. `left_out` says why the
    references of some test examples, by id, could not be used; no contender's scores have them.
    `rules` are the versions of the scoring rules by which every contender was scored: where they
    differ, each rule's lowest.
    """

    schema: int
    name: str
    task: str
    source: str
    primary_metric: str
    settings: Mapping[str, Any]
    requirements: Mapping[str, Any]
    created: str
    command: str
    split_sizes: Mapping[str, int]
    content_sha256: str
    database_sha256: Mapping[str, str]
    versions: Mapping[str, str]
    machine: str
    contenders: tuple[ContenderResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    judge_usd: float | None = None
    judge_unread: UnreadReplies | None = None
    labels: Labels | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    recommendation: Recommendation = field(default_factory=lambda: Recommendation(choice=None))
