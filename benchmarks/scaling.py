"""Six contenders on one and on two Ray workers, and what the driver costs.

Data set: the generated functional sample; six LoRA contenders alike but for their seeds, 200 test
examples each; every worker has one processor and one thread. Pattern: the same file in one process
without Ray, then on a local Ray cluster of one processor, then of two, each run from nothing in a
process of its own, Ray started before the clock.
Metrics: seconds of each run; one worker's over two workers' (target 1.7, at best 2); the overhead a
contender, which is (one worker's seconds - without Ray) / 6 and holds all that Ray and moving
files cost, loading torch in the worker and the base for each stage included (target under 3 s).
Memory: the driver's peak resident memory over a run of one prompted contender, whose answers are
one token, with `--few` and with ten times as many test examples: bytes, and their difference for
an answer.
Prints one JSON document.

    python benchmarks/scaling.py --json             some 10 minutes
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tuneoff import environment as machine

SPEEDUP, OVERHEAD_SECONDS = 1.7, 3.0
CONTENDERS, TIMES = 6, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120, help="training steps of a contender")
    parser.add_argument("--few", type=int, default=500, help="test examples for the memory")
    parser.add_argument("--part", choices=("both", "speed", "memory"), default="both")
    parser.add_argument("--json", action="store_true", help="JSON is all that is printed anyway")
    parser.add_argument("--child", nargs=3, metavar=("FILE", "FOLDER", "WORKERS"))
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_timed(*arguments.child)))
        return
    found: dict[str, Any] = {
        "benchmark": "scaling",
        "machine": machine.describe_machine(),
        "versions": machine.read_versions(),
        "load": os.getloadavg(),
    }
    with TemporaryDirectory() as folder:
        if arguments.part != "memory":
            found["speed"] = _speed(Path(folder), arguments.steps)
        if arguments.part != "speed":
            found["driver"] = _memory(Path(folder), arguments.few)
    print(json.dumps(found, indent=2))


def _speed(place: Path, steps: int) -> dict[str, Any]:
    file = _contenders(place / "six.yaml", steps)
    alone, one, two = (_in_process(file, place / f"workers-{n}", n) for n in (0, 1, 2))
    return {
        "contenders": CONTENDERS,
        "steps": steps,
        "seconds": {"without_ray": alone["seconds"], "one_worker": one["seconds"],
                    "two_workers": two["seconds"]},
        "two_workers_against_one": round(one["seconds"] / two["seconds"], 2),
        "two_workers_against_no_ray": round(alone["seconds"] / two["seconds"], 2),
        "overhead_seconds_per_contender": round(
            (one["seconds"] - alone["seconds"]) / CONTENDERS, 2
        ),
        "same_scores": alone["scores"] == one["scores"] == two["scores"],
        "targets": {"two_workers_against_one": SPEEDUP,
                    "overhead_seconds_per_contender": OVERHEAD_SECONDS},
    }  # fmt: skip


def _memory(place: Path, few: int) -> dict[str, Any]:
    counts = [few, TIMES * few]
    low, high = (
        _in_process(_answers(place / str(count), count), place / f"answers-{count}", 1)
        for count in counts
    )
    more = high["peak_bytes"] - low["peak_bytes"]
    return {
        "answers": counts,
        "peak_bytes": [low["peak_bytes"], high["peak_bytes"]],
        "ratio": round(high["peak_bytes"] / low["peak_bytes"], 3),
        "bytes_per_answer": round(more / (counts[1] - counts[0])),
    }


def _contenders(file: Path, steps: int) -> Path:
    train = {"max_steps": steps, "batch_size": 8, "learning_rate": 4e-3, "evaluate_every": 40}
    contenders = [
        {"name": f"seed-{seed}", "id": "local", "base": "tiny", "prompt": "short", "seed": seed,
         "lora": {"r": 8, "dropout": 0.0}, "train": train}
        for seed in range(CONTENDERS)
    ]  # fmt: skip
    task = {"id": "functional_representation", "source": "sample", "max_new_tokens": 96}
    file.write_text(yaml.safe_dump({"name": "six", "task": task, "contenders": contenders}))
    return file


def _answers(folder: Path, count: int) -> Path:
    folder.mkdir()
    for split, rows in (("train", 2), ("test", count)):
        with (folder / f"{split}.jsonl").open("w") as stream:
            for number in range(rows):
                prompt = f"{split}: {number} + 1 ="
                row = {"id": f"{split}-{number}", "prompt": prompt, "completion": "2"}
                stream.write(json.dumps(row) + "\n")
    file = folder / "answers.yaml"
    task = {"id": "chat", "train": "train.jsonl", "test": "test.jsonl", "max_new_tokens": 1}
    contenders = [{"name": "prompted", "id": "prompted", "base": "tiny"}]
    file.write_text(yaml.safe_dump({"name": "answers", "task": task, "contenders": contenders}))
    return file


def _in_process(file: Path, folder: Path, workers: int) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--child", str(file), str(folder), str(workers)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{folder.name}: {found['seconds']} s", file=sys.stderr)
    return found


def _timed(file: str, folder: str, workers: str) -> dict[str, Any]:
    """One run, from nothing; 0 workers: in this process."""
    from tuneoff.bakeoff import run
    from tuneoff.cli.console import silence_libraries
    from tuneoff.cluster.executor import RayExecutor
    from tuneoff.config.load import load
    from tuneoff.progress import SilentProgress

    silence_libraries()
    executor = None
    if int(workers):
        import ray

        ray.init(num_cpus=int(workers), log_to_driver=False, object_store_memory=10**8)
        executor = RayExecutor(SilentProgress())
    began = time.perf_counter()
    results = run.run(load(Path(file)), folder, executor=executor)
    seconds = time.perf_counter() - began
    if executor is not None:
        executor.close()
    return {
        "seconds": round(seconds, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "scores": [c.scores[results.primary_metric].value for c in results.contenders],
    }


if __name__ == "__main__":
    main()
