"""Stores the rows of a log on disk until it is decided which are kept, and which are for training.

A log may be larger than memory, so its rows wait in an SQLite file beside the result.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

Side = Literal["train", "test"]

_TABLE = """\
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8000;
PRAGMA temp_store = FILE;
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY, source INTEGER, line INTEGER, seconds REAL,
    whole BLOB, prompt BLOB, near BLOB, opening BLOB, conversation BLOB,
    side TEXT, found TEXT, text TEXT
);
"""
# The latest row of each group is the first of its numbering.
_MARK_OLDER = """\
UPDATE rows SET side = ? WHERE seq IN (
    SELECT seq FROM (
        SELECT seq, row_number() OVER (PARTITION BY {key} ORDER BY seconds DESC, seq DESC) AS place
        FROM rows WHERE side IS NULL
    ) WHERE place > 1
)
"""
_MOVE_TO_TRAIN = """\
UPDATE rows SET side = 'train' WHERE side = 'test' AND (
    near IN (SELECT near FROM rows WHERE side = 'train')
    OR conversation IN (SELECT conversation FROM rows WHERE side = 'train')
    OR opening IN (SELECT opening FROM rows WHERE side = 'train')
)
"""


@dataclass(frozen=True, slots=True)
class SpooledRow:
    """A waiting row, with the hashes that identify repeats."""

    source: int
    """The number of its file."""
    line: int
    seconds: float | None
    """Its time, in seconds since 1970; None where it has none."""
    whole: bytes
    """Hash of its prompt and its answer."""
    prompt: bytes
    """Hash of its prompt."""
    near: bytes
    """Hash of its prompt without case, blanks and punctuation."""
    opening: bytes
    """Hash of its turns until the first answer."""
    conversation: bytes | None
    """Hash of its conversation's id; None without one."""
    found: Sequence[tuple[str, str]]
    """Kinds and masked values of personal data."""
    text: str
    """The line to write for it."""


class LogSpool:
    """The rows of one import. A row's side is open, then train, test, or why it is neither."""

    def __init__(self, file: Path) -> None:
        """Create the SQLite file."""
        self._rows = sqlite3.connect(file, isolation_level=None)
        self._rows.executescript(_TABLE)
        self._rows.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def add(self, row: SpooledRow) -> None:
        """Add a row behind the others."""
        personal_data = json.dumps(row.found) if row.found else None
        self._rows.execute(
            "INSERT INTO rows VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)",
            (
                row.source, row.line, row.seconds, row.whole, row.prompt, row.near, row.opening,
                row.conversation, personal_data, row.text,
            ),
        )  # fmt: skip

    def leave_out_repeats(self, key: Literal["whole", "prompt"]) -> int:
        """Leave out all rows but the latest of each group; return how many."""
        return self._change(_MARK_OLDER.format(key=key), key)

    def keep_newest(self, count: int) -> int:
        """Leave out all rows but the newest ones; return how many."""
        return self._change(
            "UPDATE rows SET side = 'older' WHERE seq IN (SELECT seq FROM rows WHERE side IS NULL "
            "ORDER BY seconds DESC, seq DESC LIMIT -1 OFFSET ?)",
            count,
        )

    def count_open(self) -> tuple[int, int]:
        """Return the number of open rows, and of those with a time."""
        query = "SELECT count(*), count(seconds) FROM rows WHERE side IS NULL"
        rows, timed = self._rows.execute(query).fetchone()
        return rows, timed

    def split_by_count(self, count: int, timed_only: bool) -> None:
        """Make the newest open rows test rows, the others training rows."""
        timed = "AND seconds IS NOT NULL" if timed_only else ""
        self._change(
            "UPDATE rows SET side = 'test' WHERE seq IN (SELECT seq FROM rows WHERE side IS NULL "
            f"{timed} ORDER BY seconds DESC, seq DESC LIMIT ?)",
            count,
        )
        self._change("UPDATE rows SET side = 'train' WHERE side IS NULL")

    def split_by_time(self, seconds: float) -> None:
        """Make the open rows from a time on test rows, the others training rows."""
        self._change("UPDATE rows SET side = 'test' WHERE side IS NULL AND seconds >= ?", seconds)
        self._change("UPDATE rows SET side = 'train' WHERE side IS NULL")

    def move_known_to_train(self) -> int:
        """Move test rows to train if their prompt or conversation is there; return how many."""
        self._change("CREATE INDEX by_whole ON rows (whole)")
        # An opening counts only where a row of the log ends with it: few-shot examples that every
        # prompt shows are not a conversation.
        self._change(
            "UPDATE rows SET opening = NULL "
            "WHERE NOT EXISTS (SELECT 1 FROM rows AS other WHERE other.whole = rows.opening)"
        )
        for column in ("near", "conversation", "opening"):
            self._change(f"CREATE INDEX by_{column} ON rows ({column}) WHERE side = 'train'")
        moved, last = 0, -1
        while last:  # a row that moves may take others of its conversation along
            last = self._change(_MOVE_TO_TRAIN)
            moved += last
        return moved

    def find_bounds(self, side: Side) -> tuple[int, float | None, float | None]:
        """Return the number of a side's rows, and the times of its oldest and newest one."""
        query = "SELECT count(*), min(seconds), max(seconds) FROM rows WHERE side = ?"
        rows, first, last = self._rows.execute(query, (side,)).fetchone()
        return rows, first, last

    def read_side(self, side: Side) -> Iterator[tuple[int, int, list[tuple[str, str]], str]]:
        """Yield a side's rows by time: source, line, personal data, and the row's text."""
        self._change("CREATE INDEX IF NOT EXISTS by_time ON rows (side, seconds, seq)")
        query = (
            "SELECT source, line, found, text FROM rows WHERE side = ? ORDER BY side, seconds, seq"
        )
        with closing(self._rows.execute(query, (side,))) as rows:
            for source, line, found, text in rows:
                yield source, line, json.loads(found) if found else [], text

    def _change(self, query: str, *values: Any) -> int:
        """Execute a statement; return the number of changed rows."""
        return self._rows.execute(query, values).rowcount
