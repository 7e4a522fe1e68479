"""Real Ray clusters on this machine: the same results as one process, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml
from world import KEY, trainer

from tuneoff.storage.files import read_lines
from tuneoff.storage.run_dir import RunDir

T = TypeVar("T")
pytestmark = [pytest.mark.slow, pytest.mark.alone]
pytest.importorskip("ray")

TUNEOFF = str(Path(sys.executable).parent / "tuneoff")
TRAIN = {"max_steps": 30, "batch_size": 8, "evaluate_every": 5, "learning_rate": 4e-3}
LORA = {"r": 4, "dropout": 0.0}
SIX: list[dict[str, Any]] = [
    {"name": "zero-shot", "id": "prompted", "base": "tiny"},
    {"name": "two-shots", "id": "prompted", "base": "tiny", "shots": 2},
    {"name": "four-shots", "id": "prompted", "base": "tiny", "shots": 4},
    {"name": "lora", "id": "local", "base": "tiny", "prompt": "short", "lora": LORA,
     "train": TRAIN},
    {"name": "seeds", "id": "local", "base": "tiny", "prompt": "short", "lora": LORA,
     "train": {**TRAIN, "max_steps": 20}, "seeds": [1, 2]},
    {"name": "full", "id": "local", "base": "tiny", "prompt": "short", "method": "full",
     "train": {**TRAIN, "learning_rate": 1e-3}},
]  # fmt: skip
# Counted, not measured: what must not depend on where it was computed.
COUNTED = ("examples", "epochs", "steps", "tokens_raw", "tokens_templated", "tokens_computed",
           "best_step", "verdict", "trainable_parameters", "learning_rate")  # fmt: skip


def environment() -> dict[str, str]:
    """The sum of floats depends on how many threads share it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write(folder: Path, contenders: list[dict[str, Any]], **limit: int) -> Path:
    file = folder / "b.yaml"
    task = {"id": "functional_representation", "source": "sample", "max_new_tokens": 48,
            "limit": limit}  # fmt: skip
    file.write_text(yaml.safe_dump({"name": "six", "task": task, "contenders": contenders}))
    return file


def start(file: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [TUNEOFF, "run", str(file), "--run-dir", str(run), *more], env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:]
    return said


def until(happened: Callable[[], T], process: subprocess.Popen[str]) -> T:
    """What is found, once something is."""
    deadline = time.monotonic() + 400
    while not (found := happened()):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "it did not come that far"
        time.sleep(0.05)
    return found


def kept(run: Path, since: float = 0.0) -> Callable[[], bool]:
    """Whether a checkpoint of some contender was kept for whoever goes on, after a moment."""

    def found() -> bool:
        for manifest in run.glob("contenders/**/cluster/*/manifest.json"):
            with contextlib.suppress(FileNotFoundError):  # through meanwhile
                if manifest.stat().st_mtime > since and "checkpoints/" in manifest.read_text():
                    return True
        return False

    return found


def held_in_training(node: Any) -> psutil.Process | None:
    """A worker of a node that trains, held there, so that it still does when the node dies."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for worker in raylet.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ray::tune" in " ".join(worker.cmdline()):
                worker.suspend()
                if "ray::tune" in " ".join(worker.cmdline()):
                    return worker
                worker.resume()
    return None


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster of two nodes, each with one processor; the driver is none of them."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8}
    )
    cluster.other = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    yield cluster
    cluster.shutdown()


def scores(run: Path) -> dict[str, Any]:
    """What of results.json must be the same wherever it was computed."""
    results = json.loads((run / "results.json").read_text())
    return {
        c["name"]: {
            "scores": c["scores"], "error_classes": c["error_classes"], "loss": c["loss"],
            "prompt": c["prompt_sha256"], "error": c["error"],
            "training": c["training"] and {key: c["training"][key] for key in COUNTED},
            "tokens": [c["serving"][f"tokens_{way}_mean"] for way in ("in", "out")],
        }
        for c in results["contenders"]
    } | {"comparisons": results["comparisons"], "content": results["content_sha256"]}  # fmt: skip


def answers(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every answer of every training, in the order of the examples."""
    found = {}
    for file in sorted((run / "contenders").rglob("predictions.jsonl")):
        rows = [(r["id"], r["prediction"], r["tokens_in"], r["tokens_out"])
                for r in read_lines(file)]  # fmt: skip
        assert max(Counter(row[0] for row in rows).values()) == 1, f"twice in {file}"
        found[file.parent.relative_to(run).as_posix()] = sorted(rows)
    return found


