"""A real run with two seeds and a learning curve: files, figures, resuming, failing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import recompute

import tuneoff
from tuneoff.bakeoff import contender_run
from tuneoff.bakeoff.compare import compare_runs
from tuneoff.cli.tables import render_comparison, render_results
from tuneoff.records import Prediction, TrainingRecord
from tuneoff.results import ContenderResult, Results
from tuneoff.scoring.intervals import compute_score_interval
from tuneoff.storage.run_dir import ContenderDir, RunDir
from tuneoff.training import fine_tune as training

TEXT = """\
name: several
task:
  id: functional_representation
  source: sample
  max_new_tokens: 12
  limit: {{train: 48, validation: 8, test: 10}}
contenders:
  - name: lora
    id: local
    base: {base}
    prompt: short
    lora: {{r: 4, alpha: 8, target_modules: attention}}
    train: {{max_steps: 6, batch_size: 8, evaluate_every: 2, learning_rate: 1.0e-2}}
    hardware: {{accelerator: A40, usd_per_hour: 0.475}}
    seeds: [0, 1]
    learning_curve: [0.25, 0.5]
  - {{name: prompted, id: prompted, base: {base}, prompt: short}}
"""
PARTS = ["part-0.25", "part-0.5", "seed-0", "seed-1"]


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Results]:
    folder = tmp_path_factory.mktemp("several")
    (folder / "b.yaml").write_text(TEXT.format(base=tiny_base))
    results = tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")
    return RunDir(folder / "run"), results


@pytest.fixture(scope="module")
def scored(
    finished: tuple[RunDir, Results], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDir, Results]:
    """The same run, its answers replaced: so many are right. (A random base gets none.)"""
    folder = tmp_path_factory.mktemp("scored") / "copy"
    shutil.copytree(finished[0].path.parent, folder)
    run = RunDir(folder / "run")
    test = run.examples("test")
    for name, right in {"part-0.25": 1, "part-0.5": 3, "seed-0": 8, "seed-1": 4}.items():
        part = ContenderDir(run.contender("lora").path / name)
        (part.path / "predictions.jsonl").unlink()
        part.append_predictions(
            Prediction(e.id, e.completion if i < right else "nothing") for i, e in enumerate(test)
        )
    return run, tuneoff.run(tuneoff.load(folder / "b.yaml"), run.path)


@pytest.fixture
def copied(finished: tuple[RunDir, Results], tmp_path: Path) -> tuple[RunDir, Path]:
    """The finished run, to be spoiled, and its bake-off file."""
    shutil.copytree(finished[0].path.parent, tmp_path / "copy")
    return RunDir(tmp_path / "copy" / "run"), tmp_path / "copy" / "b.yaml"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which trainings were carried out, and which answered something, by their folder."""
    seen: list[str] = []
    train, answer = training.tune, contender_run._answer_examples

    def training_seen(*args: Any, **more: Any) -> TrainingRecord:
        folder = next(each for each in args if isinstance(each, ContenderDir))
        seen.append(f"trained {folder.path.name}")
        return train(*args, **more)

    def answering_seen(kind: Any, settings: Any, work: Any) -> None:
        before = len(work.directory.predictions())
        answer(kind, settings, work)
        if len(work.directory.predictions()) > before:
            seen.append(f"answered {work.directory.path.name}")

    monkeypatch.setattr(training, "tune", training_seen)
    monkeypatch.setattr(contender_run, "_answer_examples", answering_seen)
    return seen


def lora(results: Results) -> ContenderResult:
    return results.contenders[0]


def test_each_training_has_a_whole_folder_and_the_contenders_own_has_none(
    finished: tuple[RunDir, Results],
) -> None:
    run, results = finished
    assert [c.error for c in results.contenders] == [None, None]
    folder = run.contender("lora").path
    assert sorted(path.name for path in folder.iterdir()) == [
        *PARTS[:2],
        "planned.json",
        *PARTS[2:],
    ]
    for name in PARTS:
        assert {
            "training.json", "loss.jsonl", "adapter", "predictions.jsonl", "scores.jsonl",
            "prompt.json",
        } <= {path.name for path in (folder / name).iterdir()}  # fmt: skip
    weights = [(folder / name / "adapter/adapter_model.safetensors").read_bytes() for name in PARTS]
    assert len(set(weights)) == 4
    assert "# lora (seed 1)" in (folder / "seed-1/adapter/README.md").read_text()


