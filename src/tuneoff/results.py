"""The contents of `results.json`, schema 1, field by field.

Plain frozen dataclasses, like those of `records.py`. A value that was not measured is None, never
0. Units are in the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuneoff.records import LossRow, TrainingRecord

Hosting = Literal["own", "provider"]
# The key of `Results.rules` with the version of intervals and tests. All other keys are rules of
# scoring.
TESTS_RULE = "tests"
CaveatKind = Literal["poor", "low", "baseline", "ends", "behind", "unproven"]
PairOutcome = Literal["a better", "b better", "same", "cannot be told"]
WayOutcome = Literal["a better", "b better", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric over a test set, with 95% bounds (`scoring/intervals.py`).

    With several training seeds, the bounds cover the choice of test examples and the training.
    Before `rules.tests` 2 they covered the examples alone, and knew no clusters.
    """

    value: float | None
    """The mean over examples; with several seeds, the mean over seeds."""
    low: float | None
    """The lower bound; null without bounds."""
    high: float | None
    n: int
    """The number of examples, those without an answer included."""
    errors: int = 0
    """The number of examples without an answer. They count as wrong."""
    by_seed: tuple[float, ...] = ()
    """Each seed's value, in the file's order."""


@dataclass(frozen=True, slots=True)
class CorrectedScore:
    """A judge's score, or a difference of two, corrected by people's labels
    (`scoring/corrected.py`).

    Its figures are None where the labels are too few.
    """

    value: float | None
    """The corrected score or difference."""
    low: float | None
    """The lower 95% bound."""
    high: float | None
    n: int
    """The number of rows with labels."""
    of: int
    """The number of rows that the judge scored."""
    weight: float | None = None
    """How far the judge is trusted on the other rows (0: people alone)."""
    clusters: int | None = None
    """The number of clusters with labels; None without clusters."""
    rows_needed: int | None = None
    """The number of labelled rows that would show a difference of 5 points with a power of 80%.
    None where not even all rows do, and for scores."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The money of one contender, in USD."""

    training_usd: float | None = None
    """The cost of one training."""
    training_usd_planned: float | None = None
    """The cost of one training that `tuneoff plan` computed when the run began."""
    training_basis: str | None = None
    """How the training cost was computed, or why there is none."""
    answering_usd: float | None = None
    """The cost of answering the test set once."""
    serving_usd_per_1k_requests: float | None = None
    """The cost of 1,000 requests."""
    fixed_usd_per_month: float | None = None
    """The monthly cost at any load: reserved machines, or a provider's hosting fee and its share of
    tuning again."""
    usd_per_correct_answer: float | None = None
    """The cost of one right answer."""
    serving_basis: str | None = None
    """How the costs of answering were computed, or why there are none."""
    price_sources: tuple[str, ...] = ()
    """Where the prices were published."""
    all_answers_usd: float | None = None
    """The cost of all answers, where each example was answered several times; else None."""
    unit_prices: Mapping[str, float] = field(default_factory=dict)
    """The prices that were used, of that day, by their names in a file's `price:`, or
    `usd_per_hour`."""


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """How fast a contender answers."""

    seconds_p50: float | None = None
    """Median latency in seconds, with at most `concurrency` requests in flight."""
    seconds_p95: float | None = None
    """95th percentile of the latency, in seconds."""
    requests_per_second: float | None = None
    """An own model's throughput. A provider's is not known here."""
    tokens_in_mean: float | None = None
    """Mean prompt tokens over the test set."""
    tokens_out_mean: float | None = None
    """Mean answer tokens over the test set."""
    backend: str | None = None
    """The engine that an own model answered with."""
    agreement: float | None = None
    """The share of an own model's answers that transformers gives too (`ServingRecord`)."""
    compared: int | None = None
    """The number of prompts that `agreement` is a share of."""
    requests: int | None = None
    """The number of requests that the latency was measured on."""
    concurrency: int | None = None
    """Max requests in flight: 1 where latency was measured one request at a time, else, for a
    provider's model, as the test set was answered. None in results from before this was stored."""
    loaded_seconds_p50: float | None = None
    """A provider's median latency under the run's own load, in seconds."""
    loaded_seconds_p95: float | None = None
    """The 95th percentile of the same."""
    loaded_requests: int | None = None
    """The number of requests that this was measured on."""
    loaded_concurrency: int | None = None
    """Max requests in flight meanwhile."""
    batch: bool = False
    """Whether a provider answered in batches, which have no such times."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The primary metric after training on a fraction of the examples, with 95% bounds."""

    fraction: float
    """The fraction of the training examples."""
    examples: int
    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    """Of the paired test against the point before; None for the first."""


@dataclass(frozen=True, slots=True)
class AllTrainings:
    """The total cost of a contender's trainings: every seed, and every fraction of the learning
    curve."""

    trainings: int
    training_seconds: float | None
    answering_seconds: float | None
    usd: float | None = None
    """The cost of training and answering; None without a price."""


