"""Answers made elsewhere, or published figures without answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneoff.contender_settings import RecordedSettings
from tuneoff.contenders import Work
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import Example, Prediction
from tuneoff.scoring.stored import read_sample
from tuneoff.tasks.rows import read


def check(settings: RecordedSettings, folder: Path) -> None:
    """The predictions file must be there."""
    if settings.predictions is not None and not _file(settings, folder).is_file():
        raise ConfigError(
            f"contender {settings.name}: there is no predictions file "
            f"{_file(settings, folder)}; check the path."
        )


def ready(settings: RecordedSettings, work: Work) -> None:
    """Nothing is needed that `check` does not see."""


def model_name(settings: RecordedSettings) -> str:
    """What the file says the model was."""
    return settings.model or settings.name


def tune(settings: RecordedSettings, work: Work) -> None:
    """Nothing is trained; answers of a file that has changed since are read again."""
    if settings.predictions is None:
        return
    with _file(settings, work.folder).open("rb") as stream:
        work.directory.answers_of(hashlib.file_digest(stream, "sha256").hexdigest())


def answer(
    settings: RecordedSettings, work: Work, examples: Sequence[Example]
) -> Iterator[list[Prediction]]:
    """The file's answers; an example without one is a row with `error`.

    Raises:
        DataError: a row has no id or prediction, or an id is there twice (with the same sample).
    """
    if settings.predictions is None:
        return
    path = _file(settings, work.folder)
    found: dict[tuple[str, int], str] = {}
    for record in read(path, warn=lambda line: work.progress.say(f"warning: {line}")):
        row, where = record.row, record.where
        if not isinstance(row.get("id"), str) or not isinstance(row.get("prediction"), str):
            raise DataError(f"{where}: a row needs the texts id and prediction.")
        question = (row["id"], read_sample(row, where))
        if question in found:
            raise DataError(
                f"{where}: the id {row['id']!r} is there twice; ids must differ, or the rows say "
                'which `"sample"` they are (0, 1, …).'
            )
        found[question] = row["prediction"]
    ids = {example.id for example in work.test}
    samples = 1 + max((sample for id, sample in found if id in ids), default=0)
    # The last sample first: where the writing is cut, what is there says how many there are.
    wanted = [(e.id, sample) for e in work.test for sample in reversed(range(samples))]
    lacking = sum(question not in found for question in wanted)
    if lacking == len(wanted):
        raise DataError(
            f"{path}: none of its {len({id for id, _ in found})} ids is one of the "
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
    asked, missing = {e.id for e in examples}, "the predictions file has no answer to this example"
    yield [
        Prediction(id, found[id, sample], sample=sample)
        if (id, sample) in found
        else Prediction(id, "", error=missing, sample=sample)
        for id, sample in wanted
        if id in asked
    ]


def prompt_sha256(settings: RecordedSettings, work: Work) -> None:
    """No prompt was rendered here."""
    return


def _file(settings: RecordedSettings, folder: Path) -> Path:
    return (folder / Path(settings.predictions or "").expanduser()).resolve()
