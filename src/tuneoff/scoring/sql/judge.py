"""Judges one prediction by every metric, in the child process.

The metrics are a ladder, from the narrowest notion of right to the widest: the same characters
(`exact_match`), the same text (`normalized_match`), the same query spelt differently
(`sql_normal_form`), the same clauses (`exact_set_match`), the same result (`execution_accuracy`),
the same result on every database of its suite (`test_suite_accuracy`). Which of these metrics an
answer passes shows whether it differs from the reference only in form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from tuneoff.scoring.sql import official, set_match
from tuneoff.scoring.sql.compare import find_query, is_query
from tuneoff.scoring.sql.normal_form import NormalForm, classify_difference
from tuneoff.scoring.sql.reference import (
    CachedReference,
    ReferenceFailedError,
    find_reference,
    limit_time,
    open_database,
    read_form,
    read_spider,
    spell_for_spider,
)
from tuneoff.scoring.sql.sandbox import (
    MAX_SQL_BYTES,
    NOT_A_QUERY,
    CellValue,
    QueryStopped,
    ResultTable,
    select,
)
from tuneoff.scoring.sql.spider_parser import SpiderQuery
from tuneoff.scoring.sql.worker_pool import DatabaseFile, JudgeRequest
from tuneoff.scoring.text import normalize_text

FORM_METRICS = ("sql_normal_form", "exact_set_match", "valid_format")
SUITE_VERDICT = "right on one database only"
MAX_DETAIL_ROWS, MAX_DETAIL_COLUMNS, MAX_DETAIL_CHARACTERS = 10, 12, 80

Step = Callable[[dict[str, bool], bool], None]


def judge(request: JudgeRequest, step: Step) -> dict[str, Any]:
    """Return `scores`, `verdict` and, if requested, `details` of a prediction.

    Args:
        step: called between two steps with the scores so far, and whether they must not be lost. A
            step takes at most `seconds`.

    Raises:
        ReferenceFailedError: the reference does not run on a database.
    """
    if request.alone:
        return _execute_reference(request, step)
    wanted = frozenset(request.metrics)
    scores: dict[str, bool] = dict(request.known)
    answer = _JudgedAnswer(request, find_reference(request), lambda: step(scores, False))
    wrong: str | None = None
    if request.databases and wanted & {"execution_accuracy", "test_suite_accuracy"}:
        if "execution_accuracy" not in scores:
            wrong = answer.executed(request.databases[0])
            scores["execution_accuracy"] = wrong is None
            # From here on the reference cannot be what ends this process (`worker_pool.py`).
            step(scores, request.stopped is not None)
        if len(request.databases) > 1 and "test_suite_accuracy" in wanted:
            step(scores, True)
            elsewhere = wrong or answer.check_rest_of_suite()
            scores["test_suite_accuracy"] = elsewhere is None
            if wrong is None and elsewhere is not None:
                wrong = SUITE_VERDICT
    step(scores, False)
    scores["exact_match"] = request.prediction.strip() == request.reference.strip()
    scores["normalized_match"] = normalize_text(answer.query) == normalize_text(
        answer.reference.query
    )
    scores |= answer.forms(wanted)
    verdict = answer.verdict(scores, wrong)
    result = {"scores": {m: scores[m] for m in request.metrics}, "verdict": verdict}
    if request.details and answer.tables is not None:
        result["details"] = dict(
            zip(("reference", "prediction"), map(_render_table, answer.tables), strict=True)
        )
    return result


def _execute_reference(request: JudgeRequest, step: Step) -> dict[str, Any]:
    """Execute a reference on each database that requires a result.

    In strict mode, databases of the suite without a result are left out
    (`_JudgedAnswer.check_rest_of_suite`).
    """
    reference = find_reference(request)
    must = len(request.databases) if request.mode == "official" else 1
    for file in request.databases[:must]:
        reference.result(file, request)
        step({}, False)
    return {"scores": {}, "verdict": "right"}


class _JudgedAnswer:
    """A prediction, and the results of its checks."""

    def __init__(
        self, request: JudgeRequest, reference: CachedReference, step: Callable[[], None]
    ) -> None:
        self._request, self.reference, self._step = request, reference, step
        self._official = request.mode == "official"
        if self._official:
            self.query = request.prediction.strip()
            self._spider_text = official.prepare_prediction(request.prediction)
            self._executed = official.prepare_executed(self._spider_text)
        else:
            # A prediction that ended a process, or is longer than SQLite reads, is not passed to
            # SQLite again.
            may_ask = request.stopped is None and not self._is_too_long
            text = "" if self._is_too_long else request.prediction
            self.query = find_query(text, request.reference, may_ask)
            self._spider_text = self._executed = self.query
        self._stopped = request.stopped or ("too large" if self._is_too_long else None)
        self._form: NormalForm | None = None
        self.tables: tuple[ResultTable, ResultTable | None] | None = None

    @cached_property
    def _is_too_long(self) -> bool:
        """Return whether an answer is longer than any query that SQLite reads."""
        return not self._official and len(self._request.prediction) > MAX_SQL_BYTES

    @cached_property
    def _is_query(self) -> bool:
        if self._request.stopped is not None:
            return read_form(self.query, self.reference.schema) is not None
        return is_query(self.query)

    def check_rest_of_suite(self) -> str | None:
        """Return the error of its results on the rest of its suite, or None.

        In strict mode, a database is left out if the reference has no result there, or one that
        depends on the storage order.
        """
        for file in self._request.databases[1:]:
            if self.reference.is_left_out(file):
                continue
            stopped = self._stopped
            try:
                wrong = self.executed(file)
                if wrong is not None and (self._official or self._is_settled(file)):
                    return wrong
            except ReferenceFailedError:
                if self._official:
                    raise
                self.reference.leave_out(file)
            self._stopped = stopped
            self._step()
        return None

    def _is_settled(self, file: DatabaseFile) -> bool:
        return self.reference.is_settled(file, self._request, self._step)

    def executed(self, file: DatabaseFile) -> str | None:
        """Return the error of its result on a database, or None."""
        reference = self.reference.result(file, self._request)
        self.tables = reference, None
        self._step()
        try:
            return self._compared(file, reference)
        except (QueryStopped, MemoryError, RecursionError) as error:
            self._stopped = str(error) if isinstance(error, QueryStopped) else "too large"
            return self._stopped

    def _compared(self, file: DatabaseFile, reference: ResultTable) -> str | None:
        if self._stopped is not None:
            raise QueryStopped(self._stopped)
        request = self._request
        database = open_database(file, self._official)
        try:
            table = select(database, self._executed, request.seconds, request.rows)
        except QueryStopped as stopped:
            if not (self._official and str(stopped) == NOT_A_QUERY):
                raise
            table = ResultTable((), [])  # as there: no statement, an empty result
        self.tables = reference, table
        self._step()
        if not self._official:
            return self.reference.difference(file, reference, table, request, self._step)
        with limit_time(request.seconds):
            same = official.is_same_result(reference.rows, table.rows, self.reference.ordered)
            return None if same else "wrong result"

    def forms(self, wanted: frozenset[str]) -> dict[str, bool]:
        """Return the metrics that read only the query."""
        scores = dict.fromkeys((m for m in FORM_METRICS if m in wanted), False)
        if not scores:
            return {}
        try:
            with limit_time(self._request.seconds):
                self._compare_forms(scores)
        except (QueryStopped, MemoryError):
            self._form = None  # metrics that ran out of time stay False
        return scores

    def _compare_forms(self, scores: dict[str, bool]) -> None:
        """Compute the requested metrics; each query is parsed once."""
        reference = self.reference
        spider = reference.spider_query if "exact_set_match" in scores else None
        if self._official and spider is not None:
            scores["exact_set_match"] = self._is_set_match(spider, self._spider_text)
            if len(scores) == 1:
                return
        self._form = read_form(self.query, reference.schema) if self._is_query else None
        same = self._is_same_form()
        computed = {"sql_normal_form": same, "valid_format": self._is_query}
        if spider is None:  # Spider's grammar cannot parse the reference: the normal form decides
            computed["exact_set_match"] = same
        elif not self._official:
            computed["exact_set_match"] = self._is_query and self._is_strict_match(spider)
        scores |= {metric: value for metric, value in computed.items() if metric in scores}

    def _is_same_form(self) -> bool:
        # sqlglot accepts more than SQLite in some places, so SQLite decides what is a query.
        if self._is_query != self.reference.is_query:
            return False
        if self._form is None or self.reference.form is None:
            return normalize_text(self.query) == normalize_text(self.reference.query)
        return self._form.text == self.reference.form.text

    def _is_strict_match(self, spider: SpiderQuery) -> bool:
        """Return whether the set match passes in any spelling (`a=1`, "x" for 'x').

        The queries are compared as they are, then by their normal forms.
        """
        if self._is_set_match(spider, self._spider_text):
            return True
        spelt = self.reference.spelt_query
        if self._form is None or spelt is None:
            return False
        return self._is_set_match(spelt, spell_for_spider(self._form))

    def _is_set_match(self, reference: SpiderQuery, text: str) -> bool:
        answer = read_spider(text, self.reference.schema)
        return answer is not None and set_match.is_set_match(
            reference, answer, self.reference.keys, keep_distinct=not self._official
        )

    def verdict(self, scores: dict[str, bool], wrong: str | None) -> str:
        """Return `right`, `right but for form`, or the error class."""
        if wrong is not None and (self._stopped is not None or wrong == SUITE_VERDICT):
            return wrong
        if self.reference.is_query and not self._is_query and "execution_accuracy" not in scores:
            return "does not parse"
        exact = scores["exact_match"]
        same_form = scores["normalized_match"] or scores.get("sql_normal_form", False)
        same = exact or same_form or scores.get("exact_set_match", False)
        if scores.get("execution_accuracy", same):
            return "right but for form" if same_form and not exact else "right"
        if self._form is None:
            return wrong or "wrong"
        reference = self.reference.form
        return (reference and classify_difference(reference, self._form)) or wrong or "wrong"


def _render_table(table: ResultTable | None) -> dict[str, Any] | None:
    """Return a result as the report shows it: its first rows and columns, long cells cut."""
    if table is None:
        return None
    return {
        "columns": [_render_cell(name) for name in table.columns[:MAX_DETAIL_COLUMNS]],
        "rows": [
            [_render_cell(value) for value in row[:MAX_DETAIL_COLUMNS]]
            for row in table.rows[:MAX_DETAIL_ROWS]
        ],
        "column_count": len(table.columns),
        "row_count": len(table.rows),
    }


def _render_cell(value: CellValue) -> CellValue:
    if isinstance(value, bytes):
        value = f"x'{value[:MAX_DETAIL_CHARACTERS].hex()}'"
    if isinstance(value, str) and len(value) > MAX_DETAIL_CHARACTERS:
        return value[: MAX_DETAIL_CHARACTERS - 1] + "…"
    return value
