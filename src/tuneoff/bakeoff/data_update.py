"""`run --fresh-data`: takes changed data files into a run, and keeps the work that still holds.

The training data must be unchanged. A test row with another reference or `meta` is scored again; a
test row with a new input is sent to the models again. The new rows and the fate of each answer are
first written to one file, `data/fresh-data.json`. Whoever opens the run carries it out and then
deletes it, so a kill in between loses nothing. Earlier answers stay in each contender's
`answers-before/`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.bakeoff import prepare, references
from tuneoff.bakeoff.budget import RepeatCost, compute_max_repeat_cost
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.contenders.samples import split_by_sample
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.progress import Progress
from tuneoff.prompts import render_messages
from tuneoff.records import SPLITS, Example, Prediction, Split, to_dict
from tuneoff.storage.files import read_lines, remove_folder, write_lines, write_text
from tuneoff.storage.run_dir import ContenderDir, RunDir
from tuneoff.tasks.splits import build_input_key

Examples = Mapping[Split, Sequence[Example]]
_JOURNAL_FILE = "fresh-data.json"
_BACKUP_DIR = "answers-before"
# What training writes to a contender's folder, complete or not.
_TRAINING_FILES = ("training.json", "job.json", "loss.jsonl", "learning_rates.jsonl", "checkpoints")


@dataclass(frozen=True, slots=True)
class DataDifference:
    """The difference between the data files and a run's own data."""

    train: bool
    validation: bool
    test: bool
    judged: tuple[str, ...]
    """Ids of test rows with another reference."""
    meta_changed: tuple[str, ...]
    """Ids of test rows where only `meta` differs."""
    asked: tuple[str, ...]
    """Ids of test rows with a new input."""
    removed: int
    """The number of the run's test rows that are gone."""
    kept: Mapping[str, str]
    """New id → the id of the run's row with the same input, for the other test rows."""

    def __bool__(self) -> bool:
        return self.train or self.validation or self.test

    @property
    def has_moved_answers(self) -> bool:
        """Return whether answers must be generated, dropped or given another id."""
        return bool(self.asked or self.removed) or any(new != old for new, old in self.kept.items())

    def words(self) -> str:
        """Return the difference as part of a sentence."""
        counts = (
            (len(self.asked), "with new inputs"),
            (len(self.judged), "with other references"),
            (len(self.meta_changed), "with other meta"),
            (self.removed, "gone"),
        )
        parts = [f"{count} test {_pluralize_row(count)} {kind}" for count, kind in counts if count]
        if self.test and not parts:
            parts = ["test rows with other ids or in another order"]
        parts = [*(["train rows"] * self.train), *(["validation rows"] * self.validation), *parts]
        return ", ".join(parts)


def compare_examples(own: Examples, new: Examples) -> DataDifference:
    """Return the difference between a run's own examples and new ones."""
    before = {example.id: example for example in own["test"]}
    by_input = {build_input_key(example): example.id for example in reversed(own["test"])}
    kept: dict[str, str] = {}
    for example in new["test"]:
        key, same = build_input_key(example), before.get(example.id)
        if same is not None and build_input_key(same) == key:
            kept[example.id] = example.id
        elif key in by_input:
            kept[example.id] = by_input[key]
    pairs = [(e, before[kept[e.id]]) for e in new["test"] if e.id in kept]
    judged = tuple(now.id for now, was in pairs if _get_answer(now) != _get_answer(was))
    described = tuple(
        now.id
        for now, was in pairs
        if _get_answer(now) == _get_answer(was)
        and _build_plain_row(now)["meta"] != _build_plain_row(was)["meta"]
    )
    return DataDifference(
        train=_list_trained_pairs(own["train"]) != _list_trained_pairs(new["train"]),
        validation=_list_trained_pairs(own["validation"]) != _list_trained_pairs(new["validation"]),
        test=[_normalize_row(e) for e in own["test"]] != [_normalize_row(e) for e in new["test"]],
        judged=judged,
        meta_changed=described,
        asked=tuple(example.id for example in new["test"] if example.id not in kept),
        removed=len(before.keys() - set(kept.values())),
        kept=kept,
    )


