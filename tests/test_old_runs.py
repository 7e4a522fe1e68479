"""Run directories of earlier commits resume, report and compare.

`fixtures/run-0.1` was written by version 0.1.0 (commit 18aea60) from its own `orders.yaml`: a
finished LoRA, one that was killed at step 12 of 24, recorded answers, and a hosted contender that
`tuneoff serve` tuned. Its report is left out; every report is built anew.

`fixtures/run-0.2` was written by commit 0dec59d, the last one before the modules moved (its
version still says 0.1.0), from its own `bookings.yaml`, which has a budget: by one `tuneoff run
--only NAME` for each contender, `seeded` once more with `--fresh`. Killed (SIGKILL) were `cut` when
its third checkpoint was there, `asked-cut` after six answers, `half` when all were answered and
none was scored, and `hosted-cut` while its job ran at a real `tuneoff serve`; so was the server,
whose folder is `fixtures/server-0.2/state`. `boathouse`, a base of 2 layers of width 32, was
trained for them.
Beside it lie `judged`, with the replies of a program that stood for a judge and labels typed into
`tuneoff label`, `queries`, on SQL, and what `tuneoff parity --judge` kept. Reports, charts and the
generated databases are left out: they are made anew.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli
from running import request, server

FIXTURES = Path(__file__).parent / "fixtures"
# All that can be sent to, or created at, a server; its own results are no part of it.
SENT = (
    "/v1/fine_tuning/jobs?", "/v1/batches?", "/v1/files?purpose=fine-tune&",
    "/v1/files?purpose=batch&",
)  # fmt: skip
# Where the server of `bookings.yaml` listened.
OLD_PORT = "127.0.0.1:18432"


@dataclass(frozen=True)
class Stored:
    """A stored bake-off: what of it must stay as it was, to the byte, what is left to do, and a
    score of its report."""

    folder: str
    file: str
    kept: tuple[str, ...]
    contenders: tuple[str, ...]
    cut_at: int
    steps: int
    finished: str
    shown: str
    begun: dict[str, int] = field(default_factory=dict)


ORDERS = Stored(
    "run-0.1",
    "orders.yaml",
    (
        "contenders/finished/adapter/adapter_model.safetensors",
        "contenders/finished/predictions.jsonl",
        "contenders/finished/prompt.json",
        "contenders/finished/training.json",
        "contenders/hosted/job.json",
        "contenders/hosted/predictions.jsonl",
        "contenders/recorded/predictions.jsonl",
        "data/test.jsonl",
        "data/train.jsonl",
    ),
    ("finished", "cut", "recorded", "hosted"),
    cut_at=12,
    steps=24,
    finished="finished",
    shown="93.8%",
)
BOOKINGS = Stored(
    "run-0.2",
    "bookings.yaml",
    (
        "contenders/asked/exchanges.jsonl",
        "contenders/asked/predictions.jsonl",
        "contenders/batched/batch.json",
        "contenders/batched/predictions.jsonl",
        "contenders/full/model/model.safetensors",
        "contenders/full/predictions.jsonl",
        "contenders/full/training.json",
        "contenders/hosted/job.json",
        "contenders/hosted/predictions.jsonl",
        "contenders/hosted/training.json",
        "contenders/recorded/predictions.jsonl",
        "contenders/searched/adapter/adapter_model.safetensors",
        "contenders/searched/learning_rates.jsonl",
        "contenders/searched/predictions.jsonl",
        "contenders/seeded/part-0.5/adapter/adapter_model.safetensors",
        "contenders/seeded/part-0.5/predictions.jsonl",
        "contenders/seeded/seed-0/adapter/adapter_model.safetensors",
        "contenders/seeded/seed-0/predictions.jsonl",
        "contenders/seeded/seed-1/adapter/adapter_model.safetensors",
        "contenders/seeded/seed-1/predictions.jsonl",
        "contenders/shots/predictions.jsonl",
        "contenders/shots/serving.json",
        "data/test.jsonl",
        "data/today.json",
        "data/train.jsonl",
    ),
    (
        "seeded", "full", "cut", "searched", "half", "shots", "recorded",
        "hosted", "hosted-cut", "asked", "batched", "asked-cut",
    ),
    cut_at=30,
    steps=60,
    finished="seeded",
    shown="75.0%",
    begun={"half": 16, "asked-cut": 6},
)  # fmt: skip
BOTH = pytest.mark.parametrize("stored", [ORDERS, BOOKINGS], ids=lambda stored: stored.folder)


def copy_of(stored: str, to: Path) -> Path:
    """A copy of a stored folder, which a test may change."""
    return Path(shutil.copytree(FIXTURES / stored, to))


def lines(path: Path) -> list[Any]:
    """The whole rows of a file; a kill may have left half of one."""
    return [
        json.loads(line)
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


def by_name(run: Path) -> dict[str, Any]:
    """The contenders of a run's results."""
    results = json.loads((run / "results.json").read_text())
    return {contender["name"]: contender for contender in results["contenders"]}


@pytest.fixture
def place(stored: Stored, tmp_path: Path) -> Path:
    """A copy of a stored bake-off."""
    return copy_of(stored.folder, tmp_path / "place")


