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


def describe_import(summary: Mapping[str, Any], out: Path) -> list[str]:
    """Return the summary of `import_log` in lines."""
    lines = [
        *_describe_reading(summary),
        *_describe_repeats(summary),
        *_describe_split(summary),
        *_describe_personal_data(summary),
    ]
    train, test = (summary["written"].get(side) for side in ("train", "test"))
    if train:
        for_test = f" --test {shlex.quote(test)}" if test else ""
        train, file = shlex.quote(train), shlex.quote(str(out / "bakeoff.yaml"))
        lines.append(f"Next: tuneoff check {train}; tuneoff init {train}{for_test} --out {file}")
    return lines


def _describe_reading(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines on the rows that were read and left out."""
    files = summary["files"][0] if len(summary["files"]) == 1 else f"{len(summary['files'])} files"
    usable, forms = sum(summary["forms"].values()), summary["forms"]
    named = next(iter(forms)) if len(forms) == 1 else _join_counts(forms)
    lines = [f"{files}: {_count(summary['rows'])}, {usable:,} usable ({named})."]
    if len(summary["models"]) > 1:
        lines.append(
            f"models: {_join_counts(summary['models'])}; --model NAME keeps the answers of one."
        )
    if summary["unreadable"]:
        lines.append(f"could not be read: {_join_reasons(summary['unreadable'])}.")
    if summary["left_out"]:
        lines.append(f"left out: {_join_reasons(summary['left_out'])}.")
    if summary["had_response_format"]:
        asked = _count(summary["had_response_format"], "request")
        lines.append(
            f"note: {asked} asked for JSON (response_format); a training row cannot, so the model "
            "learns it from the answers alone."
        )
    return lines


def _describe_repeats(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines on repeats and older rows."""
    exact, others = summary["repeats"]["exact"], summary["repeats"].get("other_answers")
    parts = [f"{exact:,} the same conversation again"] if exact else []
    if others:
        parts.append(f"{others:,} another answer to the same prompt (the latest is kept)")
    lines = [f"repeats left out: {'; '.join(parts)}."] if parts else []
    if summary["older_than_limit"]:
        lines.append(f"--limit: {_count(summary['older_than_limit'], 'older row')} left out.")
    return lines


def _describe_split(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines on the two sides."""
    split = summary["split"]
    lines = []
    for side in ("train", "test"):
        if side in summary["written"]:
            first, last = split[f"{side}_from"], split[f"{side}_to"]
            times = f", {_shorten_time(first)} to {_shorten_time(last)}" if first else ""
            lines.append(f"{side}: {_count(split[side])}{times} ({summary['written'][side]}).")
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


def _describe_personal_data(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines on personal data."""
    lines = []
    for kind, seen in summary["personal_data"].items():
        done = "replaced" if kind in summary["redacted"] else "found"
        places = "; ".join(f"{p['line']} ({p['source']}): {p['value']}" for p in seen["first"])
        lines.append(f"{KINDS[kind]} {done}: {seen['found']:,} in {_count(seen['rows'])}: {places}")
    left = [kind for kind in summary["personal_data"] if kind not in summary["redacted"]]
    if left:
        lines.append(
            f"note: nothing was done about {', '.join(KINDS[kind] for kind in left)}; --redact "
            f"{','.join([*summary['redacted'], *left])} replaces them, into another --out. "
            "Patterns find no names and no postal addresses."
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


def _shorten_time(time: str) -> str:
    """Return a time without its zone."""
    return time.removesuffix("+00:00").replace("T", " ")
