"""Tries tuneoff with the lowest versions that pyproject.toml allows (`make test-lowest`).

`write` derives constraints-lowest.txt from pyproject.toml; `run` installs it into a virtual
environment of its own, trains, scores, exports and serves there, and notes the commit that
passed in docs/results/by_hand.json.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints-lowest.txt"
ENVIRONMENT = ROOT / ".venv-lowest"
RECORD = ROOT / "docs" / "results" / "by_hand.json"
# The extras that the small run below needs.
EXTRAS = ("hosted", "serve", "gguf")
# What a result depends on most.
NOTED = ("torch", "transformers", "peft", "accelerate", "openai", "fastapi")
SERVER_SECONDS, JOB_SECONDS = 180, 600
FLOOR = re.compile(r"([\w.-]+)>=([\w.]+)(?:,<[\w.]+)?$")

CONTENDERS = """
contenders:
  - {name: lora, id: local, base: tiny, lora: {r: 4, alpha: 8}, train: {max_steps: 4, batch_size: 8, gradient_checkpointing: true}}
  - {name: full, id: local, base: tiny, method: full, train: {max_steps: 4, batch_size: 8}}
"""  # noqa: E501
LIMIT = "max_new_tokens: 12, limit: {train: 16, validation: 8, test: 8}"
# Each task's metrics must be computed with these versions too.
TASKS = {
    "functional_representation": {"exact_match", "function_accuracy"},
    "text_to_sql": {"exact_match", "execution_accuracy"},
}


def floors(project: Path = ROOT / "pyproject.toml") -> str:
    """Derives the text of constraints-lowest.txt: each floor as `==`.

    Raises:
        ValueError: a requirement has no floor.
    """
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    groups = [table["dependencies"], *(table["optional-dependencies"][e] for e in EXTRAS)]
    lines = []
    for requirement in (each for group in groups for each in group):
        found = FLOOR.match(requirement)
        if found is None:
            raise ValueError(f"{requirement}: give it a floor (NAME>=VERSION).")
        lines.append(f"{found[1]}=={found[2]}")
    head = "# Written by .ci/lowest.py from the floors in pyproject.toml (make test-lowest).\n"
    return head + "".join(f"{line}\n" for line in sorted(lines, key=str.lower))


def install() -> None:
    """Installs the lowest versions and this project."""
    venv.create(ENVIRONMENT, with_pip=True)
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet"]
    pip += ["--disable-pip-version-check", "-c", CONSTRAINTS]
    # torch first and by itself: any later install finds it there, and leaves it as it is.
    subprocess.run([*pip, "torch"], check=True)
    subprocess.run([*pip, "-e", f"{ROOT}[{','.join(EXTRAS)}]"], check=True)


def run_bakeoffs(folder: Path) -> None:
    """Trains, answers and scores each task with LoRA and with all parameters, and exports."""
    for task, metrics in TASKS.items():
        file, out = folder / f"{task}.yaml", folder / task
        file.write_text(f"name: x\ntask: {{id: {task}, source: sample, {LIMIT}}}{CONTENDERS}")
        _tuneoff("run", file, "--run-dir", out)
        results = json.loads((out / "results.json").read_text())
        for contender in results["contenders"]:
            found = {name for name, score in contender["scores"].items() if score["n"] == 8}
            if contender["error"] or not metrics <= found:
                raise SystemExit(f"{task}, {contender['name']}: scored {sorted(found)} only.")
            print(f"{task}, {contender['name']}: trained, answered, scored {len(found)} metrics")
    _tuneoff("export", out, "lora", "--format", "merged", "--dtype", "float32", "--strict")
    _tuneoff("export", out, "lora", "--format", "gguf", "--outtype", "f32")
    print("exported: merged (strict), gguf")


def run_server(folder: Path) -> None:
    """Serves the shipped base, and has the openai SDK chat with it and tune it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [_program(), "serve", "--base", "tiny", "--port", str(port)]
    server = subprocess.Popen([*command, "--data-dir", folder / "data"], env=_environment())
    try:
        _use_server(f"http://127.0.0.1:{port}/v1", folder)
    finally:
        server.terminate()
        server.wait(60)


def _use_server(url: str, folder: Path) -> None:
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "Say yes."}]
    end = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            model = client.models.list().data[0].id
            break
        except openai.APIConnectionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
    client.chat.completions.create(model=model, messages=messages, max_tokens=4)
    print(f"served: {model} answered a chat completion")
    row = {"messages": [*messages, {"role": "assistant", "content": "yes"}]}
    (folder / "train.jsonl").write_text(f"{json.dumps(row)}\n" * 10)
    with (folder / "train.jsonl").open("rb") as stream:
        file = client.files.create(file=stream, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=model, training_file=file.id, hyperparameters={"n_epochs": 1, "batch_size": 5}
    )
    end = time.monotonic() + JOB_SECONDS
    while job.status not in ("succeeded", "failed", "cancelled") and time.monotonic() < end:
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != "succeeded":
        raise SystemExit(f"the fine-tuning job is {job.status}: {job.error}")
    client.chat.completions.create(model=job.fine_tuned_model, messages=messages, max_tokens=4)
    print(f"tuned and served: {job.fine_tuned_model}")


def _program() -> Path:
    return Path(sys.executable).with_name("tuneoff")


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TUNEOFF_API_KEYS")}


def _tuneoff(*arguments: str | Path) -> None:
    done = subprocess.run(
        [_program(), *arguments], env=_environment(), capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        raise SystemExit(f"tuneoff {arguments[0]}: exit code {done.returncode}")


def try_out() -> None:
    """Does the small run; called with the environment's own Python."""
    from importlib.metadata import version

    versions = {name: version(name) for name in NOTED}
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    commit = _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")
    with tempfile.TemporaryDirectory() as folder:
        run_bakeoffs(Path(folder))
        run_server(Path(folder))
    note = {
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "python": sys.version.split()[0],
        "versions": versions,
    }
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    RECORD.write_text(json.dumps({**record, "test-lowest": note}, indent=2) + "\n")
    print(f"passed; noted in {RECORD.relative_to(ROOT)}")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main() -> None:
    """Carries out `write`, `run` (everything) or `try` (without installing)."""
    step = sys.argv[1] if len(sys.argv) == 2 else ""
    if step == "try":
        try_out()
        return
    if step not in ("write", "run"):
        raise SystemExit("usage: lowest.py write|run|try")
    CONSTRAINTS.write_text(floors())
    if step == "run":
        install()
        python = ENVIRONMENT / "bin" / "python"
        sys.exit(subprocess.run([python, __file__, "try"]).returncode)


if __name__ == "__main__":
    main()
