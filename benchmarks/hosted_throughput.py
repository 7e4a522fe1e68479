"""Answers a second of a hosted model, 16 requests in flight against one after another.

Pattern: one server on loopback in a process of its own (the tests' fake trainer), which answers
`--seconds` after it was asked; one `prompted` contender with a price, so that every request is
authorised and settled in the ledger, and every answer written down, as in any paid run. In each of
`--rounds` rounds one after another, then `--concurrency` in flight, in this process. What is timed
is the stage that answers, from its beginning to the last answer that is written.
Metric: answers a second, medians over rounds, and their ratio (at best the concurrency); CPU
milliseconds of this process an answer, for where they are many, the machine is the limit.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tuneoff import environment
from tuneoff.bakeoff import run as bakeoff
from tuneoff.progress import SilentProgress

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "hosted"))
from world import PRICE, Trainer, bakeoff_file, prompted, run, trainer  # noqa: E402

TARGET = 12.0


class Taken(NamedTuple):
    """Wall and CPU seconds."""

    seconds: float
    cpu_seconds: float


class Watch(SilentProgress):
    """Times the stage that answers."""

    def __init__(self) -> None:
        self.taken: Taken | None = None

    def stage(self, title: str, total: int) -> Callable[..., None]:
        if not title.endswith("answering"):
            return super().stage(title, total)
        wall, cpu = time.perf_counter(), time.process_time()

        def step(done: int, note: str = "") -> None:
            self.taken = Taken(time.perf_counter() - wall, time.process_time() - cpu)

        return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.2, help="latency of an answer")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--sequential", type=int, default=40, help="answers one after another")
    parser.add_argument("--parallel", type=int, default=640, help="answers with many in flight")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON")
    arguments = parser.parse_args()
    # Only answering is timed, and reports would take longer than it.
    bakeoff.write_report = lambda folder: (folder.path, folder.path)
    with TemporaryDirectory() as folder, trainer(Path(folder) / "fake") as fake:
        fake.set(latency=arguments.seconds)
        once(fake, Path(folder) / "warm", 2, 2)
        found = measured(fake, Path(folder), arguments)
        most = fake.saw()["most_at_once"]
    settings = {
        **vars(arguments),
        "cores": os.cpu_count(),
        "machine": environment.describe_machine(),
    }
    print(json.dumps({**settings, **found, "most_at_once": most, "target": TARGET}, indent=2))


def measured(fake: Trainer, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways in turn, as often as there are rounds."""
    ways = {"one_by_one": (1, arguments.sequential),
            "together": (arguments.concurrency, arguments.parallel)}  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, (concurrency, answers) in ways.items():
            taken = once(fake, folder / f"{name}-{number}", concurrency, answers)
            rates[name].append(answers / taken.seconds)
            cpu[name].append(1000 * taken.cpu_seconds / answers)
    found: dict[str, Any] = {
        name: {
            "answers_per_second": round(statistics.median(rates[name]), 2),
            "each_round": [round(rate, 2) for rate in rates[name]],
            "cpu_milliseconds_per_answer": round(statistics.median(cpu[name]), 2),
        }
        for name in ways
    }
    ratios = [b / a for a, b in zip(rates["one_by_one"], rates["together"], strict=True)]
    medians = [statistics.median(rates[name]) for name in ways]
    return {**found, "ratio": round(medians[1] / medians[0], 2),
            "ratio_each_round": [round(ratio, 2) for ratio in ratios]}  # fmt: skip


def once(fake: Trainer, folder: Path, concurrency: int, answers: int) -> Taken:
    """A run of its own; how long its answers took."""
    contender = prompted(fake.url, price=PRICE, concurrency=concurrency)
    watch = Watch()
    results = run(bakeoff_file(folder, contender, test=answers), watch)
    assert results.contenders[0].error is None, results.contenders[0].error
    assert watch.taken is not None
    return watch.taken


if __name__ == "__main__":
    main()