@dataclass(frozen=True, slots=True)
class ContenderResult:
    """The results of one contender.

    With several training seeds, scores, breakdowns and comparisons are those of the mean over
    seeds, so that contenders with and without seeds can be compared. With several answers per
    example, they are those of the example's mean.
    """

    name: str
    """Its name in the bake-off file."""
    id: str
    """Its class: `local`, `hosted`, `prompted` or `recorded`."""
    model: str
    prompt_sha256: str | None = None
    """The hash of its test prompts (`PromptRecord`)."""
    rendered_sha256: str | None = None
    """The hash of the texts rendered from them (`PromptRecord`)."""
    rendering_notes: tuple[str, ...] = ()
    """What was changed so that its chat template renders every turn (`PromptRecord`)."""
    place: Hosting | None = None
    """Who hosts the model: `own` or `provider`; None where that is not known."""
    data: str | None = None
    """The data set of reported figures, where it is not the run's own test set."""
    ends: str | None = None
    """The day its model ends; None where no end is known."""
    error: str | None = None
    """Why it failed; None if it did not."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """Its scores by metric. `errors` counts the examples that lack an answer, or one of their
    answers."""
    corrected: Mapping[str, CorrectedScore] = field(default_factory=dict)
    """A judge's scores, corrected by people's labels."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """The versions of the scoring rules that made its scores. Empty where it was scored before
    versions were counted, when each was at version 1."""
    breakdowns: Mapping[str, Mapping[str, Mapping[str, Score]]] = field(default_factory=dict)
    """The primary metric by key of `meta`, then by value."""
    error_classes: Mapping[str, int] = field(default_factory=dict)
    """The number of wrong answers by class of error: those of the first seed, and of the first
    answers."""
    training: TrainingRecord | None = None
    """The first seed's record, with the mean seconds of one training."""
    samples: int = 1
    """The number of answers per example."""
    samples_disagree: float | None = None
    """The share of examples whose answers differ in the primary metric."""
    seeds: tuple[int, ...] = ()
    """Its training seeds; empty with one training."""
    all_trainings: AllTrainings | None = None
    """The total of its trainings; None with one training."""
    learning_curve: tuple[CurvePoint, ...] = ()
    """The first seed's learning curve."""
    loss: tuple[LossRow, ...] = ()
    """The first seed's losses."""
    cost: Cost = field(default_factory=Cost)
    """The cost of one training, and of answering the test set once."""
    serving: LatencyStats = field(default_factory=LatencyStats)
    """How fast it answers, over the answers of all seeds."""


@dataclass(frozen=True, slots=True)
class FlipCounts:
    """How many examples only a, only b, both and none of a pair have right."""

    only_a: int
    only_b: int
    both: int
    none: int

    @property
    def n(self) -> int:
        """Return the number of examples."""
        return self.only_a + self.only_b + self.both + self.none


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """The variation of a contender's score between training seeds."""

    deviation: float
    """The standard deviation of the score between seeds."""
    freedom: float
    """The degrees of freedom of the deviation."""
    contenders: tuple[str, ...]
    """The contenders whose seeds it was measured on: the contender itself, or, where that was
    trained once, those of the same base and class with several seeds."""


@dataclass(frozen=True, slots=True)
class WayOfTraining:
    """Whether a pair's difference would recur if its trained contenders were trained again.

    Bounds and p-values are those of Student's t over examples (or clusters) and seeds. They are
    adjusted or not as in `Comparison`; no p-value is smaller than the one there, and no bounds are
    narrower.
    """

    outcome: WayOutcome
    low: float
    high: float
    p_value: float
    low_adjusted: float
    high_adjusted: float
    p_adjusted: float
    freedom: float
    """The degrees of freedom of the t distribution."""
    seeds_a: SeedSpread | None
    """The variation of a between seeds; null where nothing of a is trained."""
    seeds_b: SeedSpread | None
    """The variation of b between seeds; null where nothing of b is trained."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The test of two contenders on the same examples.

    All of it but `training` is about these trained models, not about training them again.
    """

    a: str
    b: str
    metric: str
    difference: float
    """The score of a minus the score of b."""
    low: float | None
    """The lower 95% bound that belongs to `p_value`. Bounds exclude 0 exactly where their p-value
    is under 0.05. They are null where the examples, or clusters, are too few."""
    high: float | None
    p_value: float
    p_adjusted: float
    test: str
    cluster: str | None
    verdict: Literal["a better", "b better", "tie"]
    low_adjusted: float | None = None
    """The lower bound that belongs to `p_adjusted`; null in runs before `rules.tests` 2."""
    high_adjusted: float | None = None
    low_90: float | None = None
    """The lower bound of two one-sided tests at 5%; null in runs before `rules.tests` 2."""
    high_90: float | None = None
    units: int | None = None
    """The number of examples, or of clusters."""
    flips: FlipCounts | None = None
    """The examples that one, both or none has right, for a yes/no metric."""
    outcome: PairOutcome | None = None
    """The verdict, or in a tie whether the two are the same within the margin."""
    margin: float | None = None
    """The equivalence margin, as a share of 1; null where scores are not shares."""
    within_margin: bool | None = None
    """Whether the true difference is smaller than the margin, whichever is better."""
    training: WayOfTraining | None = None
    """Whether the difference would recur after training again. Null where nothing is trained, or
    where the variation between trainings is not known."""
    corrected: CorrectedScore | None = None
    """The difference corrected by people's labels, where a judge decides."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The break-even if one assumption were different. Requests are as in `BreakEven`."""

    what: Literal["utilization", "usd_per_hour", "hosted_usd_per_request"]
    """The assumption that is changed."""
    value: float
    """Its value: a share for `utilization`, USD for `usd_per_hour`, a factor for
    `hosted_usd_per_request`."""
    requests_per_month: float | None
    first_requests_per_month: float | None = None
    until_requests_per_month: float | None = None


