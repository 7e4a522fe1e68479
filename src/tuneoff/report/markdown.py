"""Escapes text in Markdown, as autoescape does in HTML.

`finalize` runs on every value that a template shows, and escapes it for a line or a table cell.
`format_code` and `format_fence` show text literally and return `Markup`, which `finalize` passes.
"""

from __future__ import annotations

import re
from typing import Any

from tuneoff.report import format as f

_PUNCTUATION = re.compile(r"([\\`*_{}\[\]#~|$!])")


def escape(text: str) -> str:
    """Return one line of text that no Markdown reader takes for markup."""
    line = " ".join(f.clean(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _PUNCTUATION.sub(r"\\\1", line)
    # Where a report is pasted, bare addresses would become links, and @names would notify people.
    return line.replace("://", ":&#47;/").replace("www.", "www&#46;").replace("@", "&#64;")


def finalize(value: Any) -> Any:
    """Return a shown value, escaped if it is a plain string (jinja2's hook)."""
    return escape(value) if type(value) is str else value


def format_code(text: str) -> Any:
    """Return text as a code span for a table cell, the pipe escaped, line breaks as spaces."""
    from markupsafe import Markup

    line = " ".join(f.clean(text).split()).replace("|", "\\|")
    ticks = "`" * (_count_longest_run(line, "`") + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{ticks}{pad}{line}{pad}{ticks}" if line else "")


def format_fence(text: str, language: str = "text") -> Any:
    """Return text as a fenced block; the fence is longer than any run of backticks in it."""
    from markupsafe import Markup

    shown = f.clean(text)
    ticks = "`" * max(3, _count_longest_run(shown, "`") + 1)
    return Markup(f"{ticks}{language}\n{shown.rstrip(chr(10))}\n{ticks}")


def _count_longest_run(text: str, character: str) -> int:
    """Return the length of the longest run of a character."""
    return max((len(run) for run in re.findall(re.escape(character) + "+", text)), default=0)
