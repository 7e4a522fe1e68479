"""Templates of OpenAI's graders: `{{ item.label }}`, `{{ sample.output_json.names[0] }}`.

`item` is a row of the eval's data; `sample` is the model's answer. Source: OpenAI's guide
"Graders", section "Templating".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.errors import ConfigError
from tuneoff.scoring.base import ScoringInput

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD = re.compile(r"\s*(item|sample)((?:\s*\.\s*[^.\[\]{}'\"]+|\[\s*\d+\s*\]|\[(['\"]).*?\3\])+)")
_STEP = re.compile(r"\.\s*([^.\[\]{}'\"]+)|\[\s*(\d+)\s*\]|\[(['\"])(.*?)\3\]")
# The fields of a sample that a text answer has. It has no tool calls and no audio.
SAMPLE_FIELDS = ("output_text", "output_json", "choices")


class MissingFieldError(LookupError):
    """A template names a field that a row or an answer lacks."""

    def __init__(self, field: TemplateField, there: str) -> None:
        super().__init__(f"{field.written} is not there ({there})")
        self.field = field


@dataclass(frozen=True, slots=True)
class TemplateField:
    """A field of an item or a sample, as a template names it."""

    namespace: str
    path: tuple[str | int, ...]

    @property
    def written(self) -> str:
        """Return the field as a template writes it."""
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return self.namespace + "".join(steps)

    def look_up(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Any:
        """Return the value of the field.

        Raises:
            MissingFieldError: there is no such field.
        """
        value: Any = item if self.namespace == "item" else sample
        for step in self.path:
            if not _has_step(value, step):
                raise MissingFieldError(self, _describe_value(value))
            value = value[step]
        return value


class GraderTemplate:
    """A text with fields to fill in."""

    def __init__(self, text: str, where: str) -> None:
        """Parse a template.

        Raises:
            ConfigError: it names a field that no text grader has.
        """
        self.pieces: list[str | TemplateField] = []
        end = 0
        for braces in _BRACES.finditer(text):
            self.pieces += [text[end : braces.start()], _parse_field(braces, where)]
            end = braces.end()
        self.pieces.append(text[end:])
        self.pieces = [piece for piece in self.pieces if piece != ""]

    @property
    def fields(self) -> list[TemplateField]:
        """Return the fields that the template names."""
        return [piece for piece in self.pieces if isinstance(piece, TemplateField)]

    def find_only_field(self) -> TemplateField | None:
        """Return the only field of a template without other text, or None."""
        only = self.pieces[0] if len(self.pieces) == 1 else None
        return only if isinstance(only, TemplateField) else None

    def render(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
        """Return the text with its fields filled in.

        Raises:
            MissingFieldError: a field is missing.
        """
        return "".join(
            piece if isinstance(piece, str) else render_value(piece.look_up(item, sample))
            for piece in self.pieces
        )


def build_item(row: ScoringInput) -> Mapping[str, Any]:
    """Return the `item` of an example.

    It is the example's own if it was imported, else meta, inputs and `completion`.
    """
    own = row.meta.get("item")
    if isinstance(own, Mapping):
        return own
    return {**row.meta, **row.inputs, "completion": row.reference}


def build_sample(answer: str) -> dict[str, Any]:
    """Return the `sample` of an answer; `output_json` is None if the answer is not JSON."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    message = {"role": "assistant", "content": answer}
    return {
        "output_text": answer,
        "output_json": value if isinstance(value, (dict, list)) else None,
        "output_tools": [],
        "output_audio": None,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


def read_answer(row: ScoringInput) -> str:
    """Return the answer that a grader gets: as it came, or without its thought."""
    return row.prediction if row.prediction == row.raw_prediction else row.prediction.strip()


def render_value(value: Any) -> str:
    """Return a value as text; anything but text becomes JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parse_field(braces: re.Match[str], where: str) -> TemplateField:
    field = _FIELD.fullmatch(braces[1].rstrip())
    if field is None:
        raise ConfigError(
            f"{where}: cannot read the template {braces[0]!r:.60}; allowed are fields of item and "
            "sample, such as {{ item.label }} and {{ sample.output_text }}."
        )
    path = tuple(
        int(step[2]) if step[2] else (step[1].strip() if step[1] else step[4])
        for step in _STEP.finditer(field[2])
    )
    if field[1] == "sample" and path[0] not in SAMPLE_FIELDS:
        raise ConfigError(
            f"{where}: the template names sample.{path[0]}, and the answers here are texts; "
            f"allowed of a sample: {', '.join(SAMPLE_FIELDS)}."
        )
    return TemplateField(field[1], path)


def _has_step(value: Any, step: str | int) -> bool:
    if isinstance(step, str):
        return isinstance(value, Mapping) and step in value
    return _is_list(value) and step < len(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _describe_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"there are: {', '.join(map(str, value)) or 'no fields'}"
    return f"a list of {len(value)}" if _is_list(value) else f"{render_value(value)!r:.40}"
