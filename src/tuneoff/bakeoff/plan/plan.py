"""The plan of a run before anything is spent: tokens, epochs, money, hours, memory.

It needs no key and asks no provider. A data set may be fetched from the hub, and a base on this
machine is trained for a moment; nothing of that is kept. What is not known is None, and one of the
contender's warnings says why and what to do.

A run saves the planned cost of its training when it begins, to be compared with the bill. That plan
is of the run's own examples, without the training probe of twenty seconds, and is computed again
only where the file changed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tuneoff import environment
from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.budget import compute_max_run_usd, warn_about_judges
from tuneoff.bakeoff.plan.hosted import plan_answers, plan_hosted
from tuneoff.bakeoff.plan.schema import Plan, PlannedContender
from tuneoff.bakeoff.plan.seeds import plan_seeds
from tuneoff.bakeoff.plan.token_counts import (
    ApproximateView,
    HostedView,
    OpenView,
    SplitExamples,
    SplitTallies,
    TokenView,
    count_tokens,
    sample_training,
)
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.config.contenders import HostedConfig, LocalConfig, PromptedConfig
from tuneoff.config.schema import BakeOff
from tuneoff.contenders.base import ContenderContext, choose_template
from tuneoff.contenders.shots import NO_SHOTS, find_shot_indices, select_shots
from tuneoff.contenders.variants import list_variants
from tuneoff.costs.accounting import find_end, find_hosting
from tuneoff.costs.contender_prices import (
    explain_refusal_today,
    is_free_local_server,
    load_price_book,
)
from tuneoff.costs.price_book import PriceBook
from tuneoff.errors import TuneoffError
from tuneoff.models.loading import choose_rendering, resolve_base
from tuneoff.progress import SilentProgress
from tuneoff.records import SPLITS, Example, PlannedRecord, Split
from tuneoff.scoring.margins import find_margin_examples
from tuneoff.scoring.power import find_detectable
from tuneoff.storage.resume import dump_resolved
from tuneoff.storage.run_dir import NULL_DIR, RunDir
from tuneoff.tasks.streaming import ExampleStream, open_stream
from tuneoff.tokenization.offline import UNLIMITED_POSITIONS, TokenCounter, load_counter
from tuneoff.tokenization.openai import (
    COUNTED_AS_OPENAI,
    HostedCounter,
    build_counter,
    find_training_limit,
)

# Chat files beyond this size are streamed, and not checked for overlap.
MAX_HELD_BYTES = 32 * 2**20
# Training examples from which shared prefixes and speed are estimated.
SAMPLED_EXAMPLES = 512


@dataclass(frozen=True, slots=True)
class ExampleSource:
    """A task's examples."""

    sizes: Mapping[Split, int]
    """Number of examples by split."""
    rows: Iterable[tuple[Split, Example]]
    """All examples with their split; may be iterated repeatedly."""
    splits: Mapping[Split, Sequence[Example]]
    """The same examples by split."""
    clusters: Sequence[int] | None
    """Sizes of the test set's clusters; None: examples are independent."""
    warnings: Sequence[str]


def plan(bakeoff: BakeOff, *, measure: bool = True) -> Plan:
    """Return what a bake-off will cost and take.

    Args:
        measure: train for twenty seconds where a contender would be trained on this machine;
            without that, its seconds are not known.

    Raises:
        ConfigError, DataError: file or data cannot be used.
    """
    parts = prepare.resolve(bakeoff)
    source = _load_source(parts)
    todays_plan = _build_plan(parts, source, measure)
    prices = load_price_book(bakeoff)
    max_usd = compute_max_run_usd(bakeoff, _build_context(parts, source), prices)
    return replace(_add_todays_refusals(todays_plan, bakeoff, prices), most_usd=float(max_usd))


def plan_examples(parts: ResolvedBakeOff, examples: Mapping[Split, Sequence[Example]]) -> Plan:
    """Return the plan for a run's own examples, without a training probe.

    The maximum bill is left out, too: the run has reserved it.
    """
    return _build_plan(parts, _hold_examples(parts, examples, []), measure=False)


