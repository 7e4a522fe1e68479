"""Finding a scorer by its id."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuneoff.errors import ConfigError
from tuneoff.scoring.base import (
    Options,
    ScoringInput,
    get_primary_metric,
    list_scorer_ids,
    load_scorer,
)


def test_the_scorers_of_tuneoff() -> None:
    assert {"text", "functional", "sql"} <= set(list_scorer_ids())
    for id in list_scorer_ids():
        scorer = load_scorer(id)
        assert scorer.PRIMARY in scorer.METRICS
        assert set(scorer.METRICS.values()) <= {"yes/no", "fraction"}


def test_an_unknown_scorer_is_named_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown scorer 'functinal' .*did you mean functional"):
        load_scorer("functinal")
    with pytest.raises(ConfigError, match="unknown scorer 'pool'"):
        load_scorer("pool")


def test_a_scorer_in_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "same_length.py"
    path.write_text(
        "from tuneoff.records import ScoredRow\n"
        "METRICS = {'same_length': 'yes/no'}\n"
        "PRIMARY = 'same_length'\n"
        "def score_rows(rows, options):\n"
        "    for r in rows:\n"
        "        same = len(r.reference) == len(r.prediction)\n"
        "        yield ScoredRow(r.id, {'same_length': same}, 'right' if same else 'wrong')\n"
    )
    scorer = load_scorer(str(path))
    rows = scorer.score_rows(
        [ScoringInput("1", "ab", "xy"), ScoringInput("2", "ab", "x")], Options()
    )
    assert [row.verdict for row in rows] == ["right", "wrong"]
    assert get_primary_metric(scorer, Options()) == "same_length"


def test_what_decides_without_databases(tmp_path: Path) -> None:
    sql = load_scorer("sql")
    assert get_primary_metric(sql, Options(databases=tmp_path)) == "execution_accuracy"
    assert get_primary_metric(sql, Options()) == "exact_match"


def test_finding_scorers_is_quick_because_libraries_wait_until_they_are_used() -> None:
    code = (
        "import sys; from tuneoff.scoring.base import list_scorer_ids; list_scorer_ids();"
        "print([m for m in ('torch', 'scipy', 'sqlglot', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
