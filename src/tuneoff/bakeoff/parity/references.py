"""Finds the examples that answers belong to: references, inputs and meta, joined by id."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.parity.sides import ParityOptions, format_first_ids, refuse_differing
from tuneoff.bakeoff.score import find_own_test_set
from tuneoff.errors import DataError
from tuneoff.records import Example
from tuneoff.scoring.base import ScoringInput
from tuneoff.scoring.predictions_file import check_rows, read_id, read_objects, read_rows
from tuneoff.tasks import chat
from tuneoff.tasks.base import load_task
from tuneoff.tasks.readers import read_records

# The keys of inputs that a row of references may have.
INPUT_KEYS = ("input", "prompt", "question", "context", "sentence")


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A file of answers: its ids in order, and the references and meta of its rows."""

    path: Path
    ids: Mapping[str, None]
    references: Mapping[str, str]
    meta: Mapping[str, Mapping[str, Any]]


def scan_answers(path: Path) -> AnswerFile:
    """Return the ids, references and meta of a file of answers.

    Raises:
        DataError: it is missing or empty, or a line of it cannot be used.
    """
    ids: dict[str, None] = {}
    references: dict[str, str] = {}
    meta: dict[str, Mapping[str, Any]] = {}
    for number, value in read_objects(path):
        id = read_id(value, f"{path}:{number}")
        ids[id] = None
        if isinstance(value.get("reference"), str):
            reference = references.setdefault(id, value["reference"])
            if reference.strip() != value["reference"].strip():
                raise DataError(
                    f"{path}:{number}: the id {id!r} has another reference than in a line before; "
                    "correct it."
                )
        if isinstance(value.get("meta"), dict):
            meta[id] = {**meta.get(id, {}), **value["meta"]}
    if not ids:
        check_rows(path)  # raises the error
    return AnswerFile(path, ids, references, meta)


def join_examples(
    files: Sequence[AnswerFile],
    of_runs: Mapping[str, Example],
    common: Collection[str],
    how: ParityOptions,
) -> tuple[dict[str, Example], prepare.ResolvedBakeOff | None]:
    """Return the example of each common id, and the task's own test set if it was needed.

    Raises:
        DataError: a reference is missing, or differs.
    """
    if how.references is not None:
        named = read_references(how.references)
        known, parts = {**of_runs, **dict(_add_inputs(named, of_runs))}, None
    else:
        known, parts = _collect_references(files, of_runs, common), None
        if how.source is not None or any(id not in known for id in common):
            own, parts = _load_test_set(files, how, [id for id in common if id not in known])
            known = {**known, **own}
    missing = [id for id in common if id not in known]
    if missing and how.references is not None:
        own = _collect_references(files, of_runs, common)
        known = {**{id: own[id] for id in missing if id in own}, **known}
        missing = [id for id in missing if id not in known]
    if missing:
        where = ""
        if how.references is not None:
            where = f" in {how.references}, whose ids are {format_first_ids(list(named))}"
        raise DataError(
            f"{len(missing)} of {len(common)} common ids have no reference "
            f'({format_first_ids(missing)}){where}; add "reference" to their rows, or give '
            "--references FILE (rows of id and reference, or the data file)."
        )
    examples = {}
    for id in common:
        meta: dict[str, Any] = {}
        for each in files:  # the reference's file comes first
            meta = {**each.meta.get(id, {}), **meta}
        examples[id] = Example(
            id, known[id].inputs, known[id].completion, {**known[id].meta, **meta}
        )
    return examples, parts


def _add_inputs(
    named: Mapping[str, Example], of_runs: Mapping[str, Example]
) -> Iterator[tuple[str, Example]]:
    """Yield the given references, with the inputs and meta of runs."""
    for id, example in named.items():
        run = of_runs.get(id, example)
        meta = {**run.meta, **example.meta}
        yield id, Example(id, example.inputs or run.inputs, example.completion, meta)