def _build_plan(parts: ResolvedBakeOff, source: ExampleSource, measure: bool) -> Plan:
    """Return the plan of a bake-off without the maximum bill."""
    bakeoff = parts.bakeoff
    prices, day = load_price_book(bakeoff), bakeoff.as_of or environment.today()
    work = _build_context(parts, source)
    views = [_build_view(contender, work) for contender in bakeoff.contenders]
    tallies = iter(count_tokens(source.rows, source.sizes, [v for v in views if v is not None]))
    counted = [next(tallies) if view is not None else None for view in views]
    examples = (
        sample_training(source.rows, source.sizes, SAMPLED_EXAMPLES)
        if any(isinstance(contender, LocalConfig) for contender in bakeoff.contenders)
        else []
    )
    planned = [
        _plan_contender(contender, view, count, work, examples, prices, day, measure)
        for contender, view, count in zip(bakeoff.contenders, views, counted, strict=True)
    ]
    planned = [
        replace(
            contender_plan,
            place=find_hosting(contender),
            ends=contender_plan.ends or find_end(contender, prices),
        )
        for contender, contender_plan in zip(bakeoff.contenders, planned, strict=True)
    ]
    # Warnings about the data or the whole file are shown once, with the first contender.
    shared_warnings = (*source.warnings, *warn_about_judges(bakeoff, prices))
    planned[0] = replace(planned[0], warnings=(*shared_warnings, *planned[0].warnings))
    detectable = find_detectable(source.sizes["test"], source.clusters, len(planned))
    return Plan(
        task=bakeoff.task.id,
        as_of=day,
        total_usd=_sum_usd(planned),
        most_usd=None,
        budget_usd=bakeoff.budget_usd,
        smallest_detectable_difference=detectable.few,
        smallest_detectable_difference_of_many=detectable.many,
        margin=find_margin_examples(
            source.sizes["test"], bakeoff.requirements.margin_points / 100, source.clusters
        ),
        more_seeds=plan_seeds(bakeoff.contenders, planned, source.sizes["test"], source.clusters),
        contenders=tuple(planned),
    )


def _add_todays_refusals(plan_of_day: Plan, bakeoff: BakeOff, prices: PriceBook) -> Plan:
    """Return a plan of another day with the refusals of a run that begins today."""
    if plan_of_day.as_of == environment.today():
        return plan_of_day
    planned = []
    for settings, contender in zip(bakeoff.contenders, plan_of_day.contenders, strict=True):
        refused = explain_refusal_today(settings, prices)
        new = [] if refused is None or refused in contender.warnings else [refused]
        planned.append(replace(contender, warnings=(*contender.warnings, *new)))
    return replace(plan_of_day, contenders=tuple(planned))


def _sum_usd(planned: Iterable[PlannedContender]) -> float:
    """Return the sum of all known costs in USD."""
    known = [
        usd
        for contender in planned
        for usd in (contender.training.usd if contender.training else None, contender.answering_usd)
        if usd is not None
    ]
    return float(sum((Decimal(str(usd)) for usd in known), Decimal()))


def _load_source(parts: ResolvedBakeOff) -> ExampleSource:
    """Return a task's examples, streamed where the files are too large to hold."""
    if parts.settings.id == "chat" and _count_bytes(parts) > MAX_HELD_BYTES:
        return _stream_examples(parts)
    return _hold_examples(parts, *prepare.load_examples(parts))


def _hold_examples(
    parts: ResolvedBakeOff, examples: Mapping[Split, Sequence[Example]], warnings: Sequence[str]
) -> ExampleSource:
    """Return examples that are held in memory."""
    rows = [(split, example) for split in SPLITS for example in examples[split]]
    clusters = None
    if parts.cluster is not None:
        clusters = list(Counter(str(e.meta[parts.cluster]) for e in examples["test"]).values())
    sizes = {split: len(examples[split]) for split in SPLITS}
    return ExampleSource(sizes, rows, examples, clusters, warnings)


def _count_bytes(parts: ResolvedBakeOff) -> int:
    """Return the size of a chat task's files in bytes."""
    named = [getattr(parts.settings, split) for split in SPLITS]
    paths = [parts.place.path(file) for file in named if file is not None]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _stream_examples(parts: ResolvedBakeOff) -> ExampleSource:
    """Return examples that are streamed from their files."""
    warnings: list[str] = []
    examples = open_stream(parts.settings, replace(parts.place, warn=warnings.append))
    clusters: Counter[str] = Counter()
    if parts.cluster is not None:
        tested = (example for split, example in examples if split == "test")
        clusters.update(str(example.meta.get(parts.cluster, "")) for example in tested)
    shots = _load_shots(parts.bakeoff, examples)
    splits = {
        s: SplitExamples(examples, s, examples.sizes[s], shots if s == "train" else {})
        for s in SPLITS
    }
    line = "the files are too large to hold: overlap of splits was not looked for (tuneoff check)."
    warnings.append(line)
    return ExampleSource(
        examples.sizes, examples, splits, list(clusters.values()) or None, warnings
    )


def _load_shots(bakeoff: BakeOff, examples: ExampleStream) -> dict[int, Example]:
    """Return the training examples that contenders show in their prompts, by index."""

    def of(wanted: Split) -> Iterator[Example]:
        return (example for split, example in examples if split == wanted)

    places = {
        place
        for settings in bakeoff.contenders
        if isinstance(settings, PromptedConfig) and settings.shots
        for place in find_shot_indices(settings, of("train"), of("test")).collect()
    }
    if not places:
        return {}
    return {place: example for place, example in enumerate(of("train")) if place in places}


