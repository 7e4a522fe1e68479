"""Extracts the query from an answer, without the text around it.

Models like to write `SQL:` before a query, a fence around it, a comment or a semicolon after it.
Strict mode forgives this in every metric but `exact_match`; the verdict is then `right but for
form`. Official mode removes nothing: its evaluator forgives only the semicolon. Text that SQLite
ignores may surround a query: its blanks, comments, empty statements and a byte order mark. A
no-break space is a letter to SQLite, and stays.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tuneoff.scoring.answer_text import find_in_language, strip_blanks
from tuneoff.scoring.sql.sandbox import is_readable

_LABEL = re.compile(
    r"[\s>*_#\ufeff]*(?:(?:here is|here's|the|this|your|my|final|correct|sql|sqlite)\s+)*"
    r"(?:sql[ _]?query|sql|sqlite|query|statement|code|answer|response|output|solution)"
    r"[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"\s*(?:\w*sql\w*)\s+(?=(?:select|with|values)\b)", re.IGNORECASE)
# SQLite's tokens, in the detail that is needed to find the end of a statement.
_TOKENS = re.compile(
    r"""(?P<nothing>[ \t\n\f\r]+|\ufeff|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<quoted>'(?:''|[^'])*'?|"(?:""|[^"])*"?|`(?:``|[^`])*`?|\[[^\]]*\]?)
    |(?P<word>[\w$\u0080-\U0010ffff]+)|(?P<end>;)|(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_QUERIES, _WRITES = ("select", "values"), ("insert", "replace", "update", "delete")


class Statements(NamedTuple):
    """A text without what SQLite ignores around it, and its statements."""

    text: str
    statements: int
    verb: str
    """The first statement's main word in lower case; after WITH, that of the statement."""


def find_query(answer: str, reference: str, ask_sqlite: bool = True) -> str:
    """Return the query of an answer, without fence, label, and text that SQLite ignores.

    Args:
        reference: if it is fenced, the answer's fence stays.
        ask_sqlite: whether SQLite may parse fenced texts, to find the last query.

    >>> find_query("Sure!\\n```sql\\nSELECT 1; -- one\\n```", "SELECT 1")
    'SELECT 1'
    """
    tests = (_has_query, _has_query_start) if ask_sqlite else (_has_query_start,)
    return _strip_label(find_in_language(answer, reference, *tests))


def split_statements(sql: str) -> Statements:
    """Return a text's statements, and the text without the parts around it that SQLite ignores."""
    first = last = None
    count = depth = 0
    verb, begins = "", True
    for token in _TOKENS.finditer(sql):
        kind = token.lastgroup
        if kind == "nothing":
            continue
        if kind == "end":
            begins = True
            continue
        first = token.start() if first is None else first
        last = token.end()
        count += begins
        if kind == "sign":
            depth += (token[0] == "(") - (token[0] == ")")
        elif kind == "word" and count == 1 and depth == 0:
            word = token[0].lower()
            if begins or (verb == "with" and word in _QUERIES + _WRITES):
                verb = word
        begins = False
    return Statements("" if first is None else sql[first:last], count, verb)


def is_query(sql: str) -> bool:
    """Return whether SQLite parses a text as one query."""
    parsed = split_statements(sql)
    return parsed.statements == 1 and parsed.verb in _QUERIES and is_readable(parsed.text)


def _strip_label(text: str) -> str:
    for pattern in (_LABEL, _LANGUAGE):
        match = pattern.match(text)
        text = text[match.end() :] if match else text
    return split_statements(strip_blanks(text)).text or text.strip()


def _has_query(text: str) -> bool:
    return is_query(_strip_label(text))


def _has_query_start(text: str) -> bool:
    return split_statements(_strip_label(text)).verb in (*_QUERIES, "with")
