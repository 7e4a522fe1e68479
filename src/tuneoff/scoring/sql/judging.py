"""One prediction judged by every metric, in the child process.

The ladder, from the narrowest notion of right to the widest: the same characters
(`exact_match`), the same text (`normalized_match`), the same query differently spelt
(`sql_normal_form`), the same clauses (`exact_set_match`), the same result
(`execution_accuracy`), the same result on every database of its suite
(`test_suite_accuracy`). What the answer's rungs are says whether a difference is only form.
"""

from __future__ import annotations

import signal
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from tuneoff.scoring.sql import execution, official, set_match
from tuneoff.scoring.sql.difference import class_of_error
from tuneoff.scoring.sql.extract import query_in
from tuneoff.scoring.sql.normal_form import NormalForm, NotParsed, normal_form
from tuneoff.scoring.sql.protocol import Request
from tuneoff.scoring.sql.sandbox import (
    NOT_A_QUERY,
    Database,
    Stopped,
    Table,
    Value,
    connect,
    select,
)
from tuneoff.scoring.sql.spider_grammar import NotSpider, Query, parse
from tuneoff.scoring.text import normalized

FORM_METRICS = ("sql_normal_form", "exact_set_match", "valid_format")
SUITE_VERDICT = "right on one database only"
DETAIL_ROWS, DETAIL_COLUMNS, DETAIL_CHARACTERS = 10, 12, 80

# References come again and again over a few databases; larger results are run again.
_KEPT_REFERENCES = 512
_KEPT_ROWS = 5_000


class ReferenceFails(Exception):
    """A reference that does not run: the user's mistake. The message says where and why."""


class Reference:
    """A reference and what was found out about it."""

    def __init__(self, sql: str, own: str | None, is_official: bool) -> None:
        self.sql = sql
        self._own = own
        self._official = is_official
        self._results: dict[str, Table] = {}
        self._settled: dict[str, bool] = {}
        self.executed = official.executed_text(sql) if is_official else sql

    @cached_property
    def ordered(self) -> bool:
        is_ordered = official.is_ordered if self._official else execution.is_ordered
        return is_ordered(self.executed)

    @cached_property
    def schema(self) -> dict[str, list[str]] | None:
        return _database(self._own, self._official).columns.by_table if self._own else None

    @cached_property
    def keys(self) -> dict[str, str]:
        if self._own is None:
            return {}
        return set_match.same_columns(_database(self._own, self._official).columns.foreign_keys)

    @cached_property
    def form(self) -> NormalForm | None:
        return _form(self.sql, self.schema)

    @cached_property
    def spider(self) -> Query | None:
        return _spider(self.sql, self.schema)

    def result(self, path: str, request: Request) -> Table:
        """Its result on a database.

        Raises:
            ReferenceFails: it has none.
        """
        known = self._results.get(path)
        if known is not None:
            return known
        try:
            database = _database(path, self._official)
            table = select(database, self.executed, request.seconds, request.rows)
        except Stopped as stopped:
            raise ReferenceFails(f"{path} ({stopped})") from None
        if len(table.rows) <= _KEPT_ROWS:
            self._results[path] = table
        return table

    def settled(self, path: str, request: Request) -> bool:
        """Whether its result on a database depends on nothing but its text. Where rows tie, or
        a column outside GROUP BY is selected, it also depends on the order of the table, and
        nobody can be asked to match that."""
        if path not in self._settled:
            forwards = self.result(path, request)
            try:
                database = connect(path, self._official, backwards=True)
                backwards = select(database, self.executed, request.seconds, request.rows)
                wrong = execution.difference(forwards, backwards, self.ordered)
            except (Stopped, MemoryError):
                wrong = "unknown"
            self._settled[path] = wrong is None
        return self._settled[path]


_references: OrderedDict[tuple[str, tuple[str, ...], str], Reference] = OrderedDict()


def _reference(request: Request) -> Reference:
    key = request.reference, request.databases, request.mode
    found = _references.pop(key, None)
    if found is None:
        own = request.databases[0] if request.databases else None
        found = Reference(request.reference, own, request.mode == "official")
        if len(_references) >= _KEPT_REFERENCES:
            _references.popitem(last=False)
    _references[key] = found
    return found


def judge(request: Request, step: Callable[[], None]) -> dict[str, Any]:
    """`scores`, `verdict` and, where asked for, `details` of a prediction.

    Args:
        step: called between two steps, each of which takes `seconds` at most.

    Raises:
        ReferenceFails: the reference does not run on a database.
    """
    reference = _reference(request)
    wanted = frozenset(request.metrics)
    answer = _Answer(request, reference, step)
    scores: dict[str, bool] = {}
    if "exact_match" in wanted:
        scores["exact_match"] = request.prediction.strip() == request.reference.strip()
    if "normalized_match" in wanted:
        scores["normalized_match"] = normalized(answer.query) == normalized(request.reference)
    wrong: str | None = None
    if request.databases and wanted & {"execution_accuracy", "test_suite_accuracy"}:
        wrong = answer.executed(request.databases[:1])
        scores["execution_accuracy"] = wrong is None
        if len(request.databases) > 1 and "test_suite_accuracy" in wanted:
            elsewhere = wrong or answer.executed_elsewhere()
            scores["test_suite_accuracy"] = elsewhere is None
            if wrong is None and elsewhere is not None:
                wrong = SUITE_VERDICT
    step()
    scores |= answer.forms(wanted)
    found = {"scores": scores, "verdict": answer.verdict(scores, wrong)}
    if request.details and answer.tables is not None:
        found["details"] = dict(
            zip(("reference", "prediction"), map(_shown, answer.tables), strict=True)
        )
    return found


