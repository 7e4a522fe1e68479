"""Maps a file's columns to prompt, answer and system text, and finds columns that nobody uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from tuneoff.config.base import Columns
from tuneoff.errors import DataError
from tuneoff.records import Example
from tuneoff.tasks.readers import (
    DataRow,
    Record,
    get_optional_text,
    get_required_text,
    get_row_id,
    read_records,
)
from tuneoff.tasks.text_lines import Warn

# Usual column names, the likeliest first; and the columns that may follow the first one in a
# prompt.
PROMPT_NAMES = ("prompt", "instruction", "input", "question", "text", "query", "source")
JOINED_NAMES: Mapping[str, Sequence[str]] = {"instruction": ("question", "input", "context")}
JOINED_TO_ANY = ("context",)
COMPLETION_NAMES = ("completion", "output", "answer", "response", "label", "target", "reference")
SYSTEM_NAMES = ("system", "system_prompt")
# A column with one of these names matters to a model even if it holds a list.
TEXT_NAMES = {*PROMPT_NAMES, *JOINED_TO_ANY, *SYSTEM_NAMES}
# Rows that are searched for names: in JSONL a row may lack keys that others have.
MAX_SCANNED_ROWS = 1000
# The keys that matter in a row of chat messages.
TURN_KEYS = ("messages", "id", "meta")


def find_columns(path: Path, encoding: str | None = None) -> Columns | None:
    """Return the columns of a file, found by name; None for chat messages.

    Raises:
        DataError: no column looks like a prompt or an answer, or two columns match equally well.
    """
    rows = [record.row for record in islice(read_records(path, encoding), MAX_SCANNED_ROWS)]
    if "messages" in rows[0]:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row if "messages" not in row))
    known = _normalize_names(names)
    prompt = next((name for name in PROMPT_NAMES if name in known), None)
    completion = next((name for name in COMPLETION_NAMES if name in known), None)
    if prompt is None or completion is None:
        missing = "a prompt" if prompt is None else "an answer"
        raise DataError(
            f"{path}: no column looks like {missing} (there are: "
            f"{', '.join(map(str, names)) or 'none'}); name them in the bake-off file under "
            "task.columns, or rename them to prompt and completion."
        )

    def may_join(name: str) -> bool:
        # A number is refused when its row is read. Lists and objects are never text.
        values = (row.get(column) for row in rows for column in known.get(name, ()))
        return name in known and not any(isinstance(value, (list, dict)) for value in values)

    joined = [name for name in JOINED_NAMES.get(prompt, JOINED_TO_ANY) if may_join(name)]
    system = next((name for name in SYSTEM_NAMES if may_join(name)), None)
    prompts = tuple(_get_single_column(known[name], path) for name in (prompt, *joined))
    return Columns(
        prompt=prompts if joined else prompts[0],
        completion=_get_single_column(known[completion], path),
        system=_get_single_column(known[system], path) if system else None,
        encoding=encoding,
    )


def _normalize_names(names: Sequence[Any]) -> dict[str, list[str]]:
    """Return normalized names, each with the columns that have it."""
    known: dict[str, list[str]] = {}
    for name in map(str, names):
        known.setdefault(name.strip().lower().replace(" ", "_"), []).append(name)
    return known


def _get_single_column(columns: Sequence[str], path: Path) -> str:
    if len(columns) > 1:
        raise DataError(
            f"{path}: the columns {columns[0]!r} and {columns[1]!r} differ only in how they are "
            "written; name the right one under task.columns, or rename the other."
        )
    return columns[0]


def describe_columns(columns: Columns) -> str:
    """Return one line about the use of each column."""
    system = f", system from {columns.system}" if columns.system else ""
    return f"prompt from {' + '.join(columns.prompts)}, answer from {columns.completion}{system}"


def make_example(record: Record, columns: Columns, default_id: str) -> Example:
    """Return a row as an example: an optional system turn, then one user turn.

    Raises:
        DataError: a required column is missing, empty or not text.
    """
    row = record.row

    def where(part: str, key: str) -> str:
        return record.where if key == part else f"{record.where}: task.columns.{part}"

    first, *others = columns.prompts
    texts = [get_required_text(row, first, where("prompt", first))]
    texts += [
        text
        for key in others
        if (text := get_optional_text(row, key, where("prompt", key))) is not None
    ]
    turns = [{"role": "user", "content": "\n\n".join(texts)}]
    if columns.system is not None:
        system = get_optional_text(row, columns.system, where("system", columns.system))
        if system is not None:
            turns.insert(0, {"role": "system", "content": system})
    example_id = get_row_id(row, columns.id, default_id) if columns.id else default_id
    answer = get_required_text(row, columns.completion, where("completion", columns.completion))
    return Example(example_id, {"messages": turns}, answer)


class ColumnUsage:
    """Collects the columns of a file that are unused or missing."""

    def __init__(self) -> None:
        self._unused: dict[str, None] = {}
        self._seen: dict[str, None] = {}

    def add_row(self, row: DataRow, used: Collection[str | None]) -> None:
        """Record the columns of one row.

        Args:
            used: the columns that the example uses.
        """
        self._seen.update(dict.fromkeys(row))
        for name, value in row.items():
            if name in used or name in self._unused:
                continue
            if _is_text(value) or (name in TEXT_NAMES and value):
                self._unused[name] = None

    def warn(self, path: Path, columns: Columns | None, warn: Warn) -> None:
        """Warn about unused and missing columns, after the last row.

        Raises:
            DataError: no row has the column that is named for the system text.
        """
        if columns is not None:
            self._warn_absent(path, columns, warn)
        if self._unused:
            several = len(self._unused) > 1
            columns_are, them = ("columns {} are", "them") if several else ("column {} is", "it")
            unused = columns_are.format(", ".join(map(repr, self._unused)))
            put = (
                "task.columns.prompt takes a list of columns to join"
                if columns
                else "what a model is to see must stand in the messages"
            )
            warn(f"{path}: the {unused} not used, so no model sees {them}; {put}.")

    def _warn_absent(self, path: Path, columns: Columns, warn: Warn) -> None:
        there = f"(it has: {', '.join(map(str, self._seen))})"
        if columns.system is not None and columns.system not in self._seen:
            raise DataError(
                f"{path}: task.columns.system: no row has a {columns.system!r} {there}; name "
                "another column, or take it out."
            )
        for part, name in (("id", columns.id), *(("prompt", n) for n in columns.prompts[1:])):
            if name is not None and name not in self._seen:
                warn(f"{path}: task.columns.{part}: no row has a {name!r} {there}.")


def _is_text(value: Any) -> bool:
    """Return whether a value holds words, also inside a list or an object.

    Numbers are not words, even as text in a CSV file.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return any(map(_is_text, value))
    if not isinstance(value, str) or not value.strip():
        return False
    with suppress(ValueError):
        float(value.replace(",", "."))
        return False
    return True
