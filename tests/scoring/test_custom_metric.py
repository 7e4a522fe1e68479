"""A metric of the user's own, alone and beside the task's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneoff.errors import ConfigError, DataError
from tuneoff.records import ScoredRow
from tuneoff.scoring.base import Options, ScoringInput, load_scorer
from tuneoff.scoring.custom import FileMetric, combine_scorers

ROWS = [
    ScoringInput("1", "Lima", "It is Lima", {"level": 1}, inputs={"question": "Capital of Peru?"}),
    ScoringInput("2", "Rome", "Oslo", {"level": 2}, inputs={"question": "Capital of Italy?"}),
    ScoringInput("3", "Rome", "", {"level": 2}),
    ScoringInput("4", "Rome", "Rome", {"level": 2}, error="refused"),
]


def metric(folder: Path, body: str, name: str = "mine") -> FileMetric:
    path = folder / f"{name}.py"
    path.write_text(f"def score(example, prediction):\n    {body}\n")
    return FileMetric(path)


def test_it_sees_the_example_and_the_answer(tmp_path: Path) -> None:
    body = "return example.completion in prediction and example.inputs['question'] != ''"
    found = list(metric(tmp_path, body).score_rows(ROWS, Options()))
    assert [row.scores for row in found] == [
        {"mine": True}, {"mine": False}, {"mine": False}, {"mine": False},
    ]  # fmt: skip
    assert [row.verdict for row in found] == ["right", "wrong", "no answer", "refused"]


def test_numbers_are_kept(tmp_path: Path) -> None:
    found = list(metric(tmp_path, "return len(prediction) / 2").score_rows(ROWS[:2], Options()))
    assert [row.scores["mine"] for row in found] == [5.0, 2.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return example.nothing", r"mine.py: score\(\) failed on example '1' \(AttributeError"),
        ("return 'yes'", r"mine.py: score\(\) gave 'yes' for example '1'"),
        ("return float('nan')", r"mine.py: score\(\) gave nan for example '1'"),
    ],
)
def test_what_it_may_not_give(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(metric(tmp_path, body).score_rows(ROWS, Options()))


def test_files_that_are_no_metric(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such Python file"):
        FileMetric(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="has no score"):
        FileMetric(tmp_path / "empty.py")
    (tmp_path / "number.py").write_text("score = 3")
    with pytest.raises(ConfigError, match="score is not a function"):
        FileMetric(tmp_path / "number.py")


def test_beside_the_task_s_own_metrics(tmp_path: Path) -> None:
    both = combine_scorers(load_scorer("text"), [metric(tmp_path, "return 'i' in prediction")])
    assert list(both.METRICS) == ["exact_match", "normalized_match", "mine"]
    assert next(iter(both.score_rows(iter(ROWS), Options()))) == ScoredRow(
        "1", {"exact_match": False, "normalized_match": False, "mine": True}, "wrong"
    )
    assert [row.id for row in both.score_rows(iter(ROWS), Options())] == ["1", "2", "3", "4"]


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is a metric exact_match already"):
        combine_scorers(load_scorer("text"), [metric(tmp_path, "return True", "exact_match")])