def warn_if_different(
    parts: ResolvedBakeOff, run: RunDir, own: Examples, progress: Progress
) -> None:
    """Warn if the files differ from the data that the run uses."""
    if parts.settings.source == "sample" or not own["test"] or not prepare.is_local(parts):
        return
    try:
        new, _ = prepare.choose_examples(parts)
        difference = compare_examples(own, new)
    except Exception:  # a run that has its own data does not need files that it cannot read
        return
    if difference:
        todo = "--fresh-data takes them anew"
        if _is_refused(run, difference):
            todo = "to begin with them, give another --run-dir"
        progress.say(
            f"warning: the data files, as they are read now, differ from this run's own data "
            f"({difference.words()}), with which it goes on; {todo}."
        )


def apply_fresh_data(parts: ResolvedBakeOff, run: RunDir, yes: bool, progress: Progress) -> None:
    """Replace a run's data by the files, and keep the work that still holds.

    Raises:
        UserError: the files cannot be used, train rows changed, or it costs money and nobody agreed
            (`yes`, or the prompt). Nothing was changed.
        BudgetError: the cost could exceed the budget. Nothing was changed.
    """
    new, warnings = prepare.load_examples(parts)
    difference = compare_examples(_read_examples(run), new)
    _refuse_mixed_data(run, difference)
    _, doubts = references.check_references(parts, new["test"])
    warnings += doubts
    cost = _compute_cost(parts, run, new, difference)
    if cost:
        Ledger(run.events, parts.bakeoff.budget_usd).check_budget(cost.usd, "what is asked again")
        if not yes and not progress.ask(f"{cost.describe()} Go on?"):
            raise ConfigError(f"{cost.describe()} Say --yes as well to agree; nothing was changed.")
    for warning in warnings:
        progress.say(f"warning: {warning}")
    # These were made from the earlier databases and references.
    remove_folder(run.data / "derived")
    if not difference:
        progress.say("the data files are as they were; all answers are kept.")
        return
    rows = {
        split: [build_row(e, parts) for e in new[split]]
        for split in _list_changed_splits(difference)
    }
    journal = {
        "id": secrets.token_hex(6),
        "rows": rows,
        "kept": difference.kept,
        "answers_move": difference.has_moved_answers,
        "words": difference.words(),
    }
    write_text(run.data / _JOURNAL_FILE, json.dumps(journal, ensure_ascii=True))
    progress.say(f"the data files are taken anew: {difference.words()}.")
    resume_fresh_data(run)


def resume_fresh_data(run: RunDir) -> None:
    """Carry out `fresh-data.json`, if it exists, also after an interruption."""
    path = run.data / _JOURNAL_FILE
    if not path.exists():
        return
    journal = json.loads(path.read_bytes())
    for split, rows in journal["rows"].items():
        run.write_examples(split, rows)
    for folder in _list_answer_dirs(run):
        if journal["answers_move"]:
            _move_answers(folder.path, journal)
        for name in ("scores.jsonl", "details.jsonl"):
            (folder.path / name).unlink(missing_ok=True)
    (run.data / "groups.jsonl").unlink(missing_ok=True)
    remove_folder(run.data / "derived")
    run.event("fresh data", changed=journal["words"])
    path.unlink()


def build_row(example: Example, parts: ResolvedBakeOff) -> dict[str, Any]:
    """Return an example as a stored row, with its chat messages for other readers."""
    return {
        **to_dict(example),
        "messages": render_messages(example, parts.template),
        "sha256": example.sha256(),
    }


def _list_changed_splits(difference: DataDifference) -> list[Split]:
    changed: dict[Split, bool] = {"test": difference.test, "validation": difference.validation}
    return [split for split, is_other in changed.items() if is_other]


def _read_examples(run: RunDir) -> Examples:
    return {split: run.examples(split) for split in SPLITS}


