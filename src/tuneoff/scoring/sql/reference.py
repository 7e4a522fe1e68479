"""A reference query and its cached results, in the child process.

The same reference comes with the answers of each contender. So its parsed forms, its results, the
ties in them, and the usable databases of its suite are cached.
"""

from __future__ import annotations

import signal
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from tuneoff.scoring.sql import compare, official, set_match
from tuneoff.scoring.sql.compare import find_query, is_query, split_statements
from tuneoff.scoring.sql.normal_form import NormalForm, NotParsed, build_normal_form
from tuneoff.scoring.sql.reversed_copy import NotCopied, open_reversed
from tuneoff.scoring.sql.sandbox import (
    QueryStopped,
    ReadOnlyDatabase,
    ResultRow,
    ResultTable,
    connect,
    select,
)
from tuneoff.scoring.sql.spider_parser import NotSpider, SpiderQuery, parse_spider
from tuneoff.scoring.sql.ties import find_tie_groups
from tuneoff.scoring.sql.worker_pool import DatabaseFile, JudgeRequest

# LRU cache: the most references, and about the most bytes of all together.
_KEPT_REFERENCES = 512
_KEPT_BYTES = 100_000_000
_CELL_BYTES = 60


class ReferenceFailedError(Exception):
    """A reference that does not run: the user's mistake. `args` are the database and the reason."""


class CachedReference:
    """A reference and its cached results."""

    def __init__(self, sql: str, own: DatabaseFile | None, is_official: bool) -> None:
        self.sql = sql
        self.kept_bytes = 0
        self._own = own
        self._official = is_official
        self._results: dict[DatabaseFile, ResultTable] = {}
        self._groups: dict[DatabaseFile, list[compare.TieGroup] | None] = {}
        self._settled: dict[DatabaseFile, bool] = {}
        # In strict mode a reference is extracted like an answer.
        self.query = sql.strip() if is_official else find_query(sql, sql)
        self.executed = official.prepare_executed(sql) if is_official else self.query

    @cached_property
    def ordered(self) -> bool:
        is_ordered = official.is_ordered if self._official else compare.is_ordered
        return is_ordered(self.executed)

    @cached_property
    def schema(self) -> dict[str, list[str]] | None:
        return open_database(self._own, self._official).columns.by_table if self._own else None

    @cached_property
    def keys(self) -> dict[str, str]:
        if self._own is None:
            return {}
        columns = open_database(self._own, self._official).columns
        return set_match.group_columns(columns.foreign_keys, columns.by_table)

    @cached_property
    def form(self) -> NormalForm | None:
        return read_form(self.query, self.schema)

    @cached_property
    def is_query(self) -> bool:
        return is_query(self.query)

    @cached_property
    def spider_query(self) -> SpiderQuery | None:
        return read_spider(self.sql if self._official else self.query, self.schema)

    @cached_property
    def spelt_query(self) -> SpiderQuery | None:
        """Return its normal form, parsed by Spider's grammar."""
        return read_spider(spell_for_spider(self.form), self.schema) if self.form else None

    def result(self, file: DatabaseFile, request: JudgeRequest) -> ResultTable:
        """Return its result on a database.

        Raises:
            ReferenceFailedError: it has none.
        """
        known = self._results.get(file)
        if known is not None:
            return known
        try:
            database = open_database(file, self._official)
            table = select(database, self.executed, request.seconds, request.rows)
        except QueryStopped as stopped:
            raise ReferenceFailedError(file.path, str(stopped)) from None
        if self._can_cache(table.rows):
            self._results[file] = table
        return table

    def _can_cache(self, rows: Iterable[ResultRow]) -> bool:
        """Return whether rows are small enough to cache, and count their bytes."""
        size = _estimate_bytes(rows)
        if size >= _KEPT_BYTES // 20:
            return False
        self.kept_bytes += size
        return True

    def difference(
        self,
        file: DatabaseFile,
        expected: ResultTable,
        answer: ResultTable,
        request: JudgeRequest,
        step: Callable[[], None],
    ) -> str | None:
        """Return the error of an answer's result in strict mode, or None.

        Args:
            expected: the reference's result on the same database.

        Raises:
            Stopped: the comparison took too long.
        """
        with limit_time(request.seconds):
            wrong = compare.find_difference(expected, answer, self.ordered)
        is_open = wrong == "wrong order" or (wrong == "wrong result" and self._has_limit)
        if not is_open or len(expected.rows) != len(answer.rows):
            return wrong
        step()
        groups = self._find_tie_groups(file, expected, request)
        step()
        with limit_time(request.seconds):
            return (
                None
                if groups is not None and compare.is_allowed_order(groups, answer.rows)
                else wrong
            )

    @cached_property
    def _has_limit(self) -> bool:
        return "limit" in self.executed.lower()

    def _find_tie_groups(
        self, file: DatabaseFile, expected: ResultTable, request: JudgeRequest
    ) -> list[compare.TieGroup] | None:
        if file in self._groups:
            return self._groups[file]
        database = open_database(file, self._official)
        try:
            with limit_time(request.seconds):
                groups = find_tie_groups(
                    database, self.executed, expected, request.seconds, request.rows
                )
        except QueryStopped:
            groups = None
        if self._can_cache(row for group in groups or () for row in group.rows):
            self._groups[file] = groups
        return groups

    def leave_out(self, file: DatabaseFile) -> None:
        """Mark a database on which answers cannot be compared with the reference."""
        self._settled[file] = False

    def is_left_out(self, file: DatabaseFile) -> bool:
        """Return whether a database is marked as left out."""
        return self._settled.get(file) is False

    def is_settled(
        self, file: DatabaseFile, request: JudgeRequest, step: Callable[[], None]
    ) -> bool:
        """Return whether its result on a database does not depend on the storage order.

        The database does not count if the result differs over reversed rows, or cannot be had again
        in half the time: an equally slow answer must be able to finish on a busy machine. A
        database that cannot be copied counts.
        """
        if file not in self._settled:
            step()
            try:
                expected = self.result(file, request)
                step()
                database = open_reversed(*file, request.seconds)
                step()
                table = select(database, self.executed, request.seconds / 2, request.rows)
                step()
                wrong = self.difference(file, expected, table, request, step)
            except NotCopied:
                wrong = None
            except (ReferenceFailedError, QueryStopped, MemoryError):
                wrong = "unknown"
            step()
            self._settled[file] = wrong is None
        return self._settled[file]


