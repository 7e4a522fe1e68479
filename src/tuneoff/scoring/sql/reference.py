"""A reference and what was found out about it, in the child process.

References come again and again, with the answers of each contender. So what is found out about one
is kept: how it reads, its results, the rows that tie in them, and on which databases of its suite
answers can be held against it.
"""

from __future__ import annotations

import signal
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from tuneoff.scoring.sql import compare, official, set_match
from tuneoff.scoring.sql.extract import find_query, is_query, split_statements
from tuneoff.scoring.sql.normal_form import NormalForm, NotParsed, normal_form
from tuneoff.scoring.sql.protocol import DatabaseFile, Request
from tuneoff.scoring.sql.reversed_copy import NotCopied, open_reversed
from tuneoff.scoring.sql.sandbox import Database, Row, Stopped, Table, connect, select
from tuneoff.scoring.sql.spider_grammar import NotSpider, Query, parse
from tuneoff.scoring.sql.ties import find_groups

# The latest ones are kept, up to about these many bytes together.
_KEPT_REFERENCES = 512
_KEPT_BYTES = 100_000_000
_CELL_BYTES = 60


class ReferenceFails(Exception):
    """A reference that does not run: the user's mistake. `args` are the database and the reason."""


class Reference:
    """A reference and what was found out about it."""

    def __init__(self, sql: str, own: DatabaseFile | None, is_official: bool) -> None:
        self.sql = sql
        self.kept_bytes = 0
        self._own = own
        self._official = is_official
        self._results: dict[DatabaseFile, Table] = {}
        self._groups: dict[DatabaseFile, list[compare.Group] | None] = {}
        self._settled: dict[DatabaseFile, bool] = {}
        # In strict reading a reference is read as an answer is.
        self.query = sql.strip() if is_official else find_query(sql, sql)
        self.executed = official.executed_text(sql) if is_official else self.query

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
        return set_match.same_columns(columns.foreign_keys, columns.by_table)

    @cached_property
    def form(self) -> NormalForm | None:
        return read_form(self.query, self.schema)

    @cached_property
    def is_query(self) -> bool:
        return is_query(self.query)

    @cached_property
    def spider(self) -> Query | None:
        return read_spider(self.sql if self._official else self.query, self.schema)

    @cached_property
    def spelt(self) -> Query | None:
        """Return its normal form, as Spider's grammar reads it."""
        return read_spider(spell_for_spider(self.form), self.schema) if self.form else None

    def result(self, file: DatabaseFile, request: Request) -> Table:
        """Return its result on a database.

        Raises:
            ReferenceFails: it has none.
        """
        known = self._results.get(file)
        if known is not None:
            return known
        try:
            database = open_database(file, self._official)
            table = select(database, self.executed, request.seconds, request.rows)
        except Stopped as stopped:
            raise ReferenceFails(file.path, str(stopped)) from None
        if self._may_keep(table.rows):
            self._results[file] = table
        return table

    def _may_keep(self, rows: Iterable[Row]) -> bool:
        """Counts rows among those that are kept, unless they are too many."""
        size = _bytes_of(rows)
        if size >= _KEPT_BYTES // 20:
            return False
        self.kept_bytes += size
        return True

    def difference(
        self,
        file: DatabaseFile,
        expected: Table,
        answer: Table,
        request: Request,
        step: Callable[[], None],
    ) -> str | None:
        """Say what is wrong with an answer's result in strict reading; None if nothing is.

        Args:
            expected: the reference's result on the same database.

        Raises:
            Stopped: comparing took too long.
        """
        with time_limit(request.seconds):
            wrong = compare.difference(expected, answer, self.ordered)
        is_open = wrong == "wrong order" or (wrong == "wrong result" and self._may_be_cut)
        if not is_open or len(expected.rows) != len(answer.rows):
            return wrong
        step()
        groups = self._tie_groups(file, expected, request)
        step()
        with time_limit(request.seconds):
            return None if groups is not None and compare.fits(groups, answer.rows) else wrong

    @cached_property
    def _may_be_cut(self) -> bool:
        return "limit" in self.executed.lower()

    def _tie_groups(
        self, file: DatabaseFile, expected: Table, request: Request
    ) -> list[compare.Group] | None:
        if file in self._groups:
            return self._groups[file]
        database = open_database(file, self._official)
        try:
            with time_limit(request.seconds):
                groups = find_groups(
                    database, self.executed, expected, request.seconds, request.rows
                )
        except Stopped:
            groups = None
        if self._may_keep(row for group in groups or () for row in group.rows):
            self._groups[file] = groups
        return groups

    def leave_out(self, file: DatabaseFile) -> None:
        """Notes that nothing can be held against an answer on a database."""
        self._settled[file] = False

    def is_left_out(self, file: DatabaseFile) -> bool:
        """Say whether a database is known to be left out."""
        return self._settled.get(file) is False

    def is_settled(self, file: DatabaseFile, request: Request, step: Callable[[], None]) -> bool:
        """Say whether an answer can be held against its result on a database. It cannot where the
        result is another one when the rows are stored the other way round, or cannot be had again
        in half the time: an answer that is as slow must be able to end on a busy machine. A
        database that cannot be copied counts."""
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
            except (ReferenceFails, Stopped, MemoryError):
                wrong = "unknown"
            step()
            self._settled[file] = wrong is None
        return self._settled[file]


# What is found out under other limits may be something else.
_Key = tuple[str, tuple[DatabaseFile, ...], str, float, int]
_references: OrderedDict[_Key, Reference] = OrderedDict()


def find_reference(request: Request) -> Reference:
    """Return a request's reference, with what is known of it."""
    key = request.reference, request.databases, request.mode, request.seconds, request.rows
    found = _references.pop(key, None)
    if found is None:
        own = request.databases[0] if request.databases else None
        found = Reference(request.reference, own, request.mode == "official")
        kept = sum(reference.kept_bytes for reference in _references.values())
        while _references and (len(_references) >= _KEPT_REFERENCES or kept > _KEPT_BYTES):
            kept -= _references.popitem(last=False)[1].kept_bytes
    _references[key] = found
    return found


def _bytes_of(rows: Iterable[Row]) -> int:
    """Estimate how much memory rows take."""
    return sum(
        _CELL_BYTES + (len(cell) if isinstance(cell, (str, bytes)) else 0)
        for row in rows
        for cell in row
    )


def open_database(file: DatabaseFile, is_official: bool) -> Database:
    """Return a database, opened for reading.

    Raises:
        ReferenceFails: it cannot be.
    """
    try:
        return connect(*file, drop_undecodable=is_official)
    except sqlite3.Error as error:
        raise ReferenceFails(file.path, f"the database cannot be opened: {error}") from None


def read_form(sql: str, schema: dict[str, list[str]] | None) -> NormalForm | None:
    """Return a query's normal form; None where it has none."""
    try:
        return normal_form(split_statements(sql).text, schema)
    except NotParsed:
        return None


def spell_for_spider(form: NormalForm) -> str:
    """Return a normal form in the signs that Spider's grammar knows."""
    return form.text.replace("<>", "!=")


def read_spider(sql: str, schema: dict[str, list[str]] | None) -> Query | None:
    """Return a query as Spider's grammar reads it; None where it does not."""
    try:
        return parse(sql, schema or {})
    except NotSpider:
        return None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends what Python does after some seconds, where the system can interrupt it.

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
