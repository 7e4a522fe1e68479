"""Several seeds and a learning curve in both formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_results import (
    METRIC,
    contender,
    pair,
    recommend,
    results,
    score,
    training,
    write_answers,
)

from tuneoff.cli.tables import render_results
from tuneoff.report import format as f
from tuneoff.report import write_report
from tuneoff.report.charts.base import build_score_chart
from tuneoff.report.comparisons import describe_unknown
from tuneoff.results import (
    AllTrainings,
    ContenderResult,
    Cost,
    CurvePoint,
    SeedSpread,
    WayOfTraining,
)
from tuneoff.storage.run_dir import ContenderDir, RunDir


def seeded() -> ContenderResult:
    made = contender(
        "lora",
        training=training(),
        seeds=(3, 1, 2),
        all_trainings=AllTrainings(5, 3_720.0, 60.0, 0.498),
        cost=Cost(training_usd=0.02),
        learning_curve=(
            CurvePoint(0.25, 1_600, 0.41, 0.3, 0.5),
            CurvePoint(0.5, 3_200, 0.62, 0.5, 0.7, 0.001),
            CurvePoint(1.0, 6_400, 0.712, 0.6, 0.8, 0.01),
        ),
    )
    several = replace(score(0.7127), by_seed=(0.712, 0.701, 0.725))
    return replace(made, scores={METRIC: several, "exact_match": several})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, str, str]:
    run = RunDir(tmp_path_factory.mktemp("runs") / "seeds")
    contenders = [seeded(), contender("base", 0.3, id="prompted")]
    run.write_results(results(contenders, recommendation=recommend(contenders, (), METRIC)))
    html, markdown = write_report(run)
    return run, html.read_text(), markdown.read_text()


@pytest.mark.parametrize(
    "expected",
    [
        "<small>seeds 71.2, 70.1, 72.5</small>",
        "the mean of 3 seeds (71.2, 70.1, 72.5)",
        "of the mean where there are seeds",
        "Would more data help?",
        "With half of the training examples (3,200) lora (seed 3) reaches execution accuracy 62.0%",
        "1 h 2 min",
        "$0.50",
        "training time and costs are the mean of one seed",
    ],
)
def test_both_formats_say_it(written: tuple[RunDir, str, str], expected: str) -> None:
    run, html, markdown = written
    assert expected in html
    assert expected in markdown.replace("\\", "")
    assert (run.charts / "learning_curve.svg").exists()
    assert "charts/learning_curve.svg" in markdown


def test_seeds_stand_beside_the_first_metric_only(written: tuple[RunDir, str, str]) -> None:
    assert written[1].count("<small>seeds ") == written[2].count("<small>seeds ") == 1


def test_without_seeds_nothing_is_said_of_them(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.write_results(results([contender("lora", 0.5, training=training())]))
    _, markdown = write_report(run)
    assert "seeds" not in markdown.read_text()
    assert "Would more data help" not in markdown.read_text()
    assert not (run.charts / "learning_curve.svg").exists()
    assert "seeds" not in render_results(run.results())


def test_the_table_has_a_column_where_a_contender_has_seeds() -> None:
    lines = render_results(results([seeded(), contender("x", error="broken")])).splitlines()
    assert "seeds" in lines[2]
    assert any("71.2, 70.1, 72.5" in line for line in lines)
    assert any("broken" in line for line in lines)


def test_the_first_seeds_answers_are_shown(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    row = {"id": "e0", "inputs": {"question": "q"}, "completion": "c", "meta": {}}
    run.write_examples("test", [row])
    for seed, text in ((3, "of the first"), (1, "of another")):
        write_answers(run, f"lora/seed-{seed}", [False], wrong=text)
    assert ContenderDir(run.path / "contenders/lora").seed(3).predictions()
    run.write_results(results([seeded()]))
    shown = write_report(run)[1].read_text()
    assert "of the first" in shown
    assert "of another" not in shown


def test_many_seeds_are_a_range() -> None:
    assert f.by_seed((0.5, 0.7, 0.6)) == "50.0, 70.0, 60.0"
    assert f.by_seed((0.5, 0.7, 0.6, 0.65, 0.55, 0.6)) == "50.0 to 70.0"
    assert f.by_seed((5.25, 7.0), share=False) == "5.25, 7.00"


def test_the_axis_reaches_every_seed() -> None:
    wide = replace(score(0.5), by_seed=(0.1, 0.9))
    spec = build_score_chart([contender("lora", scores={METRIC: wide})], METRIC)
    assert spec is not None
    (low, high) = next(
        layer["encoding"]["x"]["scale"]["domain"]
        for layer in spec["layer"]
        if "scale" in layer["encoding"]["x"]
    )
    assert low <= 0.1
    assert high >= 0.9


def test_the_report_says_whether_a_new_training_would_win_again(tmp_path: Path) -> None:
    way = WayOfTraining(
        outcome="b better", low=-0.2, high=-0.05, p_value=0.004, low_adjusted=-0.22,
        high_adjusted=-0.02, p_adjusted=0.02, freedom=5.3,
        seeds_a=None, seeds_b=SeedSpread(0.041, 2, ("lora",)),
    )  # fmt: skip
    found = replace(pair("base", "lora", "b better", -0.125), training=way)
    unsure = replace(way, outcome="cannot be told", high_adjusted=0.05, seeds_a=way.seeds_b)
    other = replace(pair("pooled", "lora", "b better", -0.125), training=unsure)
    contenders = [seeded(), contender("pooled", 0.5), contender("base", 0.3, id="prompted"),
                  contender("once", 0.2), contender("theirs", 0.2, id="recorded")]  # fmt: skip
    alone, given = pair("once", "lora", "b better"), pair("theirs", "lora", "b better")
    made = results(contenders, comparisons=(found, other, alone, given))
    run = RunDir(tmp_path / "run")
    run.write_results(made)
    assert run.results() == made
    html, markdown = (file.read_text().replace("\\", "") for file in write_report(run))
    for text in (html.replace("&#39;", "'"), markdown):
        assert "lora would be ahead again if it were trained anew: [2.0, 22.0], p = 0.02." in text
        assert "ahead if both were trained anew cannot be told: [−5.0, 22.0], p = 0.02." in text
        assert (
            "moves (one standard deviation) by 4.1 points for lora (2 degrees of freedom)" in text
        )
        assert "4.1 points for pooled (by the seeds of lora, 2 degrees of freedom)." in text
        assert text.count("once was trained once: another seed may move its score by about") == 1
    assert describe_unknown(["a", "b"], seeds=False, share=False) == (
        "a and b were trained once each: another seed may move a score, and the verdict is about "
        "the models at hand."
    )
