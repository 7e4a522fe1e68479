"""Queries executed on the run's databases, and their results held against the references'.

Databases are opened read only; a query may SELECT and nothing else, for `task.seconds`. What is
right, which rows tie and which databases of a suite count is said in docs/scoring.md.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from recomputing.answers import find_text

LABEL = re.compile(
    r"[\s>*_#\ufeff]*(?:(?:here is|here's|the|this|your|my|final|correct|sql|sqlite)\s+)*"
    r"(?:sql[ _]?query|sql|sqlite|query|statement|code|answer|response|output|solution)"
    r"[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
READING = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
}  # fmt: skip
UNREADABLE = ("syntax error", "incomplete input", "unrecognized token", "one statement", "too ")
MAX_ROWS, MAX_BYTES, COPIED_BYTES = 100_000, 32_000_000, 32_000_000
AROUND = re.compile(r"\A(?:[\s;\ufeff]|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))+", re.DOTALL)
TOKEN = re.compile(
    r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:''|[^'])*'?|\"(?:\"\"|[^\"])*\"?|`[^`]*`?|\[[^\]]*\]?"
    r"|\w+|[^\w\s]",
    re.DOTALL,
)


class NoResult(Exception):
    """A query without a result; the message says why."""


def tokens(sql):
    """The words and signs of a query, without comments, in lower case."""
    return [t.lower() for t in TOKEN.findall(sql) if not t.startswith(("--", "/*"))]


def is_ordered(sql):
    """Whether ORDER BY stands at a query's top level."""
    depth, before = 0, ""
    for token in tokens(sql):
        if depth == 0 and (before, token) == ("order", "by"):
            return True
        depth += (token == "(") - (token == ")")
        before = token
    return False


def is_query(sql):
    """Whether SQLite reads a text as one SELECT, VALUES, or WITH before them."""
    words = tokens(sql)
    if not words or words[0] not in ("select", "with", "values"):
        return False
    with_memory = sqlite3.connect(":memory:")
    try:
        with_memory.execute(f"EXPLAIN {sql}")
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        return not any(words in str(error) for words in UNREADABLE)
    finally:
        with_memory.close()
    return True


def bare_query(text):
    """A query without label, comments, blanks and semicolons around it."""
    label = LABEL.match(text)
    text = text[label.end() :] if label else text
    dialect = re.match(r"\s*\w*sql\w*\s+(?=(?:select|with|values)\b)", text, re.IGNORECASE)
    text = AROUND.sub("", text[dialect.end() :] if dialect else text)
    last = 0  # behind the last token that is no comment and no semicolon
    for token in TOKEN.finditer(text):
        if token[0] != ";" and not token[0].startswith(("--", "/*")):
            last = token.end()
    return text[:last] or text.strip()


def find_query(answer, reference):
    return bare_query(find_text(answer, reference, lambda text: is_query(bare_query(text))))


