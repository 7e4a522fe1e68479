"""Indexes the rows of JSONL files, so that they can be read on demand.

A report shows a few rows, and ten thousand answers of a dozen contenders need not be in memory.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class JsonlIndex:
    """The rows of a file, by the number of their id.

    Of several rows of one id the first counts; of repeated answers that of the first sample.
    """

    def __init__(
        self,
        path: Path,
        places: Mapping[str, int],
        note: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> None:
        """Index the rows of a file.

        Args:
            places: the number of each id, from 0; rows of other ids are ignored.
            note: called once with each number and its row.
        """
        self._path = path
        self._starts = array("q", [-1]) * len(places)
        for start, row in _read_with_offsets(path):
            place = places.get(row["id"])
            if place is not None and not row.get("sample") and self._starts[place] < 0:
                self._starts[place] = start
                if note is not None:
                    note(place, row)

    def __len__(self) -> int:
        return sum(start >= 0 for start in self._starts)

    def read_at(self, places: Iterable[int]) -> Iterator[dict[str, Any] | None]:
        """Yield the rows of some numbers; None where there is none."""
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


def _read_with_offsets(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each whole row with its offset in bytes; a torn last line is ignored."""
    if not path.exists():
        return
    start = 0
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n") and line.strip():
                yield start, json.loads(line)
            start += len(line)
