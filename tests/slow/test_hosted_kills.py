"""A client that is killed at any moment, and resumed, pays once, asks for what is missing and
knows what it may have been billed.

Real `tuneoff run` processes and real SIGKILLs against the fake trainer, which lives on, kills at a
given request and counts what it bills. The process that resumes is there before the other is
killed, so that it looks for a job that may not be listed yet.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from world import KEY, PRICE, Trainer, bakeoff_file, hosted, rows, start, trainer

from tuneoff.costs.ledger import Ledger

pytestmark = pytest.mark.slow
pytest.importorskip("openai")

SEED, TESTS, CONCURRENCY = 20261128, 12, 4
# Points are carried out side by side: what they wait for is mostly not the processor.
TOGETHER = 3
LISTS_LATE, CREATES_SLOWLY, UNLISTED = 0.3, 0.2, 3
FILES, JOBS, CHAT = "/v1/files", "/v1/fine_tuning/jobs", "/v1/chat/completions"
BATCHES, ONE = "/v1/batches", "/[^/]+"
BATCH_PRICE = {
    **PRICE, "batch_input_usd_per_million_tokens": 0.15, "batch_output_usd_per_million_tokens": 0.6,
}  # fmt: skip

# (method, path, number of request, when): at a request; or seconds from the start.
Kill = tuple[str, str, int, str] | float


@dataclass(frozen=True)
class Point:
    """Kills one after another, each of the process that goes on after the one before."""

    kills: tuple[Kill, ...]
    batch: bool = False
    behaviour: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [f"{k:.2f}s" if isinstance(k, float) else "-".join(map(str, k)) for k in self.kills]
        how = [f"{name}={value}" for name, value in self.behaviour.items()]
        text = " ".join(["batch"] * self.batch + [" then ".join(said)] + how)
        return re.sub(r"/v1/|\[\^/\]\+", "", text)


def points() -> list[Point]:
    """The moments, the same ones each time: around each paid call all of them, elsewhere some."""
    rng = random.Random(SEED)
    paid = ("before", "during", "handled", "answered")
    found = []
    for metadata in ("kept", "ignored", "refused"):
        for when in paid:
            late = rng.choice([{}, {"lag_seconds": LISTS_LATE, "create_seconds": CREATES_SLOWLY}])
            odd = rng.choice([{}, {"pages": False}, {"shows_suffix": False}])
            told = {"metadata": metadata, **late, **odd}
            found.append(Point((("POST", JOBS, 1, when),), behaviour=told))
    for when in paid:
        lag = 0.0 if when == "before" else LISTS_LATE
        found.append(Point((("POST", FILES, rng.randint(1, 2), when),),
                           behaviour={"unlisted": UNLISTED}))  # fmt: skip
        for first in (1, TESTS // 2):
            nth = rng.randint(first, first + TESTS // 2 - 1)
            found.append(Point((("POST", CHAT, nth, when),)))
        found.append(Point((("POST", BATCHES, 1, when),), True,
                           {"lag_seconds": lag, "create_seconds": CREATES_SLOWLY}))  # fmt: skip
    for method, path, most in (
        ("GET", FILES, 2), ("GET", JOBS + ONE, 3), ("GET", JOBS + ONE + "/events", 3),
        ("GET", JOBS + ONE + "/checkpoints", 1), ("GET", FILES + ONE + "/content", 1),
    ):  # fmt: skip
        when = rng.choice(("handled", "answered"))
        found.append(Point(((method, path, rng.randint(1, most), when),)))
    # A batch's own file comes after the job's two.
    found += [
        Point((("POST", FILES, 3, when),), True, {"unlisted": UNLISTED})
        for when in ("during", "handled")
    ]
    found.append(Point((("GET", BATCHES + ONE, rng.randint(1, 2), "answered"),), True))
    found.append(Point((("GET", FILES + ONE + "/content", 2, "handled"),), True))
    # One kill after another: at each step of the way there.
    found.append(Point((("POST", FILES, 1, "handled"), ("POST", JOBS, 1, "during"),
                        ("GET", JOBS, 1, "answered"), ("POST", CHAT, 5, "handled"))))  # fmt: skip
    found.append(Point((("POST", JOBS, 1, "before"), ("POST", JOBS, 1, "handled"),
                        ("POST", CHAT, 2, "during"), ("POST", CHAT, 2, "answered"))))  # fmt: skip
    found += [Point((rng.uniform(0.0, 0.5), rng.uniform(0.0, 0.5))) for _ in range(4)]
    return found


POINTS = points()


@dataclass
class Outcome:
    """What is to be seen when a run is done."""

    codes: list[int]
    said: str
    saw: dict[str, Any]
    billed_usd: float
    file: Path


def carried_out(point: Point, folder: Path) -> Outcome:
    """Kills a run at every moment of a point, and has it resumed to its end."""
    price = BATCH_PRICE if point.batch else PRICE
    with trainer(folder / "fake") as fake, ExitStack() as stack:
        # Answers take a while, so that several are under way at once.
        fake.set(latency=0.02, **point.behaviour)
        settings = {"batch": True} if point.batch else {}
        one = hosted(fake.url, concurrency=CONCURRENCY, price=price, seed=1, **settings)
        file = bakeoff_file(folder / "b", one, test=TESTS, measure=False)
        processes = []
        for _ in range(len(point.kills) + 1):
            child = start(file, "--yes", held=True, bare=True, elsewhere=True,
                          env={"OPENAI_API_KEY": KEY},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
            stack.callback(_end, child)
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            processes.append(child)
        said = ""
        for child, kill in zip(processes, [*point.kills, None], strict=True):
            said += _let_go(fake, child, kill)
        return Outcome([child.returncode for child in processes], said, fake.saw(),
                       fake.billed_usd(price), file)  # fmt: skip


def _let_go(fake: Trainer, child: subprocess.Popen[str], kill: Kill | None) -> str:
    """Lets a process run, kills it, and waits for its end."""
    told = None
    if isinstance(kill, tuple):
        method, path, nth, when = kill
        told = {"pid": child.pid, "method": method, "path": path, "nth": nth, "when": when}
    fake.set(kill=told)
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    if isinstance(kill, float):
        time.sleep(kill)
        child.send_signal(signal.SIGKILL)
    return child.communicate(timeout=120)[0]


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, Future[Outcome]]]:
    """What comes of the points that are tested, side by side."""
    folder = tmp_path_factory.mktemp("kills")
    specs = (getattr(item, "callspec", None) for item in request.session.items)
    chosen = [
        spec.params["point_number"] for spec in specs if spec and "point_number" in spec.params
    ]
    with ThreadPoolExecutor(TOGETHER) as pool:
        found = {n: pool.submit(carried_out, POINTS[n], folder / str(n)) for n in chosen}
        yield found
        for each in found.values():
            each.cancel()


@pytest.mark.parametrize("point_number", range(len(POINTS)), ids=list(map(str, POINTS)))
def test_killed_and_resumed(outcomes: dict[int, Future[Outcome]], point_number: int) -> None:
    point, found = POINTS[point_number], outcomes[point_number].result()
    for kill, code in zip(point.kills, found.codes[:-1], strict=True):
        # By the clock it may have been done before.
        assert code == -signal.SIGKILL or (isinstance(kill, float) and code == 0), found.said
    assert found.codes[-1] == 0, found.said
    everything_once(found, point)
    ledger_holds(found, point)


def everything_once(found: Outcome, point: Point) -> None:
    """One upload a file, one job, one batch, one row an example, and little is asked again."""
    saw = found.saw
    sent = {name: n for name, n in saw["uploads"].items() if name.startswith("tuneoff-")}
    assert sorted(sent.values()) == [1] * (3 if point.batch else 2)
    assert len(saw["jobs"]) == 1
    assert len(saw["batches"]) == point.batch
    ids = [row["id"] for row in rows(found.file)]
    assert len(ids) == len(set(ids)) == TESTS
    assert all(row["error"] is None and row["prediction"] for row in rows(found.file))
    assert len(rows(found.file, what="loss")) == 10
    asked = saw["billed"]["completions"] + saw["billed"]["batch_completions"]
    # Handed to threads are twice as many as are under way; some answers are not written down yet.
    again = 0 if point.batch else 2 * CONCURRENCY * len(point.kills)
    assert TESTS <= asked <= TESTS + again


def ledger_holds(found: Outcome, point: Point) -> None:
    """known ≤ billed ≤ known + uncertain, and only answers that a kill cut off are uncertain."""
    ledger = Ledger(found.file.parent / "run" / "events.jsonl")
    spent, rounding = ledger.spent(), 1e-9
    assert float(spent.known) <= found.billed_usd + rounding
    assert found.billed_usd <= float(spent.known + spent.uncertain) + rounding
    training = ledger.spent(what="training")
    assert training.uncertain == 0
    billed = found.saw["billed"]["training"] * PRICE["training_usd_per_million_tokens"] / 1e6
    assert abs(float(training.known) - billed) < rounding
    events = found.file.parent / "run" / "events.jsonl"
    told = [json.loads(line) for line in events.read_text().splitlines()]
    begun = {row["key"] for row in told if row["event"] == "authorized"}
    ended = {row["key"] for row in told if row["event"] == "settled"}
    assert len(begun - ended) <= (0 if point.batch else CONCURRENCY * len(point.kills))


def test_there_are_forty_points() -> None:
    assert len(POINTS) >= 40
    assert len(set(map(str, POINTS))) == len(POINTS)
