"""Run directories of earlier versions resume, report and compare.

`fixtures/run-0.1` was written by version 0.1.0 (commit 18aea60) from its own `orders.yaml`: a
finished LoRA, one that was killed at step 12 of 24, recorded answers, and a hosted contender that
`tuneoff serve` tuned. Its report is left out; every report is built anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli

STORED = Path(__file__).parent / "fixtures" / "run-0.1"
# What must stay as it was, to the byte.
KEPT = (
    "contenders/finished/adapter/adapter_model.safetensors",
    "contenders/finished/predictions.jsonl",
    "contenders/finished/prompt.json",
    "contenders/finished/training.json",
    "contenders/hosted/job.json",
    "contenders/hosted/predictions.jsonl",
    "contenders/recorded/predictions.jsonl",
    "data/test.jsonl",
    "data/train.jsonl",
)


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A copy of the stored folder, which a test may change."""
    return Path(shutil.copytree(STORED, tmp_path / "orders"))


def by_name(run: Path) -> dict[str, Any]:
    """The contenders of a run's results."""
    results = json.loads((run / "results.json").read_text())
    return {contender["name"]: contender for contender in results["contenders"]}


def test_resumes_where_it_was_cut(orders: Path, cli: Cli) -> None:
    run = orders / "run"
    before = json.loads((run / "results.json").read_text())
    finished_before = by_name(run)["finished"]["scores"]
    kept = {name: (run / name).read_bytes() for name in KEPT}
    losses = (run / "contenders" / "cut" / "loss.jsonl").read_text().splitlines()

    code, _, err = cli("run", orders / "orders.yaml", "--run-dir", run)
    assert code == 0, err

    assert {name: (run / name).read_bytes() for name in KEPT} == kept
    after = json.loads((run / "results.json").read_text())
    assert after["content_sha256"] == before["content_sha256"]
    contenders = by_name(run)
    assert contenders["finished"]["scores"] == finished_before
    assert [c["error"] for c in contenders.values()] == [None] * 4
    assert {name: c["scores"]["exact_match"]["n"] for name, c in contenders.items()} == {
        "finished": 16, "cut": 16, "recorded": 16, "hosted": 16,
    }  # fmt: skip
    # The killed training went on from step 12 and did not begin again.
    resumed = (run / "contenders" / "cut" / "loss.jsonl").read_text().splitlines()
    to_step_12 = [line for line in losses if json.loads(line)["step"] <= 12]
    assert to_step_12
    assert resumed[: len(to_step_12)] == to_step_12
    assert json.loads(resumed[-1])["step"] == contenders["cut"]["training"]["steps"] == 24
    assert not (run / "contenders" / "cut" / "checkpoints").exists()


def test_reports_and_compares(orders: Path, cli: Cli) -> None:
    run, copy = orders / "run", orders / "copy"
    shutil.copytree(run, copy)
    code, _, err = cli("report", run)
    assert code == 0, err
    page = (run / "report.html").read_text()
    assert all(name in page for name in ("finished", "recorded", "hosted"))
    assert "93.8%" in page
    code, out, err = cli("compare", run, copy, "--json")
    assert code == 0, err
    assert json.loads(out)
