"""Runs one contender: tunes each of its variants, has it answer the test set, and times it."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.bakeoff.schedule import (
    Executor,
)
from tuneoff.config.base import Reasoning
from tuneoff.contenders.base import Contender, ContenderContext, describe_prompts
from tuneoff.contenders.samples import count_samples, list_scored, list_unanswered, split_by_sample
from tuneoff.contenders.variants import TrainingVariant, format_failure, list_variants
from tuneoff.costs.contender_prices import is_hosted
from tuneoff.errors import BudgetError
from tuneoff.models.loading import release_memory
from tuneoff.progress import OVER_BUDGET
from tuneoff.records import ScoredRow, ServingRecord
from tuneoff.report import format
from tuneoff.scoring.aggregate import average_samples
from tuneoff.scoring.base import (
    RULES,
    Options,
    ThoughtCounter,
    build_left_out,
    build_scoring_inputs,
)
from tuneoff.storage.run_dir import ContenderDir, RunDir

# Wrong answers whose results are stored for the report.
MAX_DETAILS = 500


def run_contender(
    parts: ResolvedBakeOff,
    run: RunDir,
    work: Mapping[str, ContenderContext],
    options: Options,
    executor: Executor,
    settings: Any,
) -> None:
    """Run each training variant of one contender; a failure is recorded, and others continue."""
    contender_work = work[settings.name]
    training = TrainingVariant(settings)
    try:
        kind = executor.load_contender(settings)
        for training in list_variants(settings):
            _run_variant(
                parts, run, kind, training, training.build_context(contender_work), options
            )
        _measure_serving(run, kind, list_variants(settings)[0], contender_work)
        contender_work.directory.write_error(None)
        contender_work.progress.status(
            settings.name, _format_standing(parts, settings, contender_work, options)
        )
    except BudgetError as error:
        contender_work.directory.write_error(str(error))
        contender_work.progress.status(settings.name, OVER_BUDGET)
        run.event("over budget", contender=settings.name, error=str(error))
        raise
    except Exception as error:  # a contender's failure is data, not a crash
        text = format_failure(training, error)
        contender_work.directory.write_error(text)
        run.event("failed", contender=settings.name, error=text, traceback=traceback.format_exc())
        contender_work.progress.status(settings.name, f"failed: {text}")
    finally:
        release_memory()


def _format_standing(
    parts: ResolvedBakeOff, settings: Any, work: ContenderContext, options: Options
) -> str:
    """Return a contender's score by the deciding metric; of several seeds, the first one's."""
    metric = parts.get_deciding_metric(options)
    rows = average_samples(list_scored(settings, _get_first_dir(settings, work)))
    values = [float(row.scores[metric]) for row in rows.values() if metric in row.scores]
    if not values:
        return "done"
    mean = sum(values) / len(values)
    return f"{format.words(metric)} {format.score(mean, format.is_share(mean))}"


def _get_first_dir(settings: Any, work: ContenderContext) -> ContenderDir:
    """Return the folder of a contender's first variant."""
    return list_variants(settings)[0].build_context(work).directory


def _run_variant(
    parts: ResolvedBakeOff,
    run: RunDir,
    kind: Contender,
    training: TrainingVariant,
    work: ContenderContext,
    options: Options,
) -> None:
    """Tune, answer and score one training variant."""
    settings = training.settings
    run.event("tune", contender=settings.name)
    kind.tune(settings, work)
    release_memory()
    run.event("answer", contender=settings.name)
    _answer_examples(kind, settings, work)
    release_memory()
    run.event("score", contender=settings.name)
    _score_answers(parts, settings, work, options)


