"""The metrics that a bake-off file adds to its task's: files, graders and judges.

A judge, and a grader that asks a model, must be paid for.
"""

from __future__ import annotations

from pathlib import Path

from tuneoff.config.schema import BakeOff, GraderConfig, JudgeConfig, Metric
from tuneoff.errors import ConfigError
from tuneoff.scoring.base import Scorer
from tuneoff.scoring.custom import FileMetric
from tuneoff.scoring.grader_forms import ModelGraderForm, is_grader_file, read_grader
from tuneoff.scoring.graders import GraderMetric, build_grader
from tuneoff.scoring.llm_judge import Judge
from tuneoff.scoring.model_grader import ModelGrader


def build_added_scorer(metric: Metric, folder: Path) -> Scorer | None:
    """Return the scorer of a metric that the task lacks; None for one of the task's own."""
    if isinstance(metric, JudgeConfig):
        return Judge(metric)
    if isinstance(metric, GraderConfig):
        return load_grader(metric, folder)
    if is_grader_file(metric):
        return load_grader(GraderConfig(id="grader", file=metric), folder)
    return FileMetric((folder / metric).resolve()) if metric.endswith(".py") else None


def is_metric_file(metric: str) -> bool:
    """Return whether a metric is a file: a Python file's `score`, or a grader."""
    return metric.endswith(".py") or is_grader_file(metric)


def load_grader(settings: GraderConfig, folder: Path) -> GraderMetric | ModelGrader:
    """Load a grader's file and return its scorer.

    Raises:
        ConfigError: the file holds no usable grader, or the settings do not fit it.
    """
    where = _resolve_grader_path(settings, folder)
    form = read_grader(where)
    if isinstance(form, ModelGraderForm):
        return ModelGrader(form, settings, where)
    for key in sorted(settings.model_fields_set - {"id", "file"}):
        raise ConfigError(
            f"task.metrics: {key} is for graders that ask a model, and {settings.file} is a "
            f"{form.type}; drop it."
        )
    return GraderMetric(build_grader(form, str(where)), form, where)


def _resolve_grader_path(settings: GraderConfig, folder: Path) -> Path:
    """Return the path of a grader's file."""
    return (folder / Path(settings.file).expanduser()).resolve()


def load_model_graders(bakeoff: BakeOff) -> list[ModelGrader]:
    """Return the graders among a file's metrics that ask a model, which has to be paid."""
    graders = []
    for metric in bakeoff.task.metrics or ():
        if isinstance(metric, str) and is_grader_file(metric):
            metric = GraderConfig(id="grader", file=metric)
        if isinstance(metric, GraderConfig):
            where = _resolve_grader_path(metric, bakeoff.folder)
            form = read_grader(where)
            graders += (
                [ModelGrader(form, metric, where)] if isinstance(form, ModelGraderForm) else []
            )
    return graders


def list_judges(bakeoff: BakeOff) -> list[JudgeConfig]:
    """Return the judges among a file's metrics."""
    return [metric for metric in bakeoff.task.metrics or () if isinstance(metric, JudgeConfig)]


def list_judging_models(bakeoff: BakeOff) -> list[JudgeConfig | ModelGrader]:
    """Return the judges among a file's metrics, and the graders that ask a model."""
    return [*list_judges(bakeoff), *load_model_graders(bakeoff)]
