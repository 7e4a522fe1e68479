"""The query in an answer: what stands around it and is not SQL is taken away.

Models like to say `SQL:` first, to put a code fence around a query, or a semicolon after it.
A strict reading forgives that in everything but `exact_match`; the verdict then says `right
but for form`. (The official evaluator forgives only the semicolon, and so does official mode.)
"""

from __future__ import annotations

import re

from tuneoff.scoring.text import FENCED

_LABEL = re.compile(r"\s*(?:sql(?:ite)?(?: query)?|query|answer|response)\s*:\s*", re.IGNORECASE)


def query_in(answer: str) -> str:
    """The query of an answer: the inside of its only code fence, without a label before it or
    semicolons after it.

    >>> query_in("Sure!\\n```sql\\nSELECT 1;\\n```")
    'SELECT 1'
    """
    fenced = FENCED.findall(answer)
    text = fenced[0] if len(fenced) == 1 else answer
    label = _LABEL.match(text)
    return (text[label.end() :] if label else text).strip().rstrip("; \t\r\n")