def test_two_nodes_give_what_one_process_gives_with_a_node_and_the_driver_killed(
    nodes: Any, tmp_path: Path
) -> None:
    file = write(tmp_path, SIX, train=96, validation=16, test=24)
    alone, ray = tmp_path / "alone", tmp_path / "ray"
    finished(start(file, alone))

    driver = start(file, ray, "--ray", nodes.address)
    until(kept(ray), driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()

    # Not what the first driver's workers kept: the second one's must be at work.
    again = time.time()
    driver = start(file, ray, "--ray", nodes.address)
    until(kept(ray, again), driver)
    held = until(lambda: held_in_training(nodes.other), driver)
    nodes.remove_node(nodes.other, allow_graceful=False)
    assert held is not None
    held.kill()
    said = finished(driver)
    assert "a worker was lost" in said

    assert scores(ray) == scores(alone)
    assert answers(ray) == answers(alone)
    for contender in RunDir(ray).contenders():
        # Each step's loss once, though a training was cut twice.
        for folder in (contender, *(contender.seed(seed) for seed in (1, 2))):
            steps = [row.step for row in folder.loss()]
            assert len(steps) == len(set(steps))
        assert not list(contender.path.rglob("cluster"))
    # Nothing is left to do, so nothing is done.
    before = {p: p.stat().st_mtime_ns for p in ray.rglob("adapter_model.safetensors")}
    finished(start(file, ray))
    assert before == {p: p.stat().st_mtime_ns for p in ray.rglob("adapter_model.safetensors")}


def test_one_contender_over_two_workers(tmp_path: Path) -> None:
    """Ray Train's processes make one training, and both answer; of two, a bucket keeps it."""
    two = {"count": 2}
    both = {**SIX[3], "name": "both", "hardware": two, "train": {**TRAIN, "parallel": "ddp"}}
    file = write(tmp_path, [SIX[3], both], train=96, validation=16, test=24)
    run, storage = tmp_path / "run", tmp_path / "storage"
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(file), str(run), str(storage)], env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Once a checkpoint is kept, one of the two is killed: both begin again from there.
    until(lambda: any("checkpoints/" in m.read_text() for m in storage.rglob("manifest.json")
                      if "both" in m.parts[-3]), process)  # fmt: skip
    everybody = psutil.Process(process.pid).children(recursive=True)
    members = [each for each in everybody if "RayTrainWorker" in " ".join(each.cmdline())]
    members[-1].send_signal(signal.SIGKILL)
    said = finished(process)
    assert "a worker was lost" in said
    one, other = RunDir(run).results().contenders
    assert (one.error, other.error) == (None, None), said[-2000:]
    assert one.training is not None
    assert other.training is not None
    assert other.training.steps == one.training.steps == 30
    for mine, theirs in zip(other.loss, one.loss, strict=True):
        assert mine.validation == pytest.approx(theirs.validation, rel=1e-3)
    asked = {example.id for example in RunDir(run).examples("test")}
    assert set(RunDir(run).contender("both").predictions()) == asked
    assert not [path for path in storage.rglob("*") if path.is_file()]


def test_ctrl_c_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    """Of a cluster that was started for the run nothing lives on; what was kept is gone on from."""
    longer = {**SIX[3], "train": {**TRAIN, "max_steps": 4000}}
    file, run = write(tmp_path, [longer], train=32, validation=8, test=4), tmp_path / "run"
    # A shell's job in the background ignores Ctrl-C, and so would its children.
    driver = subprocess.Popen(
        [TUNEOFF, "run", str(file), "--run-dir", str(run), "--ray"], env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until(kept(run), driver)
    everybody = psutil.Process(driver.pid).children(recursive=True)
    assert any("ray::tune" in " ".join(each.cmdline()) for each in everybody)
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 130, said[-3000:]
    assert "the same command goes on from here" in said
    _, alive = psutil.wait_procs(everybody, timeout=60)
    assert not alive
    assert kept(run)()


def test_ctrl_c_waits_for_answers_that_are_paid_for(tmp_path: Path) -> None:
    """A provider's answers that are under way are written down; only then the driver ends."""
    pytest.importorskip("openai")
    with trainer(tmp_path / "fake") as fake:
        fake.set(latency=0.3)
        asked = {"name": "asked", "id": "prompted", "model": "fake-1", "base_url": fake.url,
                 "concurrency": 4}  # fmt: skip
        file, run = write(tmp_path, [SIX[0], asked], train=8, test=60), tmp_path / "run"
        driver = subprocess.Popen(
            [TUNEOFF, "run", str(file), "--run-dir", str(run), "--ray"],
            env=environment() | {"OPENAI_API_KEY": KEY},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        answers = RunDir(run).contender("asked").predictions
        until(lambda: len(answers()) >= 8, driver)
        driver.send_signal(signal.SIGINT)
        said = driver.communicate(timeout=60)[1]
        assert driver.returncode == 130, said[-3000:]
        assert "waiting for the answers that are under way, and paid for" in said
        assert 8 <= len(answers()) == fake.saw()["billed"]["completions"] < 60


# A cluster of its own with two processors: a folder stands for the bucket.
DRIVER = """
import sys
import ray
from tuneoff.bakeoff.run import run
from tuneoff.cluster.executor import RayExecutor
from tuneoff.config.load import load
from tuneoff.progress import LineProgress

ray.init(num_cpus=2, log_to_driver=False, object_store_memory=10**8)
progress = LineProgress()
executor = RayExecutor(progress, storage=sys.argv[3])
run(load(sys.argv[1]), sys.argv[2], executor=executor, progress=progress)
executor.close()
"""