class _Answer:
    """A prediction and what was found out about it."""

    def __init__(self, request: Request, reference: Reference, step: Callable[[], None]) -> None:
        self._request, self._reference, self._step = request, reference, step
        self._official = request.mode == "official"
        if self._official:
            self.query = request.prediction.strip()
            self._spider_text = official.prediction_text(request.prediction)
            self._executed = official.executed_text(self._spider_text)
        else:
            self.query = self._spider_text = self._executed = query_in(request.prediction)
        self._stopped = request.stopped
        self._form: NormalForm | None = None
        self.tables: tuple[Table, Table | None] | None = None

    def executed_elsewhere(self) -> str | None:
        """What is wrong with its results on the rest of its suite. In strict reading, a
        database on which the reference's result is not settled is left out."""
        request, reference = self._request, self._reference
        suite = request.databases[1:]
        return self.executed(
            [path for path in suite if self._official or reference.settled(path, request)]
        )

    def executed(self, paths: Sequence[str]) -> str | None:
        """What is wrong with its results on some databases; None if nothing is."""
        for path in paths:
            reference = self._reference.result(path, self._request)
            self.tables = reference, None
            self._step()
            try:
                wrong = self._compared(path, reference)
            except (Stopped, MemoryError, RecursionError) as error:
                self._stopped = str(error) if isinstance(error, Stopped) else "too large"
                return self._stopped
            if wrong is not None:
                return wrong
        return None

    def _compared(self, path: str, reference: Table) -> str | None:
        if self._stopped is not None:
            raise Stopped(self._stopped)
        request = self._request
        database = _database(path, self._official)
        try:
            table = select(database, self._executed, request.seconds, request.rows)
        except Stopped as stopped:
            if not (self._official and str(stopped) == NOT_A_QUERY):
                raise
            table = Table((), [])  # nothing asked, nothing found: a result like any there
        self.tables = reference, table
        self._step()
        with time_limit(request.seconds):
            if not self._official:
                return execution.difference(reference, table, self._reference.ordered)
            same = official.same_result(reference.rows, table.rows, self._reference.ordered)
            return None if same else "wrong result"

    def forms(self, wanted: frozenset[str]) -> dict[str, bool]:
        """The metrics that look at the query alone."""
        scores = dict.fromkeys((m for m in FORM_METRICS if m in wanted), False)
        if not scores:
            return {}
        try:
            with time_limit(self._request.seconds):
                self._compare_forms(scores)
        except (Stopped, MemoryError):
            self._form = None  # what was not settled in time stays False
        return scores

    def _compare_forms(self, scores: dict[str, bool]) -> None:
        reference = self._reference
        if "exact_set_match" in scores:
            scores["exact_set_match"] = self._set_match()
        if scores.keys() & {"sql_normal_form", "valid_format"}:
            self._form = _form(self.query, reference.schema)
            same = self._same_form()
            scores |= {
                metric: value
                for metric, value in (
                    ("sql_normal_form", same),
                    ("valid_format", self._form is not None),
                )
                if metric in scores
            }

    def _same_form(self) -> bool:
        if self._form is None or self._reference.form is None:
            return normalized(self.query) == normalized(self._reference.sql)
        return self._form.text == self._reference.form.text

    def _set_match(self) -> bool:
        """Where Spider's grammar cannot read the reference, the normal form decides."""
        reference = self._reference
        if reference.spider is None:
            if self._form is None:
                self._form = _form(self.query, reference.schema)
            return self._same_form()
        answer = _spider(self._spider_text, reference.schema)
        return answer is not None and set_match.matches(
            reference.spider, answer, reference.keys, keep_distinct=not self._official
        )

    def verdict(self, scores: dict[str, bool], wrong: str | None) -> str:
        """`right`, `right but for form`, or what is wrong."""
        if self._stopped is not None or wrong == SUITE_VERDICT:
            return str(wrong)
        same_form = any(scores.get(m) for m in ("normalized_match", "sql_normal_form"))
        exact = scores.get("exact_match", False)
        if scores.get("execution_accuracy", exact or same_form):
            return "right but for form" if same_form and not exact else "right"
        if self._form is None:
            parsed = "valid_format" not in scores or "execution_accuracy" in scores
            return wrong or ("wrong" if parsed else "does not parse")
        reference = self._reference.form
        return (reference and class_of_error(reference, self._form)) or wrong or "wrong"


def _database(path: str | None, is_official: bool) -> Database:
    assert path is not None
    try:
        return connect(path, is_official)
    except sqlite3.Error as error:
        raise ReferenceFails(f"{path}: the database cannot be opened ({error})") from None


def _form(sql: str, schema: dict[str, list[str]] | None) -> NormalForm | None:
    try:
        return normal_form(sql, schema)
    except NotParsed:
        return None


def _spider(sql: str, schema: dict[str, list[str]] | None) -> Query | None:
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


def _shown(table: Table | None) -> dict[str, Any] | None:
    """A result as the report shows it: its beginning, long cells cut."""
    if table is None:
        return None
    return {
        "columns": [_cell(name) for name in table.columns[:DETAIL_COLUMNS]],
        "rows": [
            [_cell(value) for value in row[:DETAIL_COLUMNS]] for row in table.rows[:DETAIL_ROWS]
        ],
        "column_count": len(table.columns),
        "row_count": len(table.rows),
    }


def _cell(value: Value) -> Value:
    if isinstance(value, bytes):
        value = f"x'{value[:DETAIL_CHARACTERS].hex()}'"
    if isinstance(value, str) and len(value) > DETAIL_CHARACTERS:
        return value[: DETAIL_CHARACTERS - 1] + "…"
    return value
