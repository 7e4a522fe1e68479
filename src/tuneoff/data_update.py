"""`run --fresh-data`: a run takes its files anew, and keeps of its work whatever still holds.

What was trained on must be the same. A test row of which only the reference or `meta` changed is
scored again; one whose input is new is asked again. The new rows and what becomes of the answers
are first written as one file, `data/fresh-data.json`; whoever opens the run carries out what it
says, and only then it goes. So a kill in between loses nothing. Earlier answers stay on disk, in
each contender's `answers-before/`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff import prepare, references
from tuneoff.contenders.samples import divide_answers
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.files import read_lines, remove_folder, write_lines, write_text
from tuneoff.prepare import Parts
from tuneoff.progress import Progress
from tuneoff.prompts import messages
from tuneoff.records import SPLITS, Example, Prediction, Split, to_dict
from tuneoff.rundir import ContenderDir, RunDir
from tuneoff.spending import Again, most_again
from tuneoff.tasks.splits import input_key

Examples = Mapping[Split, Sequence[Example]]
_JOURNAL = "fresh-data.json"
_BEFORE = "answers-before"
# What training leaves in a contender's folder, complete or not.
_OF_TRAINING = ("training.json", "job.json", "loss.jsonl", "learning_rates.jsonl", "checkpoints")


@dataclass(frozen=True, slots=True)
class Difference:
    """What is other in the files than in a run's own data.

    Of the test set by id: `judged` are the rows with another reference, `described` those with
    other `meta` alone, `asked` those whose input is new. `kept` says for each other row which of
    the run's rows has the same input; `answers_move` whether any answer is to be had, dropped or
    called otherwise.
    """

    train: bool
    validation: bool
    test: bool
    judged: tuple[str, ...]
    described: tuple[str, ...]
    asked: tuple[str, ...]
    removed: int
    kept: Mapping[str, str]

    def __bool__(self) -> bool:
        return self.train or self.validation or self.test

    @property
    def answers_move(self) -> bool:
        """Say whether answers are to be asked, dropped or given another id."""
        return bool(self.asked or self.removed) or any(new != old for new, old in self.kept.items())

    def words(self) -> str:
        """Describe the difference as part of a sentence."""
        counts = (
            (len(self.asked), "with new inputs"),
            (len(self.judged), "with other references"),
            (len(self.described), "with other meta"),
            (self.removed, "gone"),
        )
        found = [f"{count} test {_rows(count)} {what}" for count, what in counts if count]
        if self.test and not found:
            found = ["test rows with other ids or in another order"]
        found = [*(["train rows"] * self.train), *(["validation rows"] * self.validation), *found]
        return ", ".join(found)


def compare_examples(own: Examples, new: Examples) -> Difference:
    """Compare new examples with a run's own; return the difference."""
    before = {example.id: example for example in own["test"]}
    by_input = {input_key(example): example.id for example in reversed(own["test"])}
    kept: dict[str, str] = {}
    for example in new["test"]:
        key, same = input_key(example), before.get(example.id)
        if same is not None and input_key(same) == key:
            kept[example.id] = example.id
        elif key in by_input:
            kept[example.id] = by_input[key]
    pairs = [(e, before[kept[e.id]]) for e in new["test"] if e.id in kept]
    judged = tuple(now.id for now, was in pairs if _answer(now) != _answer(was))
    described = tuple(
        now.id
        for now, was in pairs
        if _answer(now) == _answer(was) and _plain(now)["meta"] != _plain(was)["meta"]
    )
    return Difference(
        train=_learned(own["train"]) != _learned(new["train"]),
        validation=_learned(own["validation"]) != _learned(new["validation"]),
        test=[_known(e) for e in own["test"]] != [_known(e) for e in new["test"]],
        judged=judged,
        described=described,
        asked=tuple(example.id for example in new["test"] if example.id not in kept),
        removed=len(before.keys() - set(kept.values())),
        kept=kept,
    )


def warn_if_different(parts: Parts, run: RunDir, own: Examples, progress: Progress) -> None:
    """Says in a line that the files are no longer what the run goes on with."""
    if parts.settings.source == "sample" or not own["test"] or not prepare.is_local(parts):
        return
    try:
        new, _ = prepare.choose_examples(parts)
        found = compare_examples(own, new)
    except Exception:  # a run that has its own data does not need files that it cannot read
        return
    if found:
        todo = "--fresh-data takes them anew"
        if _is_refused(run, found):
            todo = "to begin with them, give another --run-dir"
        progress.say(
            f"warning: the data files, as they are read now, differ from this run's own data "
            f"({found.words()}), with which it goes on; {todo}."
        )


def take_files(parts: Parts, run: RunDir, yes: bool, progress: Progress) -> None:
    """Brings a run's data to what the files are now; what still holds is kept.

    Raises:
        UserError: the files cannot be used, train rows changed, or it costs money and nobody says
            `yes`, here or when asked. Nothing was changed.
        BudgetError: it could pass the budget; the same holds.
    """
    new, warnings = prepare.data(parts)
    found = compare_examples(_examples_of(run), new)
    _refuse(run, found)
    _, doubts = references.check_references(parts, new["test"])
    warnings += doubts
    cost = _cost(parts, run, new, found)
    if cost:
        Ledger(run.events, parts.bakeoff.budget_usd).refuse_over(cost.usd, "what is asked again")
        if not yes and not progress.ask(f"{cost.words()} Go on?"):
            raise ConfigError(f"{cost.words()} Say --yes as well to agree; nothing was changed.")
    for warning in warnings:
        progress.say(f"warning: {warning}")
    # Made of databases and references as they were.
    remove_folder(run.data / "derived")
    if not found:
        progress.say("the data files are as they were; all answers are kept.")
        return
    rows = {split: [build_row(e, parts) for e in new[split]] for split in _taken(found)}
    journal = {"id": secrets.token_hex(6), "rows": rows, "kept": found.kept,
               "answers_move": found.answers_move, "words": found.words()}  # fmt: skip
    write_text(run.data / _JOURNAL, json.dumps(journal, ensure_ascii=True))
    progress.say(f"the data files are taken anew: {found.words()}.")
    complete_taking(run)


