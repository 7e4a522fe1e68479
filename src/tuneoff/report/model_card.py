"""A run's results in a model card: for readers, and as the hub's `model-index` for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneoff.report import format as f
from tuneoff.report.render import escape
from tuneoff.results import ContenderResult, Results, Score
from tuneoff.storage.files import write_text
from tuneoff.storage.run_dir import RunDir

HEADING = "## Results"
TASK_TYPE = "text-generation"


def write_cards(run: RunDir, results: Results) -> None:
    """Write every tuned contender's scores into its model card."""
    for contender in results.contenders:
        for weights in run.contender(contender.name).list_weights():
            add_results(weights / "README.md", results, contender.name)


def add_results(card: Path, results: Results, name: str) -> None:
    """Write a contender's scores into its model card, in place of earlier ones.

    Without scores the card stays as it is.
    """
    contender = next((c for c in results.contenders if c.name == name), None)
    if contender is None or contender.error or not contender.scores or not card.is_file():
        return
    from huggingface_hub import EvalResult, ModelCard

    model_card: Any = ModelCard(card.read_text(encoding="utf-8"))
    model_card.data.model_name = name
    model_card.data.eval_results = [
        EvalResult(
            task_type=TASK_TYPE,
            dataset_type=results.source or results.task,
            dataset_name=f"{results.task}, {results.source}",
            dataset_split="test",
            metric_type=metric,
            metric_name=f.words(metric),
            metric_value=round(score.value, 4),
        )
        for metric, score in contender.scores.items()
        if score.value is not None
    ]
    model_card.text = _replace_section(model_card.text, _build_section(results, contender))
    write_text(card, str(model_card))


def _build_section(results: Results, contender: ContenderResult) -> str:
    """Return the section with the scores as a table."""
    first = contender.scores.get(results.primary_metric)
    count = f"{f.count(first.n)} test examples" if first and first.n else "the test examples"
    where = f"{escape(results.task)}, {escape(results.source)}{_describe_seeds(contender)}"
    rows = [_build_row(metric, score) for metric, score in contender.scores.items()]
    return "\n".join(
        [
            HEADING,
            "",
            f"On {count} of {where}; 95% intervals.",
            "",
            "| metric | value | interval |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _describe_seeds(contender: ContenderResult) -> str:
    """Return the seeds that the scores are the mean over; empty without seeds."""
    if not contender.seeds:
        return ""
    return f", mean over the seeds {', '.join(map(str, contender.seeds))}"


def _build_row(metric: str, score: Score) -> str:
    """Return a metric's row of the table."""
    share = f.is_share(score.value)
    value, bounds = f.score(score.value, share), f.interval(score.low, score.high, share)
    return f"| {escape(f.words(metric))} | {value} | {bounds} |"


def _replace_section(body: str, section: str) -> str:
    """Return a card's text with the section, in place of an earlier one, or before its settings."""
    before, heading, rest = body.partition(f"{HEADING}\n")
    if heading:
        _, mark, after = rest.partition("\n## ")
        return f"{before}{section}{mark}{after}" if mark else f"{before}{section}"
    before, heading, after = body.partition("## Settings\n")
    return f"{before}{section}\n{heading}{after}"
