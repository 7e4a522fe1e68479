"""The reference answers of the generated samples score 1.0 on every metric of their task.

The golds of ViGGO and Spider are tested in `tests/scoring/`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneoff.config.schema import TaskConfig
from tuneoff.records import SPLITS
from tuneoff.scoring.aggregate import aggregate
from tuneoff.scoring.base import Options, ScoringInput, load_scorer
from tuneoff.tasks.base import DataPaths, load_task


@pytest.mark.parametrize("id", ["functional_representation", "text_to_sql"])
def test_sample_golds(id: str, tmp_path: Path) -> None:
    task, settings = load_task(id), TaskConfig(id=id, source="sample")
    examples = task.load(settings, DataPaths(tmp_path))
    options = Options(databases=task.databases(settings, DataPaths(tmp_path), tmp_path))
    scorer = load_scorer(task.SCORER)
    for split in SPLITS:
        rows = [ScoringInput(e.id, e.completion, e.completion, e.meta) for e in examples[split]]
        scored = list(scorer.score_rows(rows, options))
        assert {row.verdict for row in scored} == {"right"}
        found = aggregate(scored, scorer.METRICS)
        found.pop("test_suite_accuracy", None)  # each has one database
        assert {score.value for score in found.values()} == {1.0}
        assert all(score.n == len(rows) for score in found.values())