@pytest.fixture
def port(stored: Stored, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What the bake-off's hosted contenders are asked at: the server that it left, started again
    on a copy. 0 where all that is hosted was done."""
    if stored is ORDERS:
        yield 0
        return
    pytest.importorskip("fastapi")
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    state = copy_of("server-0.2/state", place / "state")
    with server(state, "--base", str(place / "boathouse")) as (port, _):
        for file in [*place.rglob("*.yaml"), *(place / "run").rglob("*.json")]:
            file.write_text(file.read_text().replace(OLD_PORT, f"127.0.0.1:{port}"))
        yield port


def listed(port: int, path: str) -> list[str]:
    """The ids of all that a server lists there."""
    if not port:
        return []
    return sorted(each["id"] for each in request(port, "GET", f"{path}limit=100")[1]["data"])


@BOTH
def test_resumes_where_it_was_cut(stored: Stored, place: Path, port: int, cli: Cli) -> None:
    run = place / "run"
    contenders = run / "contenders"
    before = json.loads((run / "results.json").read_text())
    scores = {name: c["scores"] for name, c in by_name(run).items() if c["scores"]}
    kept = {name: (run / name).read_bytes() for name in stored.kept}
    losses = lines(contenders / "cut" / "loss.jsonl")
    begun = {name: lines(contenders / name / "predictions.jsonl") for name in stored.begun}
    events = lines(run / "events.jsonl")
    there = {path: listed(port, path) for path in SENT}

    code, _, err = cli("run", place / stored.file, "--run-dir", run)
    assert code == 0, err

    assert {name: (run / name).read_bytes() for name in stored.kept} == kept
    after = json.loads((run / "results.json").read_text())
    assert after["content_sha256"] == before["content_sha256"]
    found = by_name(run)
    assert stored.finished in scores
    assert {name: found[name]["scores"] for name in scores} == scores
    assert {name: c["error"] for name, c in found.items()} == dict.fromkeys(stored.contenders)
    assert {c["scores"]["exact_match"]["n"] for c in found.values()} == {16}
    # The killed training went on from its checkpoint and did not begin again.
    resumed = lines(contenders / "cut" / "loss.jsonl")
    until_kill = [row for row in losses if row["step"] <= stored.cut_at]
    assert until_kill[-1]["step"] == stored.cut_at
    assert resumed[: len(until_kill)] == until_kill
    assert resumed[-1]["step"] == found["cut"]["training"]["steps"] == stored.steps
    assert not (contenders / "cut" / "checkpoints").exists()
    # What was answered was not asked again, and the others were asked once.
    for name, count in stored.begun.items():
        rows = lines(contenders / name / "predictions.jsonl")
        assert len(begun[name]) == count
        assert rows[:count] == begun[name]
        assert len({row["id"] for row in rows}) == len(rows) == 16
    # Nothing was created, sent or paid twice: the job that was under way is the one of before.
    new = lines(run / "events.jsonl")[len(events) :]
    paid = Counter(e["contender"] for e in new if e["event"] == "authorized")
    asked = {"asked-cut": 16 - stored.begun["asked-cut"], "hosted-cut": 16} if port else {}
    assert paid == asked
    assert there == {path: listed(port, path) for path in there}
    if port:
        assert (contenders / "hosted-cut" / "training.json").exists()


@BOTH
def test_reports_and_compares(stored: Stored, place: Path, cli: Cli) -> None:
    run, copy = place / "run", place / "copy"
    shutil.copytree(run, copy)
    code, _, err = cli("report", run)
    assert code == 0, err
    page = (run / "report.html").read_text()
    assert all(name in page for name in by_name(run))
    assert stored.shown in page
    code, out, err = cli("compare", run, copy, "--json")
    assert code == 0, err
    assert json.loads(out)


def test_a_judges_replies_and_labels(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge is out of reach, and asked nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    place = copy_of("run-0.2", tmp_path / "place")
    run = place / "judged"
    kept = {name: (run / name).read_bytes() for name in ("judgements.jsonl", "labels.jsonl")}
    before = json.loads((run / "results.json").read_text())
    code, _, err = cli("run", place / "judged.yaml", "--run-dir", run)
    assert code == 0, err
    assert {name: (run / name).read_bytes() for name in kept} == kept
    after = json.loads((run / "results.json").read_text())
    assert after["labels"] == before["labels"]
    for was, now in zip(before["contenders"], after["contenders"], strict=True):
        assert now["scores"] == was["scores"]
        assert now["corrected"] == was["corrected"]
    monkeypatch.chdir(place)
    code, out, err = cli(
        "parity", "brief.jsonl", "wordy.jsonl", "--judge", "judge.yaml",
        "--references", "references.jsonl", "--budget-usd", 1, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out) == json.loads((place / "parity.json").read_text())


def test_queries(tmp_path: Path, cli: Cli) -> None:
    place = copy_of("run-0.2", tmp_path / "place")
    run = place / "queries"
    before = by_name(run)
    scored = (run / "contenders" / "recorded" / "scores.jsonl").read_bytes()
    code, _, err = cli("run", place / "queries.yaml", "--run-dir", run)
    assert code == 0, err
    assert by_name(run)["recorded"]["scores"] == before["recorded"]["scores"]
    assert (run / "contenders" / "recorded" / "scores.jsonl").read_bytes() == scored
