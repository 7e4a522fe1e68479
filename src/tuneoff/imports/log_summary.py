"""The summary of an import of request logs, in lines for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KINDS = {
    "key": "keys", "email": "mail addresses", "phone": "phone numbers", "card": "card numbers",
    "iban": "IBANs",
}  # fmt: skip


def describe_import(found: Mapping[str, Any], out: Path) -> list[str]:
    """Return the summary of `import_log` in lines."""
    lines = [
        *_describe_reading(found),
        *_describe_repeats(found),
        *_describe_split(found),
        *_describe_personal_data(found),
    ]
    train, test = (found["written"].get(side) for side in ("train", "test"))
    if train:
        for_test = f" --test {shlex.quote(test)}" if test else ""
        train, file = shlex.quote(train), shlex.quote(str(out / "bakeoff.yaml"))
        lines.append(f"Next: tuneoff check {train}; tuneoff init {train}{for_test} --out {file}")
    return lines


def _describe_reading(found: Mapping[str, Any]) -> list[str]:
    """Return the lines on the rows that were read and left out."""
    files = found["files"][0] if len(found["files"]) == 1 else f"{len(found['files'])} files"
    usable, forms = sum(found["forms"].values()), found["forms"]
    named = next(iter(forms)) if len(forms) == 1 else _join_counts(forms)
    lines = [f"{files}: {_count(found['rows'])}, {usable:,} usable ({named})."]
    if len(found["models"]) > 1:
        lines.append(
            f"models: {_join_counts(found['models'])}; --model NAME keeps the answers of one."
        )
    if found["unreadable"]:
        lines.append(f"could not be read: {_join_reasons(found['unreadable'])}.")
    if found["left_out"]:
        lines.append(f"left out: {_join_reasons(found['left_out'])}.")
    if found["had_response_format"]:
        asked = _count(found["had_response_format"], "request")
        lines.append(
            f"note: {asked} asked for JSON (response_format); a training row cannot, so the model "
            "learns it from the answers alone."
        )
    return lines


def _describe_repeats(found: Mapping[str, Any]) -> list[str]:
    """Return the lines on repeats and older rows."""
    exact, others = found["repeats"]["exact"], found["repeats"].get("other_answers")
    parts = [f"{exact:,} the same conversation again"] if exact else []
    if others:
        parts.append(f"{others:,} another answer to the same prompt (the latest is kept)")
    lines = [f"repeats left out: {'; '.join(parts)}."] if parts else []
    if found["older_than_limit"]:
        lines.append(f"--limit: {_count(found['older_than_limit'], 'older row')} left out.")
    return lines


def _describe_split(found: Mapping[str, Any]) -> list[str]:
    """Return the lines on the two sides."""
    split = found["split"]
    lines = []
    for side in ("train", "test"):
        if side in found["written"]:
            first, last = split[f"{side}_from"], split[f"{side}_to"]
            times = f", {_shorten(first)} to {_shorten(last)}" if first else ""
            lines.append(f"{side}: {_count(split[side])}{times} ({found['written'][side]}).")
    if split["by"] == "order":
        lines.append("note: no row has a time, so the last rows of the files are for the test.")
    elif split["without_time"]:
        lines.append(f"note: for training, as they have no time: {_count(split['without_time'])}.")
    if split["moved_to_train"]:
        moved = _count(split["moved_to_train"], "newer row")
        lines.append(
            f"note: moved to train, where their prompts (but for case, blanks and punctuation) or "
            f"their conversations are: {moved}."
        )
    if not split["test"]:
        lines.append(
            "warning: there is no test row; move the bound with --test-share or --test-from, or "
            "import more conversations."
        )
    if not split["train"]:
        lines.append("warning: there is no training row; move --test-from to a later time.")
    return lines


def _describe_personal_data(found: Mapping[str, Any]) -> list[str]:
    """Return the lines on personal data."""
    lines = []
    for kind, seen in found["personal_data"].items():
        done = "replaced" if kind in found["redacted"] else "found"
        places = "; ".join(f"{p['line']} ({p['source']}): {p['value']}" for p in seen["first"])
        lines.append(f"{KINDS[kind]} {done}: {seen['found']:,} in {_count(seen['rows'])}: {places}")
    left = [kind for kind in found["personal_data"] if kind not in found["redacted"]]
    if left:
        lines.append(
            f"note: nothing was done about {', '.join(KINDS[kind] for kind in left)}; --redact "
            f"{','.join([*found['redacted'], *left])} replaces them, into another --out. Patterns "
            "find no names and no postal addresses."
        )
    return lines


def _count(count: int, noun: str = "row") -> str:
    """Return a count with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _join_counts(counts: Mapping[str, int]) -> str:
    """Return counts with their names."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _join_reasons(reasons: Mapping[str, Mapping[str, Any]]) -> str:
    """Return counts with their reasons, and the first row of each."""
    return "; ".join(
        f"{each['rows']:,} {reason} ({each['first']})" for reason, each in reasons.items()
    )


def _shorten(time: str) -> str:
    """Return a time without its zone."""
    return time.removesuffix("+00:00").replace("T", " ")