class Databases:
    """The databases of a run, read only; results of references are kept."""

    def __init__(self, folder, derived, seconds):
        self.folder, self.derived, self.seconds = Path(folder), Path(derived), seconds
        self._open, self._results = {}, {}

    def suite(self, db_id):
        """Its own file first, then the others of its folder, then those derived from it."""
        named = self.folder / db_id / f"{db_id}.sqlite"
        files = sorted((self.folder / db_id).glob("*.sqlite"))
        own = named if named.is_file() else files[0] if len(files) == 1 else None
        if own is None:
            return []
        others = [file for file in files if file != own]
        return [own, *others, *sorted((self.derived / db_id).glob("*.sqlite"))]

    def connect(self, file, is_reversed=False):
        key = file, is_reversed
        if key not in self._open:
            uri = f"file:{quote(str(file.resolve()))}?mode=ro&immutable=1"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            if is_reversed:
                try:
                    connection = reverse_rows(connection)
                except (sqlite3.Error, UnicodeError):
                    connection = None
            if connection is not None:
                connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
                connection.execute("PRAGMA query_only = ON")
                connection.set_authorizer(allow_reading)
            self._open[key] = connection
        return self._open[key]

    def run(self, file, sql, is_reversed=False):
        """(number of columns, rows) of a query.

        Raises:
            NoResult: it has none, or not in time.
        """
        connection = self.connect(file, is_reversed)
        deadline = time.monotonic() + self.seconds
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise NoResult("not a query")
            rows, size = [], 0
            for row in cursor:
                size += sum(len(v) if isinstance(v, (str, bytes)) else 8 for v in row)
                if len(rows) == MAX_ROWS or size > MAX_BYTES:
                    raise NoResult("too large")
                rows.append(row)
            return len(cursor.description), rows
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            late = time.monotonic() > deadline or str(error) == "interrupted"
            raise NoResult("timeout" if late else str(error)) from None

    def reference(self, file, sql):
        if (file, sql) not in self._results:
            try:
                self._results[file, sql] = self.run(file, sql)
            except NoResult as error:
                self._results[file, sql] = error
        found = self._results[file, sql]
        if isinstance(found, NoResult):
            raise found
        return found

    def compare(self, file, reference, query):
        """How a query's result is, held against the reference's: right, wrong, or open (it may be
        right by ties).

        Raises:
            NoResult: the query has none.
        """
        return self.settle(file, reference, self.run(file, query))

    def settle(self, file, reference, given):
        """The same of a result that is there already."""
        expected = self.reference(file, reference)
        found = compare_results(expected, given, reference)
        if found != "open":
            return found
        groups = self.groups(file, reference)
        if groups is None:
            return "open"
        return "right" if fits(groups, given[1]) else "wrong"

    def groups(self, file, reference):
        """The rows that a reference may give, by groups whose order it leaves open: (rows, how many
        of them it takes); None where they cannot be told here."""
        columns, rows = self.reference(file, reference)
        query = split_query(reference)
        if query is None:
            return None
        for ranked in query.rank(columns):
            try:
                _, found = self.run(file, ranked)
            except NoResult:
                continue
            groups = cut_groups(found, query.skipped, len(rows))
            if fits(groups, rows):  # else it means something else than the reference
                return groups
        return None

    def hangs_on_order(self, file, reference):
        """Whether a reference's result is another one where rows are stored backwards; None where
        that cannot be told here."""
        if file.stat().st_size > COPIED_BYTES:
            return False  # it counts as it is
        if self.connect(file, is_reversed=True) is None:
            return None
        try:
            other = self.run(file, reference, is_reversed=True)
        except NoResult:
            return True
        found = self.settle(file, reference, other)
        return None if found == "open" else found == "wrong"


def allow_reading(action, first, second, *_):
    loads = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension"
    return sqlite3.SQLITE_OK if action in READING and not loads else sqlite3.SQLITE_DENY


def reverse_rows(original):
    """A copy in memory of tables without keys, their rows from the last to the first; None where
    plain tables cannot hold what the original does."""
    tables = original.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    beyond = re.compile(r"\b(collate|virtual|generated)\b", re.IGNORECASE)
    if any(beyond.search(sql or "") for _, sql in tables):
        return None
    copy = sqlite3.connect(":memory:", isolation_level=None)
    for name, _ in tables:
        if name.startswith("sqlite_"):
            continue
        table = '"' + name.replace('"', '""') + '"'
        columns = original.execute(f"PRAGMA table_info({table})").fetchall()
        declared = ", ".join('"{}" {}'.format(c[1].replace('"', '""'), c[2]) for c in columns)
        copy.execute(f"CREATE TABLE {table} ({declared})")
        rows = original.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall()
        marks = ", ".join("?" * len(columns))
        copy.executemany(f"INSERT INTO {table} VALUES ({marks})", reversed(rows))
    for (view,) in original.execute("SELECT sql FROM sqlite_master WHERE type = 'view'"):
        copy.execute(view)
    return copy


def same_value(a, b):
    """Numbers within 1e-6 of their size or 1e-13, integers exactly, everything else as it is."""
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    if numbers and (isinstance(a, float) or isinstance(b, float)):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-13)
    return type(a) is type(b) and a == b


def same_row(a, b):
    return len(a) == len(b) and all(map(same_value, a, b))


def is_part(some, others):
    """Whether each row has a partner of its own; equal ones first, then those within tolerance."""
    left, right = Counter(some), Counter(others)
    missing, extra = list((left - right).elements()), list((right - left).elements())
    for row in missing:
        partner = next((i for i, other in enumerate(extra) if same_row(row, other)), None)
        if partner is None:
            return False
        del extra[partner]
    return True