def complete_taking(run: RunDir) -> None:
    """Carries out what `fresh-data.json` says, if it is there, from wherever that was cut."""
    path = run.data / _JOURNAL
    if not path.exists():
        return
    journal = json.loads(path.read_bytes())
    for split, rows in journal["rows"].items():
        run.write_examples(split, rows)
    for folder in _folders(run):
        if journal["answers_move"]:
            _move_answers(folder.path, journal)
        for name in ("scores.jsonl", "details.jsonl"):
            (folder.path / name).unlink(missing_ok=True)
    (run.data / "groups.jsonl").unlink(missing_ok=True)
    remove_folder(run.data / "derived")
    run.event("fresh data", changed=journal["words"])
    path.unlink()


def build_row(example: Example, parts: Parts) -> dict[str, Any]:
    """An example as it is written down, with its chat rendering to be read by others."""
    return {
        **to_dict(example),
        "messages": messages(example, parts.template),
        "sha256": example.sha256(),
    }


def _taken(found: Difference) -> list[Split]:
    changed: dict[Split, bool] = {"test": found.test, "validation": found.validation}
    return [split for split, is_other in changed.items() if is_other]


def _examples_of(run: RunDir) -> Examples:
    return {split: run.examples(split) for split in SPLITS}


def _plain(example: Example) -> dict[str, Any]:
    return to_dict(example)


def _learned(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(input_key(example), _answer(example)) for example in examples]


def _answer(example: Example) -> str:
    """Return the answer without the blanks around it, which earlier versions did not keep."""
    return example.completion.strip()


def _known(example: Example) -> dict[str, Any]:
    return {**_plain(example), "inputs": example.content(), "completion": _answer(example)}


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


def _folders(run: RunDir) -> Iterator[ContenderDir]:
    """Yield every folder that may hold answers: each contender's, and those of its trainings."""
    for contender in run.contenders():
        yield contender
        for ending in ("seed-*", "part-*"):
            yield from map(ContenderDir, sorted(contender.path.glob(ending)))


def _is_refused(run: RunDir, found: Difference) -> bool:
    return found.train or (found.validation and _has_trained(run))


def _has_trained(run: RunDir) -> bool:
    return any((folder.path / name).exists() for folder in _folders(run) for name in _OF_TRAINING)


def _refuse(run: RunDir, found: Difference) -> None:
    """Refuses what would make a run's parts belong to different data."""
    if _is_refused(run, found):
        which = "train rows" if found.train else "validation rows, which have steered training,"
        raise RunDirectoryError(
            f"{run.path}: --fresh-data: {which} have changed, so what was trained is of other data;"
            " undo the change, or give another --run-dir."
        )
    if found.answers_move:
        for folder in _folders(run):
            if any(not batch["read"] for batch in folder.batches()):
                raise RunDirectoryError(
                    f"{run.path}: --fresh-data: a batch of answers to the earlier inputs is under "
                    f"way for contender {folder.path.name}; run without --fresh-data once more to "
                    "have its answers, then with it."
                )


def _cost(parts: Parts, run: RunDir, new: Examples, found: Difference) -> Again:
    """Return the most that providers may bill because the data changed: for contenders that have
    answers, and for a judge of theirs."""
    asked = set(found.asked)
    judged = asked | set(found.judged)
    return most_again(
        parts,
        {
            settings.name: [
                answers
                for folder in _folders(run)
                if run.contender(settings.name).path in (folder.path, folder.path.parent)
                for answers in _by_sample(settings, folder)
            ]
            for settings in parts.bakeoff.contenders
        },
        prepare.build_work(parts, {**new, "test": [e for e in new["test"] if e.id in asked]}),
        [e for e in new["test"] if e.id in judged],
        found.kept,
    )


def _by_sample(settings: Any, folder: ContenderDir) -> list[dict[str, Prediction]]:
    """Return the answers that count, by id, of each sample; none where there are no answers."""
    samples = divide_answers(settings, folder)
    return samples if any(samples) else []


def _move_answers(folder: Path, journal: Mapping[str, Any]) -> None:
    """Leaves a folder the answers to inputs that are still asked, under their ids of now. All that
    there were are kept first, and read from there, so that this can be done again."""
    answers, before = folder / "predictions.jsonl", folder / _BEFORE / f"{journal['id']}.jsonl"
    if not before.exists():
        if not answers.exists():
            return
        write_lines(before, read_lines(answers))
    (folder / "prompt.json").unlink(missing_ok=True)
    if (folder / "recorded.json").exists():  # its file knows ids, and no inputs
        answers.unlink(missing_ok=True)
        return
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for row in read_lines(before):
        rows.setdefault(row["id"], {}).setdefault(row.get("sample", 0), row)
    kept = ((new, rows.get(old, {}).values()) for new, old in journal["kept"].items())
    write_lines(answers, ({**row, "id": new} for new, of in kept for row in of))
