"""What a busy machine costs a training and its answers, by how OpenMP's threads wait.

Data set: the functional sample, generated: LoRA on the shipped base for STEPS steps, TEST answers.
Metric: seconds of training (loading included) and answers a second, as the run directory has them;
medians of the rounds. None: not through after LIMIT_SECONDS.
Pattern: `tuneoff run` as a process of its own, by turns with libgomp's own spinning
(GOMP_SPINCOUNT=300000, its default), the short spinning that the command line sets, no spinning
(OMP_WAIT_POLICY=PASSIVE) and one thread; on a quiet machine, beside a process that has one of the
processors all the time, and beside another torch with as many threads. Nothing else may run.

    python benchmarks/busy_core.py [--rounds 1] [--json]      about 10 minutes
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneoff import environment as machine
from tuneoff.storage.run_dir import RunDir

STEPS, TEST, LIMIT_SECONDS = 40, 100, 120
WAYS = {
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "short": {"GOMP_SPINCOUNT": "20000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
FILE = f"""
name: busy
task: {{id: functional_representation, source: sample, limit: {{train: 400, test: {TEST}}}}}
contenders:
  - name: lora
    id: local
    base: tiny
    prompt: short
    lora: {{r: 8, dropout: 0.0}}
    train: {{max_steps: {STEPS}, batch_size: 8, learning_rate: 4.0e-3}}
"""
# What else the machine has to do.
LOADS = {
    "quiet": None,
    "one processor busy": "while True: pass",
    "another torch": "import torch\na = torch.randn(256, 256)\nwhile True: torch.relu(a @ a)",
}
Found = tuple[float | None, float | None]


@contextmanager
def beside(load: str | None, way: str) -> Iterator[None]:
    """The machine has something else to do while inside."""
    if load is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", load], env=environment(way))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def environment(way: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    return clean | WAYS[way]


def measure(way: str) -> Found:
    """Seconds of training, and answers a second."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "b.yaml"
        file.write_text(FILE, encoding="utf-8")
        cli = "from tuneoff.cli.main import main; main()"
        command = [sys.executable, "-c", cli, "run", str(file), "--run-dir", f"{folder}/run"]
        try:
            subprocess.run(
                command, env=environment(way), timeout=LIMIT_SECONDS, check=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, None
        lora = RunDir(Path(folder) / "run").contender("lora")
        record = lora.training()
        took = math.fsum(p.seconds or 0.0 for p in lora.predictions().values())
        return record.seconds if record else None, TEST / took


def medians(found: list[Found]) -> dict[str, float | None]:
    """Of rounds that were all through."""
    columns = zip(*found, strict=True)
    training, answering = (
        None if None in column else round(statistics.median(column), 1)  # type: ignore[type-var]
        for column in columns
    )
    return {"training_seconds": training, "answers_per_second": answering}


def rounds(count: int, load: str) -> dict[str, Any]:
    found: dict[str, list[Found]] = {way: [] for way in WAYS}
    for _ in range(count):
        for way, times in found.items():
            with beside(LOADS[load], way):
                times.append(measure(way))
            print(f"{load}, {way}: {times[-1]}", file=sys.stderr)
    return {way: medians(times) for way, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(LOADS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="only the JSON document")
    asked = parser.parse_args()
    found = {load: rounds(asked.rounds, load) for load in asked.only or LOADS}
    about = {
        "machine": machine.describe_machine(),
        "rounds": asked.rounds,
        "limit_seconds": LIMIT_SECONDS,
    }
    print(json.dumps(about | found, indent=2))


if __name__ == "__main__":
    main()