# Results under other limits may differ.
_Key = tuple[str, tuple[DatabaseFile, ...], str, float, int]
_references: OrderedDict[_Key, CachedReference] = OrderedDict()


def find_reference(request: JudgeRequest) -> CachedReference:
    """Return a request's reference with its cached results."""
    key = request.reference, request.databases, request.mode, request.seconds, request.rows
    reference = _references.pop(key, None)
    if reference is None:
        own = request.databases[0] if request.databases else None
        reference = CachedReference(request.reference, own, request.mode == "official")
        kept = sum(other.kept_bytes for other in _references.values())
        while _references and (len(_references) >= _KEPT_REFERENCES or kept > _KEPT_BYTES):
            kept -= _references.popitem(last=False)[1].kept_bytes
    _references[key] = reference
    return reference


def _estimate_bytes(rows: Iterable[ResultRow]) -> int:
    """Return an estimate of the memory of rows."""
    return sum(
        _CELL_BYTES + (len(cell) if isinstance(cell, (str, bytes)) else 0)
        for row in rows
        for cell in row
    )


def open_database(file: DatabaseFile, is_official: bool) -> ReadOnlyDatabase:
    """Return a database, opened for reading.

    Raises:
        ReferenceFailedError: it cannot be opened.
    """
    try:
        return connect(*file, drop_undecodable=is_official)
    except sqlite3.Error as error:
        raise ReferenceFailedError(file.path, f"the database cannot be opened: {error}") from None


def read_form(sql: str, schema: dict[str, list[str]] | None) -> NormalForm | None:
    """Return a query's normal form; None if it has none."""
    try:
        return build_normal_form(split_statements(sql).text, schema)
    except NotParsed:
        return None


def spell_for_spider(form: NormalForm) -> str:
    """Return a normal form with the operators of Spider's grammar."""
    return form.text.replace("<>", "!=")


def read_spider(sql: str, schema: dict[str, list[str]] | None) -> SpiderQuery | None:
    """Return a query parsed by Spider's grammar; None if that fails."""
    try:
        return parse_spider(sql, schema or {})
    except NotSpider:
        return None


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Interrupt Python code after some seconds, if the system can.

    Raises:
        Stopped: it took longer.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