def _build_context(parts: ResolvedBakeOff, source: ExampleSource) -> ContenderContext:
    """Return the context of a contender that keeps nothing."""
    return ContenderContext(
        folder=parts.bakeoff.folder,
        train=source.splits["train"],
        validation=source.splits["validation"],
        test=source.splits["test"],
        template=parts.template,
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=NULL_DIR,
        progress=SilentProgress(),
    )


def _build_view(settings: Any, work: ContenderContext) -> TokenView | None:
    """Return how a contender sees examples; None where nothing is tuned or asked."""
    hosted = isinstance(settings, HostedConfig)
    local = isinstance(settings, LocalConfig)
    if not hosted and not local and not isinstance(settings, PromptedConfig):
        return None
    template = choose_template(settings, work)
    shots = NO_SHOTS if hosted else select_shots(settings, work)
    model = getattr(settings, "model", None)
    if model is not None and (settings.provider or "openai") in COUNTED_AS_OPENAI:
        return HostedView(build_counter(model), template, shots, find_training_limit(model))
    base = model if model is not None else resolve_base(settings.base, work.folder)
    max_tokens = (settings.train.max_length if local else None) or UNLIMITED_POSITIONS
    counter = load_counter(base)
    if counter is None:
        # Bills are counted to the last example, with whatever tokenizer there is.
        return ApproximateView(HostedCounter("o200k_base"), template, shots, max_tokens, hosted)
    return OpenView(
        counter, template, _choose_rendering(counter, settings), shots, max_tokens, hosted
    )


def _choose_rendering(counter: TokenCounter, settings: Any) -> Any:
    """Return how a contender's prompts are rendered."""
    return choose_rendering(counter, settings.rendering)  # type: ignore[arg-type]


def _plan_contender(
    settings: Any,
    view: TokenView | None,
    tallies: SplitTallies | None,
    work: ContenderContext,
    examples: Sequence[Example],
    prices: PriceBook,
    day: datetime.date,
    measure: bool,
) -> PlannedContender:
    """Return the plan of one contender."""
    if tallies is None or view is None:
        return PlannedContender(name=settings.name, id=settings.id)
    if isinstance(settings, HostedConfig):
        hosted = plan_hosted(settings, tallies, prices, day, work.max_new_tokens)
        return _warn_if_approximate(hosted, settings.model, view)
    if isinstance(settings, PromptedConfig):
        if settings.model is None:
            return PlannedContender(name=settings.name, id=settings.id)
        answers_plan = plan_answers(settings, tallies, prices, day, work.max_new_tokens)
        return _warn_if_approximate(answers_plan, settings.model, view)
    from tuneoff.bakeoff.plan.local import LocalPlanInput, plan_local

    assert isinstance(view, OpenView | ApproximateView)
    base = resolve_base(settings.base, work.folder)
    template = choose_template(settings, work)
    return plan_local(
        LocalPlanInput(settings, base, view, template, tallies, examples, prices, day, measure)
    )


def _warn_if_approximate(
    planned: PlannedContender, model: str, view: TokenView
) -> PlannedContender:
    """Return a plan with a warning if another tokenizer counted its tokens."""
    if not isinstance(view, ApproximateView):
        return planned
    line = (
        f"the tokenizer of {model} is not in the local cache; its tokens are counted with "
        "gpt-4o's, up to 20% fewer."
    )
    return replace(planned, warnings=(line, *planned.warnings))


def save_plan(
    parts: ResolvedBakeOff, examples: Mapping[Split, Sequence[Example]], run: RunDir
) -> None:
    """Write `planned.json` of each contender whose training can have a price."""
    written = json.dumps(dump_resolved(parts.bakeoff), sort_keys=True)
    sha256 = hashlib.sha256(written.encode()).hexdigest()
    left = [
        settings
        for settings in parts.bakeoff.contenders
        if _can_cost(settings) and not _is_planned(run, settings.name, sha256)
    ]
    if not left:
        return
    remaining = replace(parts, bakeoff=parts.bakeoff.model_copy(update={"contenders": tuple(left)}))
    try:
        planned = plan_examples(remaining, examples)
    except TuneoffError as error:  # a run works without a plan, and reports errors itself
        run.event("not planned", error=str(error))
        return
    for settings, contender_plan in zip(left, planned.contenders, strict=True):
        usd = contender_plan.training.usd if contender_plan.training else None
        if usd is not None:  # the plan's cost is for all seeds and fractions together
            times = sum((Decimal(str(t.fraction)) for t in list_variants(settings)), Decimal())
            usd = float(Decimal(str(usd)) / times)
        run.contender(settings.name).write_planned(PlannedRecord(sha256, usd))


def _can_cost(settings: Any) -> bool:
    """Return whether a contender's training can have a price."""
    if isinstance(settings, HostedConfig):
        return not is_free_local_server(settings)
    return isinstance(settings, LocalConfig) and settings.hardware is not None


def _is_planned(run: RunDir, name: str, sha256: str) -> bool:
    """Return whether a contender was planned for this file."""
    before = run.contender(name).planned()
    return before is not None and before.file_sha256 == sha256