def _build_plain_row(example: Example) -> dict[str, Any]:
    return to_dict(example)


def _list_trained_pairs(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(build_input_key(example), _get_answer(example)) for example in examples]


def _get_answer(example: Example) -> str:
    """Return the answer, stripped: earlier versions did not keep outer blanks."""
    return example.completion.strip()


def _normalize_row(example: Example) -> dict[str, Any]:
    return {
        **_build_plain_row(example),
        "inputs": example.content(),
        "completion": _get_answer(example),
    }


def _pluralize_row(count: int) -> str:
    return "row" if count == 1 else "rows"


def _list_answer_dirs(run: RunDir) -> Iterator[ContenderDir]:
    """Yield every folder that may hold answers: contenders, their seeds and fractions."""
    for contender in run.contenders():
        yield contender
        for ending in ("seed-*", "part-*"):
            yield from map(ContenderDir, sorted(contender.path.glob(ending)))


def _is_refused(run: RunDir, difference: DataDifference) -> bool:
    return difference.train or (difference.validation and _has_trained(run))


def _has_trained(run: RunDir) -> bool:
    return any(
        (folder.path / name).exists()
        for folder in _list_answer_dirs(run)
        for name in _TRAINING_FILES
    )


def _refuse_mixed_data(run: RunDir, difference: DataDifference) -> None:
    """Raise if a run's parts would belong to different data."""
    if _is_refused(run, difference):
        which = (
            "train rows" if difference.train else "validation rows, which have steered training,"
        )
        raise RunDirectoryError(
            f"{run.path}: --fresh-data: {which} have changed, so what was trained is of other data;"
            " undo the change, or give another --run-dir."
        )
    if difference.has_moved_answers:
        for folder in _list_answer_dirs(run):
            if any(not batch["read"] for batch in folder.batches()):
                raise RunDirectoryError(
                    f"{run.path}: --fresh-data: a batch of answers to the earlier inputs is under "
                    f"way for contender {folder.path.name}; run without --fresh-data once more to "
                    "have its answers, then with it."
                )


def _compute_cost(
    parts: ResolvedBakeOff, run: RunDir, new: Examples, difference: DataDifference
) -> RepeatCost:
    """Return the most that providers may bill because the data changed.

    It covers the contenders that have answers, and their judge.
    """
    asked = set(difference.asked)
    judged = asked | set(difference.judged)
    return compute_max_repeat_cost(
        parts,
        {
            settings.name: [
                answers
                for folder in _list_answer_dirs(run)
                if run.contender(settings.name).path in (folder.path, folder.path.parent)
                for answers in _read_samples(settings, folder)
            ]
            for settings in parts.bakeoff.contenders
        },
        prepare.build_context(parts, {**new, "test": [e for e in new["test"] if e.id in asked]}),
        [e for e in new["test"] if e.id in judged],
        difference.kept,
    )


def _read_samples(settings: Any, folder: ContenderDir) -> list[dict[str, Prediction]]:
    """Return the answers of each sample by id; an empty list without answers."""
    samples = split_by_sample(settings, folder)
    return samples if any(samples) else []


def _move_answers(folder: Path, journal: Mapping[str, Any]) -> None:
    """Keep the answers whose inputs are still in the data, under their new ids.

    All earlier answers are saved first and read from there, so the step can be repeated.
    """
    answers, before = folder / "predictions.jsonl", folder / _BACKUP_DIR / f"{journal['id']}.jsonl"
    if not before.exists():
        if not answers.exists():
            return
        write_lines(before, read_lines(answers))
    (folder / "prompt.json").unlink(missing_ok=True)
    if (folder / "recorded.json").exists():  # recorded answers have ids and no inputs
        answers.unlink(missing_ok=True)
        return
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for row in read_lines(before):
        rows.setdefault(row["id"], {}).setdefault(row.get("sample", 0), row)
    kept = ((new, rows.get(old, {}).values()) for new, old in journal["kept"].items())
    write_lines(answers, ({**row, "id": new} for new, of in kept for row in of))
