"""A run with an own and a hosted contender: planned beside billed, costs a month, break-even, and
the same figures whenever it is priced again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import recompute
from world import PRICE, Trainer, bakeoff_file, hosted, run

from tuneoff.report import write_report
from tuneoff.results import Results
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("openai")


def own(base: Path) -> dict[str, object]:
    return {
        "name": "own", "id": "local", "base": str(base), "hardware": {"usd_per_hour": 0.05},
        "train": {"max_steps": 2, "batch_size": 4},
    }  # fmt: skip


def carried_out(fake: Trainer, base: Path, folder: Path, **more: object) -> tuple[Path, Results]:
    file = bakeoff_file(folder, own(base), hosted(fake.url, price=PRICE), **more)
    return file, run(file)


def test_planned_billed_and_a_month(fake: Trainer, tiny_base: Path, tmp_path: Path) -> None:
    file, results = carried_out(fake, tiny_base, tmp_path / "b")
    mine, tuned = results.contenders
    assert (mine.error, tuned.error) == (None, None)
    assert (mine.place, tuned.place) == ("own", "provider")
    # The fake bills by its own count; the plan counts as OpenAI does.
    assert tuned.cost.training_usd == pytest.approx(
        fake.saw()["billed"]["training"] * PRICE["training_usd_per_million_tokens"] / 1e6
    )
    planned = RunDir(file.parent / "run").contender("tuned").planned()
    assert planned is not None
    assert tuned.cost.training_usd_planned == planned.training_usd
    assert planned.training_usd is not None
    assert planned.training_usd > 0
    # Without measuring, nobody knows how long this machine will train.
    assert mine.cost.training_usd is not None
    assert mine.cost.training_usd_planned is None
    assert mine.cost.fixed_usd_per_month == pytest.approx(0.05 * 730)
    assert tuned.cost.fixed_usd_per_month == 0
    tokens = tuned.serving.tokens_in_mean, tuned.serving.tokens_out_mean
    assert tokens[0] is not None
    assert tokens[1] is not None
    usd = tokens[0] * 0.3 + tokens[1] * 1.2
    assert tuned.cost.serving_usd_per_1k_requests == pytest.approx(usd / 1000)
    (pair,) = results.break_even
    assert (pair.own, pair.hosted) == ("own", "tuned")
    assert pair.first_requests_per_month == pytest.approx(36.5 / (usd / 1e6))
    assert (tuned.serving.seconds_p50 or 0) > 0
    assert tuned.serving.requests_per_second is None
    report = (file.parent / "run" / "report.md").read_text()
    assert "When does owning pay?" in report
    assert "training, planned" in report
    assert (file.parent / "run" / "charts" / "break_even.svg").is_file()
    found = recompute(file.parent / "run")
    assert (found.wrong, found.not_made) == ([], {})
    assert min(found.compared["break-evens"], found.compared["bills"]) >= 4


def test_priced_again_it_is_the_same(fake: Trainer, tiny_base: Path, tmp_path: Path) -> None:
    file, before = carried_out(fake, tiny_base, tmp_path / "b")
    folder = file.parent / "run"
    again = run(file)
    assert [c.cost for c in again.contenders] == [c.cost for c in before.contenders]
    assert [c.serving for c in again.contenders] == [c.serving for c in before.contenders]
    assert again.break_even == before.break_even
    assert again.recommendation == before.recommendation
    written = (folder / "results.json").read_bytes()
    html, _ = write_report(RunDir(folder))
    first = html.read_bytes()
    assert write_report(RunDir(folder))[0].read_bytes() == first
    assert (folder / "results.json").read_bytes() == written


def test_prices_and_load_may_change_afterwards(
    fake: Trainer, tiny_base: Path, tmp_path: Path
) -> None:
    _, before = carried_out(fake, tiny_base, tmp_path / "b")
    dearer = {**PRICE, "output_usd_per_million_tokens": 12.0}
    serving = {"requests_per_month": 1000, "utilization": 0.25}
    file = bakeoff_file(
        tmp_path / "b", own(tiny_base), hosted(fake.url, price=dearer), serving=serving
    )
    after = run(file)
    assert fake.creates() == 1
    mine, tuned = after.contenders
    assert mine.cost.serving_usd_per_1k_requests == pytest.approx(36.5)
    assert tuned.cost.training_usd == before.contenders[1].cost.training_usd
    assert (tuned.cost.serving_usd_per_1k_requests or 0) > (
        before.contenders[1].cost.serving_usd_per_1k_requests or 0
    )
    assert after.break_even[0].utilization == 0.25


def test_requirements_decide(fake: Trainer, tiny_base: Path, tmp_path: Path) -> None:
    needed = {"data_stays_here": True}
    file, results = carried_out(fake, tiny_base, tmp_path / "b", requirements=needed)
    events = [json.loads(row) for row in (file.parent / "run/events.jsonl").read_text().split("\n")
              if row]  # fmt: skip
    assert not [e for e in events if "no effect" in str(e.get("text"))]
    assert results.recommendation.choice != "tuned"
    left_out = [line for line in results.recommendation.because if "left out" in line]
    assert len(left_out) == 1
    assert left_out[0].startswith("tuned (")
