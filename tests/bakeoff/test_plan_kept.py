"""What training was planned to cost is kept when a run begins, and worked out anew where the file
changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tuneoff
from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.plan.plan import save_plan
from tuneoff.errors import ConfigError
from tuneoff.storage.run_dir import RunDir

HOSTED = "{name: mini, id: hosted, model: gpt-4.1-mini-2025-04-14}"
SEEDS = (
    "{name: own, id: local, base: Qwen/Qwen3-0.6B, seeds: [1, 2], "
    "hardware: {accelerator: A100 80GB}}"
)
FREE = "{name: free, id: local}"
HERE = "{name: here, id: hosted, model: m, base_url: 'http://127.0.0.1:1/v1'}"


def parts_of(folder: Path, *contenders: str, more: str = "") -> prepare.ResolvedBakeOff:
    file = folder / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: functional_representation, source: sample, limit: {train: 40}}\n"
        f"contenders: [{', '.join(contenders)}]\nas_of: 2026-11-24\n{more}"
    )
    return prepare.resolve(tuneoff.load(file))


def test_it_is_the_plans_own_figure(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, HOSTED, SEEDS, FREE, HERE)
    examples, _ = prepare.load_examples(parts)
    run = RunDir(tmp_path / "run")
    save_plan(parts, examples, run)
    mini, own = (run.contender(name).planned() for name in ("mini", "own"))
    plan = tuneoff.plan(parts.bakeoff, measure=False)
    usd = [each.training.usd if each.training else None for each in plan.contenders]
    assert mini is not None
    assert own is not None
    assert mini.training_usd == usd[0]
    # The plan's is for both seeds, a run's costs are of one.
    assert usd[1] is not None
    assert own.training_usd == pytest.approx(usd[1] / 2)
    for name in ("free", "here"):
        assert not run.contender(name).path.exists(), "what has no price is not planned"


def test_it_is_worked_out_again_only_for_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(tmp_path, HOSTED)
    examples, _ = prepare.load_examples(parts)
    run = RunDir(tmp_path / "run")
    save_plan(parts, examples, run)
    kept = run.contender("mini").planned()
    assert kept is not None
    with monkeypatch.context() as patch:
        patch.setattr("tuneoff.bakeoff.plan.plan.plan_examples", None)
        save_plan(parts, examples, run)
    dearer = "price: {training_usd_per_million_tokens: 50}}"
    changed = parts_of(tmp_path, HOSTED.replace("}", f", {dearer}"))
    save_plan(changed, examples, run)
    after = run.contender("mini").planned()
    assert after is not None
    assert after.training_usd == pytest.approx(10 * (kept.training_usd or 0))
    assert replace(after, training_usd=None) != replace(kept, training_usd=None)


def test_what_cannot_be_planned_keeps_no_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(tmp_path, HOSTED)
    examples, _ = prepare.load_examples(parts)
    run = RunDir(tmp_path / "run")

    def gone(*_: object) -> None:
        raise ConfigError("the base is not there any more.")

    monkeypatch.setattr("tuneoff.bakeoff.plan.plan.plan_examples", gone)
    save_plan(parts, examples, run)
    assert run.contender("mini").planned() is None
    assert "the base is not there any more" in run.events.read_text()
