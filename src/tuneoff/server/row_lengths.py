"""Finds rows of training files that are too long for a base, before a job is created."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneoff.contenders.length_check import find_too_long
from tuneoff.records import Example
from tuneoff.tasks.training_rows import split_answer
from tuneoff.tokenization.offline import load_counter

# Bytes checked while a client waits: some seconds. Longer files are checked when their job starts.
MAX_BYTES = 4 * 1024**2


def find_long_row(
    path: Path, base: str, name: str, model: str, most_bytes: int | None = MAX_BYTES
) -> str | None:
    """Return the error about a row with more tokens than the base has positions, or None.

    Args:
        base: what the model is loaded from.
        name: the file's use, `training` or `validation`.
        most_bytes: check the longest rows up to this many bytes in all; None: check every row.
    """
    counter = load_counter(base)
    if counter is None or not path.is_file():
        return None
    too_long = find_too_long(base, _read_long_examples(path, counter.positions // 2, most_bytes))
    if too_long is None:
        return None
    example, tokens, positions = too_long
    return (
        f"Line {example.id} of the {name} file has {tokens} tokens, more than the {positions} "
        f"positions of {model}. Shorten that example or leave it out, upload the file again, and "
        "create a job with it."
    )


def _read_long_examples(path: Path, least: int, most_bytes: int | None) -> Iterator[Example]:
    """Yield the rows of more than `least` bytes, the longest first, up to `most_bytes` in all.

    Their ids are their line numbers.
    """
    long_rows, offset = list[tuple[int, int, int]](), 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if len(line) > least:
                long_rows.append((-len(line), number, offset))
            offset += len(line)
        long_rows.sort()
        for negative, number, start in long_rows:
            if most_bytes is not None:
                most_bytes += negative
                if most_bytes < 0:
                    return
            stream.seek(start)
            yield _build_example(
                str(number), json.loads(stream.read(-negative).decode("utf-8-sig"))
            )


def _build_example(line: str, row: dict[str, Any]) -> Example:
    """Return an uploaded row as a training example."""
    turns, answer = split_answer(row["messages"])
    return Example(line, {"messages": turns}, answer)