def test_another_program_makes_the_same_figures(scored: tuple[RunDir, Results]) -> None:
    found = recompute(scored[0].path)
    # The answers that were put there took no time; the throughput is that of the others.
    assert [each["where"] for each in found.wrong] == ["lora.serving.requests_per_second"]
    assert not found.not_made
    assert scored[1].contenders[0].learning_curve
    assert {"intervals of scores", "adjusted p-values", "costs"} <= found.compared.keys()


def test_parts_see_fewer_examples_for_as_many_epochs(finished: tuple[RunDir, Results]) -> None:
    folder = finished[0].contender("lora")
    records = [folder.part(0.25).training(), folder.part(0.5).training(), folder.seed(0).training()]
    assert [(r.examples, r.steps, r.epochs) for r in records if r] == [
        (12, 2, 1.0),
        (24, 3, 1.0),
        (48, 6, 1.0),
    ]


def test_scores_are_means_over_seeds(scored: tuple[RunDir, Results]) -> None:
    _, results = scored
    found, prompted = results.contenders
    assert found.seeds == (0, 1)
    score = found.scores["exact_match"]
    assert score.by_seed == (0.8, 0.4)
    assert (score.value, score.n, score.errors) == (pytest.approx(0.6), 10, 0)
    means = [1.0] * 4 + [0.5] * 4 + [0.0] * 2
    assert (score.low, score.high) == compute_score_interval(Counter(means), True, seeds=(0.8, 0.4))
    pair = results.comparisons[0]
    assert (pair.difference, pair.test) == (pytest.approx(0.6), "t over seeds and examples")
    way = pair.training
    assert way is not None
    assert way.p_value == pair.p_value, "the seeds are in the verdict's own test"
    assert (way.seeds_b, way.seeds_a and way.seeds_a.contenders) == (None, ("lora",))
    assert prompted.seeds == prompted.scores["exact_match"].by_seed == ()
    assert sum(found.error_classes.values()) == 2, "the first seed's"


def test_seconds_and_money_are_of_one_training_and_of_all(
    finished: tuple[RunDir, Results],
) -> None:
    run, results = finished
    folders = [run.contender("lora").path / name for name in PARTS]
    seconds = [json.loads((f / "training.json").read_text())["seconds"] for f in folders]
    found = lora(results)
    assert found.training is not None
    mean = sum(seconds[2:]) / 2
    assert found.training.seconds == pytest.approx(mean)
    assert found.training.steps == 6
    assert found.cost.training_usd == pytest.approx(mean / 3600 * 0.475)
    every = found.all_trainings
    assert every is not None
    assert (every.trainings, every.training_seconds) == (4, pytest.approx(sum(seconds)))
    total = (every.training_seconds or 0) + (every.answering_seconds or 0)
    assert every.usd == pytest.approx(total / 3600 * 0.475)
    assert every.usd > 3 * (found.cost.training_usd or 0)
    assert results.contenders[1].all_trainings is None


def test_the_curve_ends_with_the_first_seed(scored: tuple[RunDir, Results]) -> None:
    run, results = scored
    curve = lora(results).learning_curve
    assert [(p.fraction, p.examples, p.value) for p in curve] == [
        (0.25, 12, 0.1),
        (0.5, 24, 0.3),
        (1.0, 48, 0.8),
    ]
    assert [p.p_value for p in curve] == [None, 0.5, pytest.approx(2 / 2**5)]
    assert lora(results).loss == run.contender("lora").seed(0).loss()


