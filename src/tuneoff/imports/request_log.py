"""Converts a log of requests to a training file and a test file of chat rows.

Rows that cannot be trained on are left out by reason, repeats are dropped, the newest rows become
the test set, and personal data is reported. The log is read once; its rows wait in a spool on disk.
"""

from __future__ import annotations

import datetime
import filecmp
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuneoff.errors import ConfigError, DataError
from tuneoff.imports.log_spool import LogSpool, Side, SpooledRow
from tuneoff.imports.options import ImportOptions
from tuneoff.imports.personal_data import find_personal_data, redact
from tuneoff.imports.request_forms import (
    NO_PROMPT,
    Conversation,
    LeftOutError,
    Turn,
    read_conversation,
)
from tuneoff.imports.sources import read_rows
from tuneoff.records import Example
from tuneoff.storage.files import format_line
from tuneoff.tasks.splits import build_input_key, keep_letters
from tuneoff.tasks.training_rows import split_answer

SIDES: tuple[Side, ...] = ("train", "test")
OTHER_MODEL = "answers of another model"
# Instructions are the same in most rows, so results are cached.
_find_personal_data = lru_cache(maxsize=64)(find_personal_data)
# Max examples of one kind of personal data in the summary.
MAX_SHOWN = 3
MAX_MODELS = 20
HASH_BYTES = 16


@dataclass
class LogCounts:
    """The number of rows that were read, by outcome."""

    rows: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: dict[str, dict[str, Any]] = field(default_factory=dict)
    had_format: int = 0

    def count_left_out(self, kind: dict[str, dict[str, Any]], reason: str, place: str) -> None:
        """Count a row that is left out, and keep the first one's place."""
        kind.setdefault(reason, {"rows": 0, "first": place})["rows"] += 1


def import_log(files: Sequence[Path], out: Path, options: ImportOptions) -> dict[str, Any]:
    """Write `train.jsonl` and `test.jsonl` of request logs; return a summary.

    Raises:
        ConfigError: `out` holds another import, or an option does not fit the log.
        DataError: no row of the log can be used.
    """
    inside = next((file for file in files if file.parent.resolve() == out.resolve()), None)
    if inside is not None:
        raise ConfigError(f"--out {out}: {inside} is read from there; give another folder.")
    with _open_work_folder(out) as work, LogSpool(work / "rows.sqlite") as spool:
        counts = _fill_spool(spool, files, options)
        repeats = {"exact": spool.leave_out_repeats("whole")}
        if options.repeats == "latest":
            repeats["other_answers"] = spool.leave_out_repeats("prompt")
        older = spool.keep_newest(options.limit) if options.limit is not None else 0
        split = _split_rows(spool, options)
        personal: dict[str, dict[str, Any]] = {}
        for side in SIDES:
            _write_side(spool, side, work, files, personal)
        written = _put_in_place(work, out)
    return {
        "files": [str(file) for file in files],
        "rows": counts.rows,
        "forms": dict(counts.forms),
        "models": dict(counts.models.most_common(MAX_MODELS)),
        "unreadable": counts.unreadable,
        "left_out": counts.left_out,
        "had_response_format": counts.had_format,
        "repeats": repeats,
        "older_than_limit": older,
        "split": split,
        "personal_data": personal,
        "redacted": list(options.redact),
        "written": {side: str(file) for side, file in written.items()},
    }


# --- reading ----------------------------------------------------------------------------------


def _fill_spool(spool: LogSpool, files: Sequence[Path], options: ImportOptions) -> LogCounts:
    """Add all usable rows to the spool; return the counts.

    Raises:
        DataError: there is no usable row.
    """
    counts, used = LogCounts(), 0
    for source, file in enumerate(files):
        for line, row in read_rows(file):
            counts.rows += 1
            place = f"{file}:{line}"
            if isinstance(row, str):
                counts.count_left_out(counts.unreadable, row, place)
                continue
            try:
                conversation = read_conversation(row)
            except LeftOutError as reason:
                counts.count_left_out(counts.left_out, str(reason), place)
                continue
            counts.models[conversation.models[0] if conversation.models else "not named"] += 1
            if options.model is not None and options.model not in conversation.models:
                counts.count_left_out(counts.left_out, OTHER_MODEL, place)
                continue
            used += 1
            counts.forms[conversation.form] += 1
            counts.had_format += conversation.had_format
            spool.add(_make_row(conversation, source, line, options.redact))
    if not used:
        raise DataError(_explain_no_rows(files, counts, options))
    return counts


def _explain_no_rows(files: Sequence[Path], counts: LogCounts, options: ImportOptions) -> str:
    """Return why no row could be used, as a sentence."""
    named = str(files[0]) if len(files) == 1 else f"{len(files)} files"
    reasons = counts.unreadable | counts.left_out
    reason, most = max(reasons.items(), key=lambda each: each[1]["rows"], default=("", {}))
    if reason == OTHER_MODEL:
        models = ", ".join(f"{name} ({rows})" for name, rows in counts.models.most_common(5))
        return f"--model {options.model}: no answer of {named} is its own; there are: {models}."
    sentence = (
        f"{named}: none of {counts.rows} rows became a training row, most for this reason: "
        f"{reason} ({most.get('rows', 0)}, the first at {most.get('first')})"
    )
    if reason == NO_PROMPT:
        sentence += (
            "; OpenAI serves a stored completion's messages at another route, so put them into "
            "its row as `messages` (docs/logs.md has the lines)"
        )
    return f"{sentence}."


