"""A whole test set is answered however often something goes wrong, and once; the first requests
are sent one at a time and timed, the others side by side, no more than are allowed."""

from __future__ import annotations

import itertools
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
from world import PRICE, Trainer, bakeoff_file, prompted, rows
from world import run as carry_out

import tuneoff
from tuneoff.contenders import latency
from tuneoff.costs.ledger import Ledger
from tuneoff.storage.files import write_lines
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")
CHAT = "/v1/chat/completions"
TESTS = 1083  # ViGGO's test set
ALL = ("429", "429 with Retry-After", "500", "503", "not forwarded", "forwarded", "mid-body",
       "malformed")  # fmt: skip


def test_a_tenth_of_all_requests_goes_wrong(fake: Trainer, tmp_path: Path) -> None:
    fake.set(faults=[{"method": "POST", "path": CHAT, "kinds": ALL, "rate": 0.1, "seed": 8}])
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, price=PRICE), test=TESTS)
    assert carry_out(file).contenders[0].error is None
    found = rows(file, "asked")
    assert len(found) == len({row["id"] for row in found}) == TESTS
    assert all(row["error"] is None and row["prediction"] for row in found)
    saw = fake.saw()
    assert set(saw["faulty"]) == set(ALL)
    assert min(saw["faulty"].values()) >= 10
    assert len(saw["asked"]) == TESTS
    # Only what was carried out unheard is paid for again.
    unheard = sum(saw["faulty"][kind] for kind in ("forwarded", "mid-body", "malformed"))
    assert saw["billed"]["completions"] == TESTS + unheard
    spent = Ledger(file.parent / "run" / "events.jsonl").spent()
    assert float(spent.known) <= fake.billed_usd() <= float(spent.known + spent.uncertain)


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_as_many_at_once_as_are_allowed(fake: Trainer, tmp_path: Path, concurrency: int) -> None:
    fake.set(latency=0.2)
    contender = prompted(fake.url, concurrency=concurrency)
    carry_out(bakeoff_file(tmp_path / "b", contender, test=4 * concurrency, measure=False))
    assert fake.saw()["most_at_once"] == concurrency


@pytest.fixture
def five_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five answers are timed; of the four that count there is a 95th percentile. A request takes
    one look at the clock."""
    monkeypatch.setattr(latency, "MIN_TIMED", 4)
    monkeypatch.setattr(latency, "MIN_SECONDS", 0.0)
    looks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(looks)))
    monkeypatch.setattr("tuneoff.providers.openai.time", clock)


@pytest.mark.usefixtures("five_alone")
def test_the_first_answers_are_timed_one_at_a_time(fake: Trainer, tmp_path: Path) -> None:
    """Whatever is refused or lost before an answer is in no time, and nothing is asked twice."""
    again = {"method": "POST", "path": CHAT, "kinds": ["429 with Retry-After", "500"], "times": 4}
    fake.set(latency=0.02, newer_model=True, faults=[again])
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, concurrency=8), test=5)
    few = carry_out(file).contenders[0].serving
    assert fake.saw()["most_at_once"] == 1
    assert [row["seconds"] for row in rows(file, "asked")] == [1.0] * 5
    assert (few.requests, few.seconds_p50, few.seconds_p95, few.concurrency) == (4, 1.0, 1.0, 1)
    assert (few.loaded_seconds_p50, few.loaded_concurrency) == (None, None)


@pytest.mark.usefixtures("five_alone")
def test_timed_answers_are_kept_and_replayed(fake: Trainer, tmp_path: Path) -> None:
    contender = prompted(fake.url, price=PRICE, concurrency=8, record=True)
    file = bakeoff_file(tmp_path / "b", contender, test=20)
    run = RunDir(file.parent / "run")
    folder = run.contender("asked")
    whole = carry_out(file).contenders[0].serving
    found = rows(file, "asked")
    assert [row["concurrency"] for row in found] == [1] * 5 + [8] * 15
    assert [row["id"] for row in found[:5]] == [
        example.id for example in latency.sample_evenly(run.examples("test"), 5)
    ]
    assert (whole.requests, whole.concurrency) == (4, 1)
    assert whole.seconds_p50 == median(row["seconds"] for row in found[1:5])
    assert (whole.loaded_requests, whole.loaded_concurrency) == (15, 8)
    assert whole.requests_per_second is None
    record = folder.serving()
    assert record is not None
    assert record.alone_seconds == {row["id"]: row["seconds"] for row in found[:5]}
    assert set(fake.saw()["asked"].values()) == {1}

    again = tuneoff.run(tuneoff.load(file), tmp_path / "again", replay=run.path)
    assert again.contenders[0].serving == whole
    replayed = RunDir(tmp_path / "again").contender("asked")
    assert replayed.predictions() == folder.predictions()
    assert [*replayed.predictions()][:5] == [row["id"] for row in found[:5]]

    # Killed after three answers: two more are timed.
    write_lines(folder.path / "predictions.jsonl", found[:3])
    carry_out(file)
    resumed = rows(file, "asked")
    assert resumed[:3] == found[:3]
    assert [row["concurrency"] for row in resumed] == [1] * 5 + [8] * 15


def test_a_run_of_before_is_not_asked_again(fake: Trainer, tmp_path: Path) -> None:
    """Its rows do not say how many were asked at once: the file does."""
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, concurrency=8), test=6)
    folder = RunDir(file.parent / "run").contender("asked")
    carry_out(file)
    old = [{k: v for k, v in row.items() if k != "concurrency"} for row in rows(file, "asked")]
    write_lines(folder.path / "predictions.jsonl", old)
    (folder.path / "serving.json").unlink()
    file.write_text(file.read_text() + "measure: false\n")
    serving = carry_out(file).contenders[0].serving
    assert fake.completions() == 6
    assert rows(file, "asked") == old
    assert folder.serving() is None
    assert (serving.requests, serving.concurrency) == (6, 8)
    assert serving.seconds_p50 == serving.loaded_seconds_p50 == median(r["seconds"] for r in old)
