"""A run from start to end: prepare → tune → predict → score → collect → report.

Each stage reads what earlier ones wrote and writes its own file. The same call again continues
where the last one stopped: a tuned contender is not tuned again, an answered example is not
answered again. A contender with several seeds, or with a learning curve, is tuned, answers and is
scored once per training variant (`contenders/variants.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tuneoff.bakeoff import data_update, prepare, references
from tuneoff.bakeoff.baselines import score_baselines
from tuneoff.bakeoff.budget import attach_budgets, build_grader_budgets, build_judge_budget
from tuneoff.bakeoff.contender_run import run_contender
from tuneoff.bakeoff.label_results import add_labels
from tuneoff.bakeoff.plan.plan import save_plan
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.bakeoff.results import collect_results
from tuneoff.bakeoff.schedule import (
    Executor,
    SequentialExecutor,
    prompt_for_running_jobs,
    run_contenders,
    start_remote_jobs,
)
from tuneoff.config.schema import BakeOff
from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.samples import list_unanswered
from tuneoff.contenders.variants import list_variants
from tuneoff.costs.ledger import TRAINING, Ledger
from tuneoff.errors import BudgetError, ConfigError, RunDirectoryError, explain_unknown
from tuneoff.models import loading
from tuneoff.progress import WAITING, Progress, SilentProgress
from tuneoff.records import SPLITS, Example, Split
from tuneoff.report import write_report
from tuneoff.report.model_card import write_cards
from tuneoff.results import Results
from tuneoff.scoring import llm_judge
from tuneoff.scoring.added_metrics import list_judging_models
from tuneoff.scoring.base import (
    RULES,
    Options,
)
from tuneoff.storage.resume import open_run_dir, save_config
from tuneoff.storage.run_dir import RunDir, lock_run_dir

DEFAULT_FOLDER = Path("runs")
FRESH_DATA_HINT = "; this run takes corrected files with --fresh-data"


def run(
    bakeoff: BakeOff,
    run_dir: Path | str | None = None,
    *,
    only: str | None = None,
    fresh: bool = False,
    yes: bool = False,
    replay: Path | str | None = None,
    fresh_data: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    command: str = "tuneoff.run",
) -> Results:
    """Run a bake-off, or continue it, write its report, and return the results.

    Args:
        run_dir: where everything is written; `runs/NAME` if left out.
        only: run this contender alone.
        fresh: forget the earlier work of that contender (or, without `only`, of the whole run). The
            forgotten contender's settings, or the whole file and its data, may have changed.
        yes: a provider's model without a price may be used, and is not counted.
        replay: a recorded run (`record: true`), whose exchanges replace the providers.
        fresh_data: take the data files anew. Answers whose inputs changed are requested again,
            others are scored again; where that costs money, `yes` agrees to it.
        executor: does contenders' work; this process, one after another, if left out.

    Raises:
        UserError: the file, the data or the run directory cannot be used; nothing was done.
        BudgetError: a paid step could pass `budget_usd`; what was done before is in the report.
    """
    progress = progress or SilentProgress()
    parts = prepare.resolve(bakeoff)
    for judge_settings in list_judging_models(bakeoff):
        llm_judge.check_ready(judge_settings)
    names = [contender.name for contender in bakeoff.contenders]
    if only is not None and only not in names:
        raise ConfigError(f"--only: {explain_unknown('contender', only, names)}.")
    if fresh_data and (fresh or only is not None):
        other = "--fresh" if fresh else "--only"
        raise ConfigError(
            f"--fresh-data is for every contender and keeps their work; drop {other}."
        )
    run = RunDir(Path(run_dir) if run_dir is not None else DEFAULT_FOLDER / bakeoff.name)
    if run.path.exists() and not run.path.is_dir():
        raise RunDirectoryError(f"{run.path}: this is a file; give a folder as --run-dir.")
    with lock_run_dir(run.path):
        if fresh_data and run.has_data():
            open_run_dir(run.path, bakeoff)
            data_update.resume_fresh_data(run)
            data_update.apply_fresh_data(parts, run, yes, progress)
        return _run_locked(
            parts,
            run,
            names,
            only,
            fresh,
            yes,
            replay,
            executor or SequentialExecutor(),
            progress,
            command,
        )


def _run_locked(
    parts: ResolvedBakeOff,
    run: RunDir,
    names: Sequence[str],
    only: str | None,
    fresh: bool,
    yes: bool,
    replay: Path | str | None,
    executor: Executor,
    progress: Progress,
    command: str,
) -> Results:
    """Run the contenders of a locked run directory and return the results."""
    bakeoff = parts.bakeoff
    if fresh and only is None and (run.path / "bakeoff.yaml").exists():
        _check_nothing_paid(run)
        # Nothing is forgotten for a file that cannot be run.
        references.check_references(parts, prepare.load_examples(parts)[0]["test"])
        run.clear()
    examples, unusable = _load_examples(parts, run, progress, only if fresh else None)
    chosen = [c for c in bakeoff.contenders if only in (None, c.name)]
    options = _build_options(parts, run, examples["test"], chosen, progress, unusable)
    usable = [e for e in examples["test"] if e.id not in options.left_out]
    if len(names) > 1 and usable:
        progress.say(prepare.describe_test_power(parts, usable))
    recorded = None if replay is None else RunDir(Path(replay))
    work = {name: _build_context(parts, examples, run, name, progress, recorded) for name in names}
    ledger = Ledger(run.events, bakeoff.budget_usd, progress.spent)
    for contender in chosen:
        progress.status(contender.name, WAITING)
    forgotten = only if fresh else None
    work = attach_budgets(bakeoff, chosen, work, ledger, yes, forgotten, executor.load_contender)
    options = _attach_judge_budgets(options, bakeoff, ledger, progress)
    if fresh and only is not None:
        run.contender(only).clear()
        ledger.forget(only)
        save_config(run.path, bakeoff)
    save_plan(parts, examples, run)
    budget_error: BudgetError | None = None
    try:
        start_remote_jobs(chosen, work, executor)
        carry_out = partial(run_contender, parts, run, work, options, executor)
        run_contenders(carry_out, chosen, work, executor)
    except BudgetError as error:
        budget_error = error
    except KeyboardInterrupt:
        prompt_for_running_jobs(chosen, work, executor)
        raise
    loading.drop_cached_base()
    _report_uncertain_costs(run, progress)
    score_baselines(parts, run, examples, options, progress)
    results = add_labels(run, collect_results(parts, run, examples, options, command))
    _report_older_rules(bakeoff, run, progress)
    run.write_results(results)
    write_report(run)
    write_cards(run, results)
    if budget_error is not None:
        raise budget_error
    run.event("finished")
    return results


def _check_nothing_paid(run: RunDir) -> None:
    """Raise if `--fresh` of the whole run would forget paid work.

    That includes contenders that the file no longer names.
    """
    begun = {folder.path.name for folder in run.contenders() if folder.has_paid_work()}
    paid_for = sorted(begun | Ledger(run.events).names())
    if run.judgements.exists():
        raise RunDirectoryError(
            f"{run.path}: --fresh would forget what a judge said, which was paid for; add --only "
            "NAME to begin one contender anew, or give another --run-dir."
        )
    if paid_for:
        raise RunDirectoryError(
            f"{run.path}: --fresh would forget what was paid for (contender "
            f"{', '.join(paid_for)}); add --only NAME to pay for one again, or give another "
            "--run-dir."
        )


def _report_uncertain_costs(run: RunDir, progress: Progress) -> None:
    """Report costs that may have been billed."""
    ledger = Ledger(run.events)
    jobs = ledger.spent(what=TRAINING).uncertain
    answers = ledger.spent().uncertain - jobs
    for what, usd in (
        ("jobs that were not seen to end", jobs),
        ("answers that were lost", answers),
    ):
        if usd:
            progress.say(
                f"{what} may have been billed: up to ${usd:.4f} more than the costs that are "
                "shown; your provider's bill says."
            )


def _report_older_rules(bakeoff: BakeOff, run: RunDir, progress: Progress) -> None:
    """Report contenders scored by older rules; `--only` leaves the scores of the others."""
    firsts = {
        c.name: list_variants(c)[0].get_dir(run.contender(c.name)) for c in bakeoff.contenders
    }
    old = [
        name
        for name, folder in firsts.items()
        if folder.has_scores() and folder.scoring_rules() != RULES
    ]
    if old:
        progress.say(
            f"warning: {', '.join(old)}: scored by older rules than now; run without --only to "
            "score every contender by the same."
        )


def _load_examples(
    parts: ResolvedBakeOff, run: RunDir, progress: Progress, fresh: str | None
) -> tuple[Mapping[Split, Sequence[Example]], Mapping[str, str] | None]:
    """Return the run's own examples, or load and store the task's, with their unusable references.

    The unusable references are None if they were not searched for.
    """
    if run.has_data():
        open_run_dir(run.path, parts.bakeoff, fresh)
        run.save_today()
        data_update.resume_fresh_data(run)
        own = {split: run.examples(split) for split in SPLITS}
        data_update.warn_if_different(parts, run, own, progress)
        return own, None
    examples, warnings = prepare.load_examples(parts)
    unusable, doubts = references.check_references(parts, examples["test"])
    warnings += doubts
    open_run_dir(run.path, parts.bakeoff)
    run.save_today()
    for warning in warnings:
        progress.say(f"warning: {warning}")
        run.event("warning", text=warning)
    for split in SPLITS:
        rows = (data_update.build_row(example, parts) for example in examples[split])
        run.write_examples(split, rows)
    return examples, unusable


def _build_options(
    parts: ResolvedBakeOff,
    run: RunDir,
    test: Sequence[Example],
    chosen: Sequence[Any],
    progress: Progress,
    unusable: Mapping[str, str] | None,
) -> Options:
    """Return how answers are scored, with missing databases made and unusable references left out.

    Args:
        unusable: unusable references, where they were just searched for.

    Raises:
        DataError: too many references cannot be used, and there is work left to do.
    """
    folder = parts.task.databases(parts.settings, parts.place, run.data / "databases")
    count = parts.settings.derived_databases
    derived = references.derive_test_databases(parts, folder, test, run.data / "derived", count)
    options = replace(prepare.build_options(parts, folder, derived), judgements=run.judgements)
    left_out = unusable
    if left_out is None or derived is not None:  # these references were not checked yet
        left_out = references.find_unusable(parts, test, options)
    if left_out:
        if not all(_is_answered(run, settings, test) for settings in chosen):
            references.refuse_many(parts, left_out, len(test), FRESH_DATA_HINT)
        warning = references.explain_left_out(parts, left_out, len(test), FRESH_DATA_HINT)
        progress.say(f"warning: {warning}")
        run.event("warning", text=warning)
    return replace(options, left_out=left_out)


def _is_answered(run: RunDir, settings: Any, test: Sequence[Example]) -> bool:
    """Return whether every example has an answer from each variant of a contender."""
    folders = (variant.get_dir(run.contender(settings.name)) for variant in list_variants(settings))
    return not any(list_unanswered(settings, folder.answers(), test) for folder in folders)


def _attach_judge_budgets(
    options: Options, bakeoff: BakeOff, ledger: Ledger, progress: Progress
) -> Options:
    """Return the same options with the budgets of judges and graders that ask a model."""
    budget, unpriced = build_judge_budget(bakeoff, ledger)
    budgets, more = build_grader_budgets(bakeoff, ledger)
    for sentence in dict.fromkeys([unpriced, *more]):
        if sentence is not None:
            progress.say(f"warning: {sentence}")
    return replace(options, budget=budget, grader_budgets=budgets)


def _build_context(
    parts: ResolvedBakeOff,
    examples: Mapping[Split, Sequence[Example]],
    run: RunDir,
    name: str,
    progress: Progress,
    recorded: RunDir | None,
) -> ContenderContext:
    """Return a contender's context."""
    return ContenderContext(
        folder=parts.bakeoff.folder,
        train=examples["train"],
        validation=examples["validation"],
        test=examples["test"],
        template=replace(parts.template, today=run.today()),
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=run.contender(name),
        progress=progress,
        name=parts.bakeoff.name,
        replay=None if recorded is None else recorded.contender(name),
        measure=parts.bakeoff.measure,
    )