@dataclass(frozen=True, slots=True)
class CurvePair:
    """The monthly costs of an own and a hosted model at one load."""

    requests_per_month: float
    own_usd: float
    hosted_usd: float


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The load from which an own model is cheaper than a hosted one.

    Machines come whole, so the costs may cross more than once.
    """

    own: str
    hosted: str
    requests_per_month: float | None
    """Requests a month from which the own model is cheaper at any higher load; None if there is
    none."""
    utilization: float
    first_requests_per_month: float | None = None
    """Requests a month of the first crossing; None if the own model is never cheaper."""
    until_requests_per_month: float | None = None
    """Requests a month of the last crossing, where the own model is cheaper for a while only."""
    warning: str | None = None
    """Set where the own model's speed was measured on other hardware than is priced."""
    curve: tuple[CurvePair, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline without a model: the most frequent training answer, or the nearest training
    input's.

    It is in no pair of `Results.comparisons`, and is never recommended.
    """

    name: str
    answer: str | None = None
    """The most frequent training answer."""
    share: float | None = None
    """The share of the training examples that have it."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    """The test of each contender, as `a`, against it, each pair by itself."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """A reservation that the headline states beside the recommended contender.

    - `poor`, `low`: its share of right answers, or its mean, `value`, is under a half. It is the
      best of `contenders` (null: another one has a better score).
    - `baseline`: it is not better than the baseline `other`, whose score is `value`.
    - `ends`: it ends on the day `ends`.
    - `behind`: it is worse than `other`, the model that is being left, by `value`.
    - `unproven`: it is not shown to lose less than the margin, `value`, against `other`, the model
      that is being left (null: there is no margin, or nothing to compare with).
    """

    kind: CaveatKind
    value: float | None = None
    other: str | None = None
    ends: str | None = None
    contenders: int | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The recommended contender with reasons for and against it."""

    choice: str | None
    """Its name; None where none can be recommended."""
    because: tuple[str, ...] = ()
    """Sentences: the reasons for it."""
    when_not: tuple[str, ...] = ()
    """Sentences: when another contender is better."""
    caveats: tuple[Caveat, ...] = ()
    """Reservations that stand in the headline."""


@dataclass(frozen=True, slots=True)
class UnreadReplies:
    """Replies of a judge, or of a grader's model, that could not be read as a score."""

    answers: int
    """The number of answers without a score for this reason."""
    of: int
    """The number of answers that it was asked about."""
    id: str | None = None
    """The example that `reply` is about."""
    reply: str | None = None
    """The beginning of one such reply."""
    grader: str | None = None
    """The metric of the grader whose model was asked; None for a judge."""


@dataclass(frozen=True, slots=True)
class LabelStats:
    """The people's labels of a judge's answers (`labels.jsonl`) that are used."""

    rows: int
    """The number of test rows with a label."""
    answers: int
    """The number of answers with a label."""
    people: int
    """The number of people who labelled."""
    agreement: Score | None = None
    """The share of the judge's readings that agree with people: not worse than the reference, or
    worse."""
    kappa: float | None = None
    """The same beyond chance (Cohen 1960); null where the judge or the people always say the same.
    """
    table: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """The number of answers by the judge's reading, then by people's."""
    between_people: Score | None = None
    """How often two people agree, over the answers that several labelled."""
    changed: int = 0
    """The number of labels of answers that have changed since."""
    skipped: int = 0
    """The number of answers that were skipped."""


@dataclass(frozen=True, slots=True)
class Results:
    """`results.json`: every number that the report shows."""

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
    """The cost of the judge's answers by the ledger; None where there are none, or none with a
    price."""
    judge_unread: UnreadReplies | None = None
    """The judge's replies that could not be read; None where all were."""
    labels: LabelStats | None = None
    """People's labels; None where no person was asked."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why the references of some test examples cannot be used, by id. No contender's scores have
    them."""
    rules: Mapping[str, int] = field(default_factory=dict)
    """The versions of the scoring rules by which every contender was scored: where they differ,
    each rule's lowest."""
    baselines: tuple[Baseline, ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    recommendation: Recommendation = field(default_factory=lambda: Recommendation(choice=None))
