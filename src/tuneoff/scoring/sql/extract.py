"""Finds the query in an answer: takes off what stands around it and is no part of it.

Models like to say `SQL:` first, to put a fence around a query, a comment or a semicolon behind it.
A strict reading forgives that in everything but `exact_match`; the verdict then says `right but
for form`. Official mode takes nothing off: its evaluator forgives only the semicolon. What may
stand around a query is what SQLite reads as nothing: its blanks, comments, empty statements and a
byte order mark. A no-break space is a letter to SQLite, and stays.
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
# SQLite's tokens, as far as they tell where a statement ends.
_TOKENS = re.compile(
    r"""(?P<nothing>[ \t\n\f\r]+|\ufeff|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<quoted>'(?:''|[^'])*'?|"(?:""|[^"])*"?|`(?:``|[^`])*`?|\[[^\]]*\]?)
    |(?P<word>[\w$\u0080-\U0010ffff]+)|(?P<end>;)|(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_QUERIES, _WRITES = ("select", "values"), ("insert", "replace", "update", "delete")


class Statements(NamedTuple):
    """A text up to what SQLite reads as nothing, and what it holds.

    `verb` is the first statement's main word in lower case; behind WITH that of what follows.
    """

    text: str
    statements: int
    verb: str


def find_query(answer: str, reference: str, ask_sqlite: bool = True) -> str:
    """Returns the query of an answer, without fence, label, and what SQLite reads as nothing.

    Args:
        reference: where it is fenced, the answer's fence stays.
        ask_sqlite: whether SQLite may look at what is fenced, to find the last query.

    >>> find_query("Sure!\\n```sql\\nSELECT 1; -- one\\n```", "SELECT 1")
    'SELECT 1'
    """
    tests = (_holds_query, _begins_query) if ask_sqlite else (_begins_query,)
    return _unlabelled(find_in_language(answer, reference, *tests))


def split_statements(sql: str) -> Statements:
    """Returns a text without what SQLite reads as nothing around it, and what it holds."""
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
    """Tells whether SQLite reads a text as one query."""
    found = split_statements(sql)
    return found.statements == 1 and found.verb in _QUERIES and is_readable(found.text)


def _unlabelled(text: str) -> str:
    for pattern in (_LABEL, _LANGUAGE):
        found = pattern.match(text)
        text = text[found.end() :] if found else text
    return split_statements(strip_blanks(text)).text or text.strip()


def _holds_query(text: str) -> bool:
    return is_query(_unlabelled(text))


def _begins_query(text: str) -> bool:
    return split_statements(_unlabelled(text)).verb in (*_QUERIES, "with")
