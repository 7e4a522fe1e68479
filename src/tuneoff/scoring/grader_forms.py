"""OpenAI's grader objects as they are exported, and their files.

Source of the fields: `openai.types.graders`, and for `pass_threshold` an eval's testing criteria.
Keys that have nothing to do with grading (`id`, `image_tag`) are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tuneoff.errors import ConfigError, explain_unknown
from tuneoff.scoring.questions import MAX_REPLY_TOKENS
from tuneoff.scoring.similarity import SIMILARITIES

SUFFIXES = (".json", ".yaml", ".yml")
GRADER_TYPES = ("string_check", "text_similarity", "score_model", "label_model", "python", "multi")
# OpenAI's metrics that are not documented well enough to compute the same values.
NOT_OFFERED = ("bleu", "gleu", "meteor", "cosine")


class GraderForm(BaseModel):
    """The fields that every grader has."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())
    name: str = ""
    pass_threshold: float | None = Field(default=None, allow_inf_nan=False)


class StringCheckForm(GraderForm):
    type: Literal["string_check"]
    # `neq` is the spelling of `ne` in OpenAI's guide.
    operation: Literal["eq", "ne", "neq", "like", "ilike"]
    input: str
    reference: str


class TextSimilarityForm(GraderForm):
    type: Literal["text_similarity"]
    evaluation_metric: str
    input: str
    reference: str


class PythonForm(GraderForm):
    type: Literal["python"]
    source: str


class SamplingParams(BaseModel):
    """The sampling parameters of a grader's model."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    max_completions_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """The name of `max_completions_tokens` in some of OpenAI's examples."""
    reasoning_effort: str | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = None

    def get_max_reply_tokens(self) -> int:
        """Return the most tokens of a reply."""
        return self.max_completions_tokens or self.max_tokens or MAX_REPLY_TOKENS


class GraderTurn(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    role: Literal["user", "assistant", "system", "developer"]
    content: Any


class ModelGraderForm(GraderForm):
    """The fields of the graders that call a model."""

    model: str = Field(min_length=1)
    input: tuple[GraderTurn, ...] = Field(min_length=1)
    sampling_params: SamplingParams = SamplingParams()


class ScoreModelForm(ModelGraderForm):
    type: Literal["score_model"]
    range: tuple[float, float] = (0.0, 1.0)


class LabelModelForm(ModelGraderForm):
    type: Literal["label_model"]
    labels: tuple[str, ...] = Field(min_length=1)
    passing_labels: tuple[str, ...]


class MultiForm(GraderForm):
    type: Literal["multi"]
    graders: dict[str, dict[str, Any]] = Field(min_length=1)
    calculate_output: str


AnyForm = (
    StringCheckForm | TextSimilarityForm | PythonForm | ScoreModelForm | LabelModelForm | MultiForm
)
_ADAPTER: TypeAdapter[AnyForm] = TypeAdapter(Annotated[AnyForm, Field(discriminator="type")])


def is_grader_file(path: str) -> bool:
    """Return whether a metric of a bake-off file is the path of a grader file."""
    return path.lower().endswith(SUFFIXES)


def read_grader(path: Path) -> AnyForm:
    """Return the grader of a file.

    Raises:
        ConfigError: there is no such file, or no grader in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"grader {str(path)!r}: there is no such file; check the path.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path}: this is no JSON or YAML that can be read ({first}).") from None
    return check_grader(value, str(path))


def check_grader(value: Any, where: str) -> AnyForm:
    """Return a grader object, validated.

    Raises:
        ConfigError: it is not a grader, or one that cannot be computed here.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: this is no grader but a {type(value).__name__}; give one of OpenAI's grader "
            "objects, with its type."
        )
    if value.get("type") not in GRADER_TYPES:
        raise ConfigError(
            f"{where}: {explain_unknown('type of grader', str(value.get('type')), GRADER_TYPES)}."
        )
    # An export writes null for missing fields.
    fields = {key: field for key, field in value.items() if field is not None}
    try:
        form = _ADAPTER.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"][1:])
        problem = (
            "is missing" if first["type"] == "missing" else f"is wrong: {first['msg'].lower()}"
        )
        raise ConfigError(f"{where}: the {value['type']} grader's {at} {problem}.") from None
    _check_form(form, where)
    return form


def name_metric(form: GraderForm, default: str) -> str:
    """Return the name of a grader's metric: the grader's own, made an identifier."""
    named = re.sub(r"[^\w]+", "_", form.name.lower()).strip("_")
    return named or re.sub(r"[^\w]+", "_", default.lower()).strip("_") or "grader"


def _check_form(form: AnyForm, where: str) -> None:
    if isinstance(form, TextSimilarityForm) and form.evaluation_metric not in SIMILARITIES:
        allowed = f"allowed: {', '.join(SIMILARITIES)}"
        if form.evaluation_metric in NOT_OFFERED:
            raise ConfigError(
                f"{where}: evaluation_metric {form.evaluation_metric} cannot be computed as OpenAI "
                f"did, which is not documented ({allowed}); write it as a metric of your own, a "
                "Python file with score(example, prediction)."
            )
        raise ConfigError(
            f"{where}: "
            f"{explain_unknown('evaluation_metric', form.evaluation_metric, SIMILARITIES)}."
        )
    if isinstance(form, ScoreModelForm):
        low, high = form.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(f"{where}: range is {low:g} to {high:g}; it must rise.")
    if isinstance(form, LabelModelForm):
        strange = [label for label in form.passing_labels if label not in form.labels]
        if strange or not form.passing_labels:
            named = f"{strange[0]!r}" if strange else "nothing"
            raise ConfigError(
                f"{where}: passing_labels names {named}; name some of the labels "
                f"({', '.join(form.labels)})."
            )
