"""Rows of the run directory's JSONL files, read when they are asked for: a report shows a few of
them, and ten thousand answers of a dozen contenders need not be in memory at once."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class Rows:
    """The rows of a file by the place of their id; of repeated answers the first sample's. Of a
    repeated id the first row counts."""

    def __init__(
        self,
        path: Path,
        places: Mapping[str, int],
        note: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> None:
        """
        Args:
            places: the place of each id, from 0; rows of other ids are passed over.
            note: called with every place and its row, once.
        """
        self._path = path
        self._starts = array("q", [-1]) * len(places)
        for start, row in _with_starts(path):
            place = places.get(row["id"])
            if place is not None and not row.get("sample") and self._starts[place] < 0:
                self._starts[place] = start
                if note is not None:
                    note(place, row)

    def __len__(self) -> int:
        return sum(start >= 0 for start in self._starts)

    def at(self, places: Iterable[int]) -> Iterator[dict[str, Any] | None]:
        """The rows at some places; None where there is none."""
        if not self._path.exists():
            yield from (None for _ in places)
            return
        with self._path.open("rb") as stream:
            for place in places:
                start = self._starts[place]
                if start < 0:
                    yield None
                    continue
                stream.seek(start)
                yield json.loads(stream.readline())


def _with_starts(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Where each whole row begins, in bytes, and the row; a torn last line is passed over."""
    if not path.exists():
        return
    start = 0
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n") and line.strip():
                yield start, json.loads(line)
            start += len(line)
