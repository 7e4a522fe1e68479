"""Row scores made again from predictions and references: texts, calls, results of SQL.

What an answer is, which metrics there are and when two results are the same is said in
docs/scoring.md. A metric that is not made here (`sql_normal_form`, `exact_set_match`,
`valid_format` of SQL, official mode, metrics of one's own, a judge) comes from `scores.jsonl`.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import quote

CALL_METRICS = (
    "exact_match", "normalized_match", "function_accuracy", "slot_precision", "slot_recall",
    "slot_f1", "order_insensitive_match", "valid_format",
)  # fmt: skip
TEXT_METRICS = ("exact_match", "normalized_match")

# --- what an answer is --------------------------------------------------------------------------

TAG = r"(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)"
THOUGHT = re.compile(
    rf"<\s*{TAG}\s*>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)\b",
    re.IGNORECASE,
)
THOUGHT_END = re.compile(
    rf"<\s*/\s*{TAG}\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>\s*final[^<\n]*<\|message\|>|\A\s*analysis(?s:.*)assistantfinal",
    re.IGNORECASE,
)
QUOTED_TAG = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`")
FENCED = re.compile(r"(`{3,}|~{3,})(.*?)(?:\1|\Z)", re.DOTALL)
LANGUAGE = re.compile(r"\s*\w+\s*?(?:\n|\s(?=\S))")
LABEL = re.compile(
    r"[\s>*_#\ufeff]*(?:(?:here is|here's|the|this|your|my|final|correct|sql|sqlite)\s+)*"
    r"(?:sql[ _]?query|sql|sqlite|query|statement|code|answer|response|output|solution)"
    r"[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)


def strip(text):
    return text.strip().strip("\ufeff").strip()


def strip_thoughts(answer, reference):
    """The answer behind its last thought; None where a thought never ends."""
    bare = QUOTED_TAG.sub("", reference)
    if THOUGHT.search(bare) or THOUGHT_END.search(bare):
        return answer
    unquoted = QUOTED_TAG.sub(lambda found: "\0" * len(found[0]), answer)
    ends = list(THOUGHT_END.finditer(unquoted))
    at = ends[-1].end() if ends else 0
    if THOUGHT.search(unquoted, at):
        return None
    rest = answer[at:]
    harmony = r"(?:<\|(?:return|end|call)\|>\s*)+\Z"
    return re.sub(harmony, "", rest) if ends and "|" in ends[-1][0] else rest


def texts_within(answer):
    """The texts that a fenced answer may mean, the last fence first."""
    for _, content in reversed(FENCED.findall(answer)):
        yield content
        language = LANGUAGE.match(content)
        if language:
            yield content[language.end() :]
    span = re.fullmatch(r"(`{1,2})([^`\n]+)\1", answer)
    if span:
        yield span[2]


def find_text(answer, reference, may_be):
    """The last fenced text that passes a test; the answer itself where it passes, or none does."""
    answer = strip(answer)
    if may_be(answer) or (FENCED.search(reference) and not may_be(strip(reference))):
        return answer
    return next((strip(text) for text in texts_within(answer) if may_be(strip(text))), answer)


def unfence(answer, reference):
    """An answer that is nothing but fences, as a text: what the last one holds."""
    answer = strip(answer)
    if FENCED.search(reference) or strip(FENCED.sub("", answer)):
        span = re.fullmatch(r"(`{1,2})([^`\n]+)\1", answer)
        return strip(span[2]) if span and not FENCED.search(reference) else answer
    contents = [content for _, content in FENCED.findall(answer)]
    if not contents:
        return answer
    first, line_end, rest = contents[-1].partition("\n")
    return strip(rest if line_end and len(first.split()) < 2 else contents[-1])


def normalize(text):
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split()).rstrip(".; ")


def find_cut_ids(test, predictions):
    """Ids of answers that were cut in a thought which their prompt had begun."""

    def has_end(text):
        return THOUGHT_END.search(text) is not None

    def ends_unopened(text):
        end = THOUGHT_END.search(text)
        return end is not None and THOUGHT.search(text, 0, end.start()) is None

    of = [(example, predictions[example["id"]]) for example in test if example["id"] in predictions]
    if not any(ends_unopened(p["prediction"]) and not has_end(e["completion"]) for e, p in of):
        return set()
    return {
        e["id"]
        for e, p in of
        if p.get("finish_reason") == "length"
        and not (has_end(p["prediction"]) or has_end(e["completion"]))
    }


# --- texts and calls ----------------------------------------------------------------------------

CALL = re.compile(r"\s*([\w.-]+)\s*\((.*)\)\s*\Z", re.DOTALL)
SLOT = re.compile(r"\s*([\w.-]+)\s*(?:\[([^\]]*)\]\s*)?(,|\Z)")


def parse_call(text):
    """function(attribute[value], …) as (function, [(attribute, [items])]); None if it is none."""
    call = CALL.match(text)
    if call is None:
        return None
    slots, at, inner = [], 0, call[2]
    more = bool(inner.strip())
    while more:
        slot = SLOT.match(inner, at)
        if slot is None:
            return None
        items = [item.strip() for item in re.split(r",\s+", (slot[2] or "").strip())]
        slots.append((slot[1], items))
        at, more = slot.end(), slot[3] == ","
    return call[1], slots


def score_text(reference, answer):
    """Metrics of a text task."""
    return {
        "exact_match": answer.strip() == reference.strip(),
        "normalized_match": normalize(unfence(answer, reference)) == normalize(reference),
    }


def score_call(reference, answer):
    """Metrics of functional representation; None where the reference is no call."""
    expected = parse_call(reference)
    if expected is None:
        return None
    text = find_text(answer, reference, lambda t: parse_call(t) is not None)
    if parse_call(text) is None:
        text = unfence(answer, reference)
    scores = dict.fromkeys(CALL_METRICS, False) | {
        "exact_match": answer.strip() == reference.strip(),
        "normalized_match": normalize(text) == normalize(reference),
    }
    given = parse_call(text)
    if given is None:
        return scores
    want, have = (
        Counter((name, item) for name, items in call[1] for item in items)
        for call in (expected, given)
    )
    common, n_want, n_have = (want & have).total(), want.total(), have.total()
    both_empty = not (n_want or n_have)
    unordered = [
        (call[0], Counter((name, *sorted(items)) for name, items in call[1]))
        for call in (expected, given)
    ]
    return scores | {
        "function_accuracy": expected[0] == given[0],
        "slot_precision": 1.0 if both_empty else common / n_have if n_have else 0.0,
        "slot_recall": 1.0 if both_empty else common / n_want if n_want else 0.0,
        "slot_f1": 1.0 if both_empty else 2 * common / (n_want + n_have),
        "order_insensitive_match": unordered[0] == unordered[1],
        "valid_format": True,
    }


# --- SQL ----------------------------------------------------------------------------------------

READING = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
}  # fmt: skip
UNREADABLE = ("syntax error", "incomplete input", "unrecognized token", "one statement", "too ")
MAX_ROWS, MAX_BYTES = 100_000, 32_000_000
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
                connection = reverse_rows(connection)
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
        return compare_results(self.reference(file, reference), self.run(file, query), reference)

    def hangs_on_order(self, file, reference):
        """Whether a reference's result is another one where rows are stored backwards; None where
        that cannot be told here."""
        if self.connect(file, is_reversed=True) is None:
            return None
        try:
            other = self.run(file, reference, is_reversed=True)
        except NoResult:
            return True
        found = compare_results(self.reference(file, reference), other, reference)
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


def same_bag(some, others):
    """Whether each row has a partner of its own; equal ones first, then those within tolerance."""
    left, right = Counter(some), Counter(others)
    missing, extra = list((left - right).elements()), list((right - left).elements())
    for row in missing:
        partner = next((i for i, other in enumerate(extra) if same_row(row, other)), None)
        if partner is None:
            return False
        del extra[partner]
    return not extra


def compare_results(expected, given, reference):
    """right, wrong, or open: wrong as SQLite gave the rows, but perhaps right by ties."""
    (columns, rows), (given_columns, given_rows) = expected, given
    if columns != given_columns or len(rows) != len(given_rows):
        return "wrong"
    ordered, cut = is_ordered(reference), "limit" in tokens(reference)
    if same_bag(rows, given_rows):
        if not ordered or all(map(same_row, rows, given_rows)):
            return "right"
        return "open"
    return "open" if cut else "wrong"


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
