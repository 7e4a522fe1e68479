"""Reads an export of OpenAI's evals: the eval, its runs, their output items, uploaded items.

Source of the fields: `openai.types.evals` and `openai.types.evals.runs`. A page of a list
(`{"object": "list", "data": [..]}`) counts as the objects in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneoff.imports.sources import read_rows
from tuneoff.tasks.columns import PROMPT_NAMES

Values = Mapping[str, Any]
# The name of the run for answers that were uploaded with their items.
UPLOADED_RUN = "uploaded"
_TEXT_PARTS = ("input_text", "output_text", "text")


@dataclass(frozen=True, slots=True)
class EvalOutput:
    """An item of the eval's data, with a run's answer to it."""

    item: Values
    place: str = ""
    """Distinguishes items with the same content."""
    run: str | None = None
    turns: Sequence[Values] | None = None
    """The turns that the model was asked."""
    answer: str | None = None
    """The model's answer."""
    error: str | None = None
    model: str | None = None
    results: Sequence[Values] = ()
    """The scores of OpenAI's graders."""


@dataclass(slots=True)
class EvalExport:
    """The content of an export."""

    name: str | None = None
    criteria: list[Values] = field(default_factory=list)
    prompts: dict[str, Sequence[Values]] = field(default_factory=dict)
    """The templates of the runs' prompts, by run."""
    outputs: list[EvalOutput] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def is_eval_row(row: Values) -> bool:
    """Return whether a row is part of an evals export."""
    if row.get("object") == "list" and isinstance(row.get("data"), list):
        return any(isinstance(each, Mapping) and is_eval_row(each) for each in row["data"])
    if str(row.get("object", "")).startswith("eval"):
        return True
    if isinstance(row.get("testing_criteria"), list):
        return True
    return isinstance(row.get("item"), Mapping) and set(row) <= {"item", "sample"}


def read_export(files: Sequence[Path]) -> EvalExport:
    """Return the content of files."""
    export = EvalExport()
    for file in files:
        for _, row in read_rows(file):
            if isinstance(row, str):
                export.left_out[row] += 1
                continue
            for each in _flatten(row):
                _add_row(export, each)
    return export


def read_turns(value: Any) -> list[dict[str, str]] | None:
    """Return turns with texts as contents; None if there are none, or other contents."""
    if not isinstance(value, list) or not value:
        return None
    turns = []
    for turn in value:
        text = read_text(turn.get("content")) if isinstance(turn, Mapping) else None
        if text is None or not isinstance(turn.get("role"), str):
            return None
        turns.append({"role": turn["role"], "content": text})
    return turns


def read_text(content: Any) -> str | None:
    """Return the text of a turn's content, its parts joined by line breaks; None without text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [
        part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS else part
        for part in parts
    ]
    written = [text for text in texts if isinstance(text, str)]
    return "\n".join(written) if written and len(written) == len(texts) else None


def find_item_turns(item: Values, reference: str | None) -> list[dict[str, str]] | None:
    """Return the prompt that an item holds, under a usual name; None without one."""
    for name in ("messages", *PROMPT_NAMES):
        value = item.get(name)
        if name == reference:
            continue
        if isinstance(value, str) and value.strip():
            return [{"role": "user", "content": value}]
        if (turns := read_turns(value)) is not None:
            return turns
    return None


def _flatten(row: Values) -> Iterator[Values]:
    """Yield the objects of a list's page, or the row itself."""
    if row.get("object") == "list" and isinstance(row.get("data"), list):
        yield from (each for each in row["data"] if isinstance(each, Mapping))
    else:
        yield row


def _add_row(export: EvalExport, row: Values) -> None:
    """Add a row to the export."""
    source = row.get("data_source")
    if isinstance(row.get("testing_criteria"), list):
        export.name = export.name or row.get("name")
        export.criteria += [each for each in row["testing_criteria"] if isinstance(each, Mapping)]
    elif isinstance(row.get("datasource_item"), Mapping):
        export.outputs.append(_read_output(row))
    elif isinstance(source, Mapping):
        asked = source.get("input_messages")
        template = asked.get("template") if isinstance(asked, Mapping) else None
        if isinstance(template, list):
            export.prompts[str(row.get("id"))] = template
    elif isinstance(row.get("item"), Mapping):
        sample = row.get("sample")
        answer = sample.get("output_text") if isinstance(sample, Mapping) else None
        if isinstance(answer, str):
            export.outputs.append(EvalOutput(row["item"], run=UPLOADED_RUN, answer=answer))
        else:
            export.outputs.append(EvalOutput(row["item"]))
    else:
        export.left_out["neither an eval, a run, an output item nor an item"] += 1


def _read_output(row: Values) -> EvalOutput:
    """Return the output of an output item."""
    item, sample = row["datasource_item"], row.get("sample")
    if set(item) <= {"item", "sample"} and isinstance(item.get("item"), Mapping):
        item = item["item"]
    sample = sample if isinstance(sample, Mapping) else {}
    said = [turn for turn in sample.get("output") or [] if isinstance(turn, Mapping)]
    texts = [text for turn in said if (text := read_text(turn.get("content"))) is not None]
    results = [each for each in row.get("results") or [] if isinstance(each, Mapping)]
    return EvalOutput(
        item,
        str(row.get("datasource_item_id", "")),
        str(row.get("run_id") or "run"),
        read_turns(sample.get("input")),
        texts[-1] if texts else None,
        _read_error(sample.get("error")),
        sample.get("model") if isinstance(sample.get("model"), str) else None,
        results,
    )


def _read_error(error: Any) -> str | None:
    """Return an error's message; None without an error."""
    if isinstance(error, Mapping):
        return str(error.get("message") or error.get("code") or "") or None
    return str(error) if error else None