def compare_results(expected, given, reference):
    """right, wrong, or open: wrong as SQLite gave the rows, but perhaps right by ties."""
    (columns, rows), (given_columns, given_rows) = expected, given
    if columns != given_columns or len(rows) != len(given_rows):
        return "wrong"
    ordered, cut = is_ordered(reference), "limit" in tokens(reference)
    if is_part(rows, given_rows):  # and there are as many
        if not ordered or all(map(same_row, rows, given_rows)):
            return "right"
        return "open"
    return "open" if cut else "wrong"


@dataclass
class Query:
    """A query in pieces: what it selects, the rest up to ORDER BY, its keys, rows to skip."""

    selected: str
    rest: str
    keys: str
    skipped: int

    def rank(self, columns):
        """Queries that give all rows, without LIMIT, and last how the keys rank each: among what is
        selected, or over it."""
        if not self.keys:
            yield f"SELECT *, 1 FROM ({self.selected} {self.rest})"
            return
        rank = f"rank() OVER (ORDER BY {self.keys})"
        if not re.search(r"(^|,)\s*\d+\b", self.keys):  # a number there is no column
            yield f"{self.selected}, {rank} {self.rest} ORDER BY {columns + 1}"
        yield f"SELECT *, {rank} FROM ({self.selected} {self.rest}) ORDER BY {columns + 1}"


def split_query(sql):
    """A query's pieces at its top level; None where it has no FROM or a LIMIT that is no number."""
    at, depth, before = {}, 0, ""
    for token in TOKEN.finditer(sql):
        word = token[0].lower()
        if depth == 0 and word in ("from", "order", "limit"):
            at.setdefault(word, token.start())
        if depth == 0 and (before, word) == ("order", "by"):
            at["keys"] = token.end()
        depth += (word == "(") - (word == ")")
        before = word
    if "from" not in at or ("order" in at) != ("keys" in at):
        return None
    end = at.get("limit", len(sql))
    limit = re.fullmatch(r"limit\s+(\d+)(?:\s*(offset|,)\s*(\d+))?", sql[end:].strip(), re.I)
    if limit is None and end < len(sql):
        return None
    skipped = int((limit[1] if limit[2] == "," else limit[3]) or 0) if limit else 0
    keys = sql[at["keys"] : end] if "keys" in at else ""
    rest = sql[at["from"] : at.get("order", end)]
    return Query(sql[: at["from"]], rest, keys, skipped)


def cut_groups(ranked, skipped, count):
    """Ranked rows by groups of the same rank, and how many of each the reference takes."""
    groups, at = [], 0
    for _, rows in groupby(ranked, key=lambda row: row[-1]):
        rows = [row[:-1] for row in rows]
        taken = min(at + len(rows), skipped + count) - max(at, skipped)
        if taken > 0:
            groups.append((rows, taken))
        at += len(rows)
    return groups


def fits(groups, rows):
    """Whether rows are what the groups give, one after the other."""
    at = 0
    for members, taken in groups:
        if not is_part(rows[at : at + taken], members) or at + taken > len(rows):
            return False
        at += taken
    return at == len(rows)


def score_sql(databases, db_id, reference, answer):
    """`execution_accuracy` and `test_suite_accuracy`: True, False, or None where it is open.

    Raises:
        NoResult: the reference does not run on its own database.
    """
    reference, query = find_query(reference, reference), find_query(answer, reference)
    found, slow = [], False
    own, *others = databases.suite(db_id)
    databases.reference(own, reference)
    for file in (own, *others):
        try:
            result = databases.compare(file, reference, query)
        except NoResult as error:
            result, slow = "wrong", slow or str(error) in ("timeout", "too large")
        if file != own and result != "right":
            try:
                databases.reference(file, reference)
                hangs = databases.hangs_on_order(file, reference)
            except NoResult:
                hangs = True  # without a result nothing can be held against it
            if hangs:
                continue
            result = "open" if hangs is None else result
        found.append(result)
        if result == "wrong":
            break

    def settle(results):
        if "wrong" in results:
            return None if slow else False
        return None if "open" in results else True

    scores = {"execution_accuracy": settle(found[:1])}
    if others:
        scores["test_suite_accuracy"] = settle(found)
    return scores
