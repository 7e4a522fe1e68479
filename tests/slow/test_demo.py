"""The demo, whole: both sample tasks, a hosted contender with the first, and what they must reach.

`make demo` is what a newcomer types first, so it is run as that: in a folder that holds
the repository's files and nothing else, through make and the shell.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from running import request, wait

from tuneoff.results import ContenderResult, Results
from tuneoff.storage.run_dir import RunDir

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files in a new folder, with this environment as its .venv."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # -o: the environment is there already and must not be installed from this folder.
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "MAKEFLAGS": "-o .venv/.installed",
    }  # fmt: skip
    environment.pop("TUNEOFF_DATA", None)
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def demo(clone: Path) -> Path:
    """The folder in which `make demo` has run."""
    done = shell("make demo", clone)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "The demo took" in done.stdout
    for name in ("demo-functional", "demo-sql"):
        assert f"report: runs/{name}/report.html" in done.stdout
    return clone


def results(folder: Path, name: str) -> Results:
    return RunDir(folder / "runs" / name).results()


def value(results: Results, contender: str) -> float:
    found = next(c for c in results.contenders if c.name == contender)
    return found.scores[results.primary_metric].value or 0.0


@pytest.mark.parametrize("name", ["demo-functional", "demo-sql"])
def test_every_contender_is_scored(demo: Path, name: str) -> None:
    found = results(demo, name)
    names = [contender.name for contender in found.contenders]
    hosted = ["hosted-api"] if name == "demo-functional" else []
    assert names == ["prompted", "lora-seed", "lora-all-linear", "full", *hosted]
    for contender in found.contenders:
        assert contender.error is None
        assert contender.scores[found.primary_metric].n == 200
    assert len(found.comparisons) == math.comb(len(names), 2)
    assert (demo / "runs" / name / "report.html").is_file()
    assert (demo / "runs" / name / "report.md").is_file()


@pytest.mark.parametrize("name", ["demo-functional", "demo-sql"])
def test_the_report_has_nothing_wrong_in_a_browser(demo: Path, name: str) -> None:
    pytest.importorskip("playwright.sync_api")
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("there is no Chromium here")
    script = ROOT / "docs" / "check_report.py"
    command = [sys.executable, str(script), str(demo / "runs" / name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


@pytest.mark.parametrize("name", ["demo-functional", "demo-sql"])
def test_every_figure_is_what_another_program_makes_of_the_rows(demo: Path, name: str) -> None:
    run = demo / "runs" / name
    command = [sys.executable, str(ROOT / "docs" / "recompute.py"), str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["disagreements"] == []
    assert sum(found["not_recomputed"].values()) < 20
    assert found["compared"]["row scores"] >= 2_000
    kinds = {"scores", "intervals of scores", "intervals of differences", "p-values", "flips"}
    kinds |= {"adjusted p-values", "outcomes", "costs", "times", "ranks", "allowances"}
    assert kinds <= found["compared"].keys()


def test_tuning_teaches_the_functional_sample(demo: Path) -> None:
    found = results(demo, "demo-functional")
    prompted = value(found, "prompted")
    best = max(value(found, "lora-seed"), value(found, "lora-all-linear"))
    assert best >= prompted + 0.50
    assert value(found, "lora-seed") >= prompted + 0.20


def test_tuning_teaches_the_sql_sample(demo: Path) -> None:
    found = results(demo, "demo-sql")
    assert found.primary_metric == "execution_accuracy"
    assert max(value(found, c.name) for c in found.contenders) >= 0.40


def test_the_hosted_contender_is_what_it_says(demo: Path) -> None:
    found = results(demo, "demo-functional").contenders[-1]
    assert "a server on this machine" in found.model
    assert found.training is not None
    assert found.training.tokens_billed
    assert found.loss
    assert value(results(demo, "demo-functional"), "hosted-api") >= 0.20
    assert found.model in (demo / "runs" / "demo-functional" / "report.html").read_text()


def test_adapters_are_smaller_than_models(demo: Path) -> None:
    def trained(contender: ContenderResult) -> int:
        assert contender.training is not None
        return contender.training.trainable_parameters or 0

    _, seed, all_linear, full, _ = results(demo, "demo-functional").contenders
    assert trained(seed) < trained(all_linear) < trained(full)


def commands(text: str) -> list[str]:
    """The lines of the README's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def serves(command: str, folder: Path) -> None:
    """Starts a server, which must answer, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command} --port {port}"], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait(port, process)
        status, models = request(port, "GET", "/v1/models")
        assert (status, models["data"][0]["id"]) == (200, "tiny")
    finally:
        process.terminate()
        process.wait(30)


def test_the_readmes_commands_run_and_the_demo_does_nothing_twice(demo: Path) -> None:
    """The first of them is the demo again."""
    file = demo / "runs" / "demo-sql" / "contenders" / "full" / "model" / "model.safetensors"
    before = file.stat().st_mtime_ns
    found = commands((demo / "README.md").read_text())
    assert found[:2] == ["make demo", "make test"]
    assert len(found) >= 6
    for command in found:
        if command == "make test":  # this is one of them
            continue
        if "tuneoff serve" in command:  # it runs until it is stopped
            serves(command, demo)
            continue
        done = shell(command, demo)
        assert done.returncode == 0, f"{command}: {done.stderr[-1000:]}"
    assert file.stat().st_mtime_ns == before