def test_the_report_shows_seeds_and_curve(scored: tuple[RunDir, Results]) -> None:
    run, results = scored
    assert run.results() == results
    assert (run.charts / "learning_curve.svg").exists()
    markdown = (run.path / "report.md").read_text()
    assert "<small>seeds 80.0, 40.0</small>" in markdown
    assert (
        "With half of the training examples (24) lora (seed 0) reaches exact match 30.0%; doubling "
        "them brings +50.0 points (p = 0.062): whether more data would help cannot be told from "
        "this test set."
    ) in markdown
    assert "80.0, 40.0" in render_results(results)
    assert "ahead if lora were trained anew cannot be told: " in markdown
    found = compare_runs([run.path, run.path])
    assert found["changes"][0]["training"]["outcome"] == "cannot be told"
    told = render_comparison(found)
    assert "; which of the two would be ahead after new trainings cannot be told: [" in told
    assert found["notes"][0].endswith(f"28.3 points for lora ({run.path}) (1 degree of freedom).")


def test_the_same_again_does_nothing_twice(
    copied: tuple[RunDir, Path], done: list[str], finished: tuple[RunDir, Results]
) -> None:
    run, file = copied
    again = tuneoff.run(tuneoff.load(file), run.path)
    assert done == []
    assert again.contenders == finished[1].contenders


def test_resuming_does_only_what_is_missing(
    copied: tuple[RunDir, Path], done: list[str], finished: tuple[RunDir, Results]
) -> None:
    run, file = copied
    folder = run.contender("lora").path
    shutil.rmtree(folder / "seed-1")  # never begun
    shutil.rmtree(folder / "part-0.25" / "adapter")  # cut while it was saved
    (folder / "part-0.25" / "training.json").unlink()
    answers = folder / "seed-0" / "predictions.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:4]) + lines[4][:9])  # cut while it answered
    (folder / "part-0.5" / "scores.jsonl").unlink()  # cut before it was scored
    again = tuneoff.run(tuneoff.load(file), run.path)
    assert done == ["answered seed-0", "trained seed-1", "answered seed-1", "trained part-0.25"]
    found, before = lora(again), lora(finished[1])
    assert (found.scores, found.learning_curve) == (before.scores, before.learning_curve)


def test_a_contender_that_was_not_carried_out_to_its_last_seed_has_no_scores_yet(
    copied: tuple[RunDir, Path], done: list[str]
) -> None:
    run, file = copied
    shutil.rmtree(run.contender("lora").path / "seed-1")
    found = lora(tuneoff.run(tuneoff.load(file), run.path, only="prompted"))
    assert done == []
    assert (found.error, found.scores) == (None, {})
    assert found.all_trainings is not None
    assert found.all_trainings.trainings == 3


def test_fresh_clears_every_training(copied: tuple[RunDir, Path], done: list[str]) -> None:
    run, file = copied
    file.write_text(file.read_text().replace("seeds: [0, 1]", "seeds: [2, 1]"))
    with pytest.raises(tuneoff.RunDirectoryError, match=r"contenders\.lora\.seeds"):
        tuneoff.run(tuneoff.load(file), run.path)
    tuneoff.run(tuneoff.load(file), run.path, only="lora", fresh=True)
    assert [line for line in done if line.startswith("trained")] == [
        "trained seed-2",
        "trained seed-1",
        "trained part-0.25",
        "trained part-0.5",
    ]
    folder = run.contender("lora").path
    left = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert left == [*PARTS[:2], "seed-1", "seed-2"]


def test_a_failing_seed_is_the_contenders_error_and_is_named(
    copied: tuple[RunDir, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = copied
    shutil.rmtree(run.contender("lora").path / "seed-1")

    def broken(*args: Any, **more: Any) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(training, "tune", broken)
    results = tuneoff.run(tuneoff.load(file), run.path)
    assert lora(results).error == "seed 1: RuntimeError: out of memory"
    assert results.contenders[1].error is None
    assert results.comparisons == ()
    assert "seed 1: RuntimeError: out of memory" in (run.path / "report.html").read_text()
    monkeypatch.undo()
    assert lora(tuneoff.run(tuneoff.load(file), run.path)).error is None
