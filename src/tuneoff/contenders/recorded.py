"""Answers made elsewhere, or published figures without answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneoff.config.contenders import RecordedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import Example, Prediction
from tuneoff.scoring.predictions_file import read_sample
from tuneoff.tasks.readers import read_records


def check(settings: RecordedConfig, folder: Path) -> None:
    """Raise ConfigError unless the predictions file exists."""
    if settings.predictions is not None and not _resolve_file(settings, folder).is_file():
        raise ConfigError(
            f"contender {settings.name}: there is no predictions file "
            f"{_resolve_file(settings, folder)}; check the path."
        )


def ready(settings: RecordedConfig, work: ContenderContext) -> None:
    """Do nothing: `check` sees all that is needed."""


def model_name(settings: RecordedConfig) -> str:
    """Return the model's name as the file gives it."""
    return settings.model or settings.name


def tune(settings: RecordedConfig, work: ContenderContext) -> None:
    """Drop stored answers if the predictions file has changed; nothing is trained."""
    if settings.predictions is None:
        return
    with _resolve_file(settings, work.folder).open("rb") as stream:
        work.directory.drop_answers_if_source_changed(
            hashlib.file_digest(stream, "sha256").hexdigest()
        )


def answer(
    settings: RecordedConfig, work: ContenderContext, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """Yield the file's answers; an example without one is a row with `error`.

    Raises:
        DataError: a row has no id or prediction, or an id appears twice with the same sample.
    """
    if settings.predictions is None:
        return
    path = _resolve_file(settings, work.folder)
    answers: dict[tuple[str, int], str] = {}
    for record in read_records(path, warn=lambda line: work.progress.say(f"warning: {line}")):
        row, where = record.row, record.where
        if not isinstance(row.get("id"), str) or not isinstance(row.get("prediction"), str):
            raise DataError(f"{where}: a row needs the texts id and prediction.")
        question = (row["id"], read_sample(row, where))
        if question in answers:
            raise DataError(
                f"{where}: the id {row['id']!r} is there twice; ids must differ, or the rows say "
                'which `"sample"` they are (0, 1, …).'
            )
        answers[question] = row["prediction"]
    ids = {example.id for example in work.test}
    samples = 1 + max((sample for id, sample in answers if id in ids), default=0)
    # The last sample comes first: if writing is interrupted, the rows still show how many samples
    # there are.
    wanted = [(e.id, sample) for e in work.test for sample in reversed(range(samples))]
    lacking = sum(question not in answers for question in wanted)
    if lacking == len(wanted):
        raise DataError(
            f"{path}: none of its {len({id for id, _ in answers})} ids is one of the "
            f"{len(work.test)} test examples; the run's data/test.jsonl has theirs."
        )
    if lacking:
        what = "test examples have no answer"
        if samples > 1:
            what = f"answers ({samples} to each test example) are not"
        work.progress.say(
            f"warning: {settings.name}: {lacking} of {len(wanted)} {what} in {path}; they count as "
            "wrong."
        )
    asked_ids, missing = (
        {e.id for e in examples},
        "the predictions file has no answer to this example",
    )
    yield [
        Prediction(id, answers[id, sample], sample=sample)
        if (id, sample) in answers
        else Prediction(id, "", error=missing, sample=sample)
        for id, sample in wanted
        if id in asked_ids
    ]


def prompt_sha256(settings: RecordedConfig, work: ContenderContext) -> None:
    """Return None: no prompt was rendered here."""
    return


def _resolve_file(settings: RecordedConfig, folder: Path) -> Path:
    """Return the path of the predictions file."""
    return (folder / Path(settings.predictions or "").expanduser()).resolve()