def _collect_references(
    files: Sequence[AnswerFile], of_runs: Mapping[str, Example], common: Collection[str]
) -> dict[str, Example]:
    """Return the references that runs and rows have themselves.

    Raises:
        DataError: they differ.
    """
    by_id = {id: of_runs[id] for id in common if id in of_runs}
    first: dict[str, str] = dict.fromkeys(by_id, "the run")
    for each in files:
        differing: dict[str, list[str]] = {}
        for id, reference in each.references.items():
            if id not in common:
                continue
            if id not in by_id:
                by_id[id], first[id] = Example(id, {}, reference), str(each.path)
            elif by_id[id].completion.strip() != reference.strip():
                differing.setdefault(first[id], []).append(id)
        for other, ids in differing.items():
            advice = "correct the ids, or say with --references FILE which holds"
            refuse_differing(other, str(each.path), ids, "reference", advice)
    return by_id


def _load_test_set(
    files: Sequence[AnswerFile], how: ParityOptions, missing: Sequence[str]
) -> tuple[dict[str, Example], prepare.ResolvedBakeOff | None]:
    """Return the task's own test set by id; empty if it has none."""
    task = how.task or "chat"
    if not load_task(task).SOURCES and how.source is None:
        return {}, None
    parts = find_own_test_set(task, how.source)
    try:
        examples, _ = prepare.load_examples(parts)
    except DataError as error:
        if not missing:
            raise
        raise DataError(
            f"{error} ({len(missing)} rows without a reference need the task's test set; or give "
            "--references FILE.)"
        ) from None
    return {example.id: example for example in examples["test"]}, parts


def read_references(path: Path) -> dict[str, Example]:
    """Return the examples of a file by id: rows of `id` and `reference`, or any data file.

    Raises:
        DataError: a row cannot be used, or an id is there twice with different references.
    """
    by_id: dict[str, Example] = {}
    first = next(read_records(path)).row
    is_plain = isinstance(first.get("reference"), str) and "messages" not in first
    for example in _read_plain_references(path) if is_plain else _read_data(path):
        known = by_id.setdefault(example.id, example)
        if known.completion.strip() != example.completion.strip():
            raise DataError(
                f"{path}: the id {example.id!r} is there twice, with different references; keep "
                "one."
            )
    return by_id


def _read_data(path: Path) -> list[Example]:
    """Return the examples of a data file."""
    try:
        return chat.read_examples(path)
    except DataError as error:
        raise DataError(
            f"{error} (--references takes rows of id and reference, or a data file.)"
        ) from None


def _read_plain_references(path: Path) -> list[Example]:
    """Return the examples of rows of `id` and `reference`."""
    examples = []
    for record in read_records(path):
        row = record.row
        id, reference = read_id(row, record.where), row.get("reference")
        if not isinstance(reference, str):
            raise DataError(f'{record.where}: "reference" of {id!r} must be a text.')
        inputs = {key: row[key] for key in INPUT_KEYS if key in row}
        meta = row.get("meta")
        examples.append(Example(id, inputs, reference, meta if isinstance(meta, dict) else {}))
    return examples


def build_file_rows(
    file: AnswerFile, examples: Mapping[str, Example]
) -> tuple[list[ScoringInput], int]:
    """Return a file's rows of these examples, and the number of answers per example.

    Raises:
        DataError: a row has no prediction, or an id is there twice.
    """
    # Ids that are left out need no reference.
    known: dict[str, tuple[str, Mapping[str, Any]]] = {id: ("", {}) for id in file.ids}
    known |= {id: (e.completion, e.meta) for id, e in examples.items()}
    _, samples = check_rows(file.path, known)
    rows = [
        ScoringInput(
            row.id,
            row.reference,
            row.raw_prediction,
            examples[row.id].meta,
            row.error,
            examples[row.id].inputs,
            sample=row.sample,
        )
        for row in read_rows(file.path, known, is_preferred=True)
        if row.id in examples
    ]
    return rows, samples