def _measure_serving(
    run: RunDir, kind: Contender, first: TrainingVariant, work: ContenderContext
) -> None:
    """Measure the latency of the first variant's model; if that fails, only costs are unknown.

    An own model is timed once. A provider's answers were timed already, so nothing is left to do.
    """
    serving, variant_work = getattr(kind, "serving", None), first.build_context(work)
    before, own = variant_work.directory.serving(), not is_hosted(first.settings)
    if serving is None or (own and before is not None and not _needs_timing(before, variant_work)):
        return
    if own:
        run.event("measure", contender=work.directory.path.name)
    try:
        record = serving(first.settings, variant_work)
    except Exception as error:  # the scores are valid without it
        text = format_failure(first, error)
        run.event("not measured", contender=work.directory.path.name, error=text)
        work.progress.say(f"warning: {first.settings.name}: its speed was not measured: {text}")
    else:
        if record is not None and record != before:
            variant_work.directory.write_serving(record)


def _needs_timing(before: ServingRecord, work: ContenderContext) -> bool:
    """Return whether an own model still has to be timed, because `measure` was false."""
    return work.measure and not before.alone and before.saturated > 0


def _answer_examples(kind: Contender, settings: Any, work: ContenderContext) -> None:
    """Answer what is not answered yet; each batch is written as it arrives."""
    answered = work.directory.answers()
    questions = list_unanswered(settings, answered, work.test)
    ids = {example.id for example, _ in questions}
    left = [example for example in work.test if example.id in ids]
    total = len(work.test) * count_samples(settings, answered)
    done = total - len(questions)
    before = work.directory.prompt()
    if left or (answered and before is None):
        record = describe_prompts(kind, settings, work)
        if answered and before is not None and before.prompt_sha256 != record.prompt_sha256:
            work.progress.say(
                f"warning: {settings.name}: its {len(answered)} earlier answers are to other "
                "prompts, for an earlier version chose shots otherwise; --fresh --only "
                f"{settings.name} asks all of them alike."
            )
        work.directory.write_prompt(record)
    if not left:
        return
    step = work.progress.stage(f"{settings.name}: answering", total)
    for batch in kind.answer(settings, work, left):
        work.directory.append_predictions(batch)
        done += len(batch)
        step(min(done, total))  # recorded answers show only now how many samples there are
    cut = sum(p.finish_reason == "length" for p in work.directory.answers().values())
    if cut:
        reasoning = settings.max_reasoning_tokens if isinstance(settings, Reasoning) else 0
        more = f" and reasoning_tokens ({reasoning})" if reasoning else ""
        work.progress.say(
            f"warning: {settings.name}: {cut} answers were cut at task.max_new_tokens "
            f"({work.max_new_tokens}){more}."
        )


def _score_answers(
    parts: ResolvedBakeOff, settings: Any, work: ContenderContext, options: Options
) -> None:
    """Score a contender's answers and store scores, rules and details."""
    name = settings.name
    answers = split_by_sample(settings, work.directory)
    if not any(answers):
        return
    unusable = options.left_out
    usable = [e for e in work.test if e.id not in unusable]
    rows = [build_scoring_inputs(usable, of_sample) for of_sample in answers]
    details: list[Mapping[str, Any]] = []

    def keep(result: Mapping[str, Any]) -> None:
        if len(details) < MAX_DETAILS:
            details.append(result)

    counter = ThoughtCounter(options.mode)
    for row in chain(*rows):
        counter.add(row)
    for warning in counter.warnings():
        work.progress.say(f"warning: {name}: {warning}")
    step = work.progress.stage(f"{name}: scoring", sum(map(len, rows)))
    scored = list[ScoredRow]()
    for sample, sample_rows in enumerate(rows):
        sample_options = replace(
            options, details=None if sample else keep
        )  # the report shows the first
        for scored_row in parts.scorer.score_rows(sample_rows, sample_options):
            scored.append(replace(scored_row, sample=sample))
            step(len(scored))
    without = (build_left_out(e.id, unusable[e.id]) for e in work.test if e.id in unusable)
    work.directory.write_scores([*scored, *without])
    work.directory.write_scoring_rules(RULES)
    work.directory.write_details(details)