def _make_row(
    conversation: Conversation, source: int, line: int, redacted: Sequence[str]
) -> SpooledRow:
    """Return the row of a conversation for the spool."""
    personal_data: list[tuple[str, str]] = []
    turns = [
        {**turn, "content": _search_text(turn["content"], redacted, personal_data)}
        for turn in conversation.turns
    ]
    row: dict[str, Any] = {"messages": turns}
    ids = {"user": conversation.user, "conversation": conversation.conversation}
    # A redacted id no longer distinguishes anything, so it is dropped.
    meta = {
        key: value
        for key, value in ids.items()
        if value is not None and _search_text(value, redacted, personal_data) == value
    }
    if meta:
        row["meta"] = meta
    key, whole = _hash_turns(turns)
    first = next(place for place, turn in enumerate(turns) if turn["role"] == "assistant")
    opening = whole if first == len(turns) - 1 else _hash_turns(turns[: first + 1])[1]
    name = conversation.conversation
    return SpooledRow(
        source,
        line,
        conversation.seconds,
        whole,
        _hash_text(key),
        _hash_text(keep_letters(key)),
        opening,
        _hash_text(name) if name is not None else None,
        personal_data,
        format_line(row),
    )


def _search_text(text: str, redacted: Sequence[str], personal_data: list[tuple[str, str]]) -> str:
    """Add a text's personal data to `personal_data`; return the text, redacted if asked."""
    findings = _find_personal_data(text)
    if not findings:
        return text
    personal_data += [(finding.kind, finding.masked) for finding in findings]
    return redact(text, [finding for finding in findings if finding.kind in redacted])


def _hash_turns(turns: Sequence[Turn]) -> tuple[str, bytes]:
    """Return the key of the turns' prompt, equal for the same prompts, and the hash of all turns.

    The hash is that of an example (`Example.sha256`).
    """
    before, answer = split_answer(turns)
    key = build_input_key(Example("", {"messages": before}, answer))
    return key, _hash_text(f"[{key}, {json.dumps(answer, ensure_ascii=False)}]")


def _hash_text(text: str) -> bytes:
    """Return the first bytes of a text's SHA-256."""
    return hashlib.sha256(text.encode()).digest()[:HASH_BYTES]


# --- the split --------------------------------------------------------------------------------


def _split_rows(spool: LogSpool, options: ImportOptions) -> dict[str, Any]:
    """Split the rows by time, or by order if no row has a time; return the summary."""
    rows, timed = spool.count_open()
    if options.test_from is not None:
        if not timed:
            raise ConfigError(
                "--test-from: no row of the log has a time; give --test-share, which splits the "
                "rows in the order of the file."
            )
        spool.split_by_time(options.test_from.timestamp())
    else:
        count = round(options.test_share * rows)
        if options.test_share > 0 and rows > 1:
            count = min(max(1, count), rows - 1)
        spool.split_by_count(count, timed_only=timed > 0)
    moved = spool.move_known_to_train()
    train, oldest, before = spool.find_bounds("train")
    test, start, newest = spool.find_bounds("test")
    return {
        "by": "time" if timed else "order",
        "train": train,
        "test": test,
        "without_time": rows - timed,
        "moved_to_train": moved,
        "train_from": _format_time(oldest),
        "train_to": _format_time(before),
        "test_from": _format_time(start),
        "test_to": _format_time(newest),
    }


def _format_time(seconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC; None without one."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


# --- writing ----------------------------------------------------------------------------------


@contextmanager
def _open_work_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder inside `out`; afterwards delete it, and `out` if it is empty."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: this is a file; give a folder with --out.")
    work = out / ".import"
    try:
        shutil.rmtree(work, ignore_errors=True)  # from an import that was cut off
        work.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot write there ({error.strerror}).") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            out.rmdir()


def _write_side(
    spool: LogSpool,
    side: Side,
    work: Path,
    files: Sequence[Path],
    personal: dict[str, dict[str, Any]],
) -> None:
    """Write a side's rows, and count their personal data. A side without rows has no file."""
    file = work / f"{side}.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for number, (source, line, personal_data, text) in enumerate(spool.read_side(side), 1):
            stream.write(text)
            place = {"line": f"{file.name}:{number}", "source": f"{files[source]}:{line}"}
            for kind in dict.fromkeys(kind for kind, _ in personal_data):
                values = [value for each, value in personal_data if each == kind]
                seen = personal.setdefault(kind, {"found": 0, "rows": 0, "first": []})
                seen["found"] += len(values)
                seen["rows"] += 1
                if len(seen["first"]) < MAX_SHOWN:
                    seen["first"].append({**place, "value": values[0]})
    if file.stat().st_size == 0:
        file.unlink()


def _put_in_place(work: Path, out: Path) -> Mapping[Side, Path]:
    """Move the written files to their place; return their paths.

    Raises:
        ConfigError: another import is there, which is left as it is.
    """
    for side in SIDES:
        new, old = work / f"{side}.jsonl", out / f"{side}.jsonl"
        if old.exists() and not (new.exists() and filecmp.cmp(new, old, shallow=False)):
            raise ConfigError(
                f"{old}: the file is there already, and would become another one; give another "
                "folder with --out, or remove it."
            )
    written: dict[Side, Path] = {}
    for side in SIDES:
        new, old = work / f"{side}.jsonl", out / f"{side}.jsonl"
        if new.exists():
            new.replace(old)
            written[side] = old
    return written
