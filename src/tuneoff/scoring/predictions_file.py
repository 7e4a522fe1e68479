"""Reads files of predictions from any source.

A predictions file is JSONL, one row per line: `{"id": "..", "prediction": ".."}`, or with its own
reference `{"id": "..", "reference": "..", "prediction": "..", "meta": {..}}`. A row may have
`error` (why there is no answer), and `sample` (0, 1, …) if each example was answered several times.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tuneoff.config.base import MAX_SAMPLES
from tuneoff.errors import DataError
from tuneoff.scoring.base import ScoringInput

References = Mapping[str, tuple[str, Mapping[str, Any]]]
_FORM = '{"id": "..", "prediction": ".."}'


def check_rows(path: Path, references: References | None = None) -> tuple[int, int]:
    """Check a whole predictions file, and return its number of rows and of samples.

    An error in its last line is thereby found before anything is scored.

    Args:
        references: example id → reference and meta, for rows without their own.

    Raises:
        DataError: the file is missing or empty, a line cannot be used, or an id occurs twice (with
            the same sample); the message names file and line.
    """
    hashes, samples = array("Q"), 1
    for _, row in _read_numbered_rows(path, references):
        hashes.append(_hash_row(row))
        samples = max(samples, row.sample + 1)
    if not hashes:
        raise DataError(f"{path}: the file is empty; give one JSON object a line, {_FORM}.")
    _refuse_repeated(path, references, hashes)
    return len(hashes), samples


def read_rows(
    path: Path, references: References | None = None, is_preferred: bool = False
) -> Iterator[ScoringInput]:
    """Yield the rows of a predictions file (`check_rows`), read as they are used.

    Args:
        is_preferred: whether `references` replace the rows' own.
    """
    for number, value in read_objects(path):
        yield _build_row(value, references or {}, f"{path}:{number}", is_preferred)


def _refuse_repeated(path: Path, references: References | None, hashes: array[int]) -> None:
    """Raise if an id occurs twice.

    Eight bytes per row show which ids may be repeated; only these are compared as text.
    """
    import numpy as np

    values, times = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_counts=True)
    suspects = {int(value) for value in values[times > 1]}
    first_lines: dict[tuple[str, int], int] = {}
    for number, row in _read_numbered_rows(path, references) if suspects else ():
        if _hash_row(row) not in suspects:
            continue
        question = (row.id, row.sample)
        if question in first_lines:
            raise DataError(
                f"{path}:{number}: the id {row.id!r} was already given on line "
                f"{first_lines[question]}; keep one row for each id, or say which "
                '"sample" each row is (0, 1, …).'
            )
        first_lines[question] = number


def _hash_row(row: ScoringInput) -> int:
    name = f"{row.sample} {row.id}"
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _read_numbered_rows(
    path: Path, references: References | None
) -> Iterator[tuple[int, ScoringInput]]:
    for number, value in read_objects(path):
        yield number, _build_row(value, references or {}, f"{path}:{number}")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of each line that is not blank.

    Raises:
        DataError: there is no such file, or a line is not an object; the message names the line.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; give a JSONL file of predictions.")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                value = json.loads(text) if text.strip() else None
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}:{number}: this line is not JSON ({error}); "
                    f"write one object a line, {_FORM}."
                ) from None
            if isinstance(value, dict):
                yield number, value
            elif text.strip():
                raise DataError(
                    f"{path}:{number}: got a JSON {type(value).__name__}, not an object; "
                    f"write one object a line, {_FORM}."
                )


def read_id(value: Mapping[str, Any], where: str) -> str:
    """Return a row's id.

    Raises:
        DataError: the row has none.
    """
    id = value.get("id")
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str) or not id:
        raise DataError(f'{where}: the row has no "id" (a text); write {_FORM}.')
    return id


def _build_row(
    value: dict[str, Any], references: References, where: str, is_preferred: bool = False
) -> ScoringInput:
    id = read_id(value, where)
    known, known_meta = references.get(id, (None, {}))
    reference = value.get("reference")
    if known is not None and (is_preferred or reference is None):
        reference = known
    if reference is None:
        raise DataError(
            f"{where}: the row has no reference and its id {id!r} is not one of the "
            f'{len(references)} known examples; add "reference", or correct the id.'
        )
    prediction, error = value.get("prediction"), value.get("error")
    if prediction is None and error is not None:
        prediction = ""
    if prediction is None:
        raise DataError(f'{where}: the row {id!r} has no "prediction"; write {_FORM}.')
    meta = value.get("meta") or {}
    for name, got in (("reference", reference), ("prediction", prediction)):
        if not isinstance(got, str):
            raise DataError(f'{where}: "{name}" of {id!r} must be a text, got {got!r:.40}.')
    if not isinstance(meta, dict):
        raise DataError(f'{where}: "meta" of {id!r} must be an object, got {meta!r:.40}.')
    shown = None if error is None else str(error)
    sample = read_sample(value, where)
    return ScoringInput(id, reference, prediction, {**known_meta, **meta}, shown, sample=sample)


def read_sample(row: Mapping[str, Any], where: str) -> int:
    """Return a row's sample number; 0 if it has none.

    Raises:
        DataError: a run would not write this number.
    """
    sample = row.get("sample", 0)
    if type(sample) is not int or not 0 <= sample < MAX_SAMPLES:
        raise DataError(
            f'{where}: "sample" must be a whole number from 0 to {MAX_SAMPLES - 1}, got '
            f"{sample!r:.40}."
        )
    return sample
