"""What the tests of hosted contenders share: the fake trainer in a process of its own, bake-off
files over generated examples, and `tuneoff run`, in this process or in one that can be killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import days
import yaml

import tuneoff
from tuneoff.progress import SilentProgress
from tuneoff.results import Results

HERE = Path(__file__).parent
START_SECONDS = 60
KEY = "sk-test-4f1d9a77c3be52e08a6d"
PRICE = {
    "training_usd_per_million_tokens": 3.0,
    "input_usd_per_million_tokens": 0.3,
    "output_usd_per_million_tokens": 1.2,
}


class Trainer:
    """The fake trainer, told what to do and asked what it saw."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def set(self, **behaviour: Any) -> None:
        self._control("POST", json.dumps(behaviour))

    def saw(self) -> dict[str, Any]:
        return self._control("GET")

    def calls(self, method: str, path: str) -> int:
        """How many requests of this kind came."""
        logged = ((m, p.split("?")[0]) for m, p in self.saw()["log"])
        return sum(each == (method, path) for each in logged)

    def creates(self) -> int:
        return self.calls("POST", "/v1/fine_tuning/jobs")

    def completions(self) -> int:
        return self.calls("POST", "/v1/chat/completions")

    def billed_usd(self, price: Mapping[str, float] = PRICE) -> float:
        billed = self.saw()["billed"]
        cached = price.get("cached_input_usd_per_million_tokens")
        usd = billed["training"] * price["training_usd_per_million_tokens"]
        usd += billed["output"] * price["output_usd_per_million_tokens"]
        usd += billed["input"] * price["input_usd_per_million_tokens"]
        for kind in ("input", "output"):
            ordinary = price[f"{kind}_usd_per_million_tokens"]
            batch = price.get(f"batch_{kind}_usd_per_million_tokens", ordinary)
            usd += billed[f"batch_{kind}"] * batch
        if cached is not None:
            usd -= billed["cached"] * (price["input_usd_per_million_tokens"] - cached)
        # Writing costs more than a prompt, in a batch by the same part.
        ordinary = price["input_usd_per_million_tokens"]
        more = price.get("cache_write_usd_per_million_tokens", ordinary) / ordinary - 1
        batch = price.get("batch_input_usd_per_million_tokens", ordinary)
        usd += more * (billed["written"] * ordinary + billed["batch_written"] * batch)
        return float(usd / 1e6)

    def _control(self, method: str, body: str | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, "/_control", body)
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found


@contextmanager
def trainer(folder: Path) -> Iterator[Trainer]:
    """A fake trainer of its own process."""
    folder.mkdir(parents=True, exist_ok=True)
    port_file = folder / "port"
    command = [sys.executable, str(HERE / "fake_trainer.py"), str(port_file)]
    with subprocess.Popen(command) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while not port_file.exists():
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.01)
            yield Trainer(int(port_file.read_text()))
        finally:
            process.kill()


class Heard(SilentProgress):
    """Keeps the lines that a run says; a question gets `answer`."""

    def __init__(self, answer: bool = False) -> None:
        self.lines: list[str] = []
        self.answer = answer

    def say(self, line: str) -> None:
        self.lines.append(line)

    def ask(self, question: str) -> bool:
        self.lines.append(question)
        return self.answer

    def text(self) -> str:
        return "\n".join(self.lines)


def hosted(url: str, name: str = "tuned", **settings: Any) -> dict[str, Any]:
    """A hosted contender at a server."""
    given = {"name": name, "id": "hosted", "model": "fake-1", "base_url": url, **settings}
    return {key: value for key, value in given.items() if value is not None}


def prompted(url: str, name: str = "asked", **settings: Any) -> dict[str, Any]:
    return {"name": name, "id": "prompted", "model": "fake-1", "base_url": url, **settings}


def tune(fake: Trainer, train: Path, validation: Path | None, base: str = "fake-1") -> str:
    """Returns a model that a job tuned on files; the same file is uploaded once."""
    import openai

    with openai.OpenAI(base_url=fake.url, api_key=KEY, max_retries=0) as client:
        sent = {file.filename: file.id for file in client.files.list()}
        ids = []
        for path in (train, validation):
            if path is not None and path.name not in sent:
                content = (path.name, path.read_bytes())
                sent[path.name] = client.files.create(file=content, purpose="fine-tune").id
            ids.append(sent[path.name] if path is not None else openai.NOT_GIVEN)
        job = client.fine_tuning.jobs.create(
            model=base, training_file=str(ids[0]), validation_file=ids[1]
        )
        while job.status != "succeeded":
            job = client.fine_tuning.jobs.retrieve(job.id)
    return str(job.fine_tuned_model)


def questions(count: int, first: int = 0) -> list[str]:
    return [f"Question number {n}: which answer is it?" for n in range(first, first + count)]


def write_examples(path: Path, asked: list[str]) -> None:
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": f"A {q}"}]}
        for q in asked
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def bakeoff_file(
    folder: Path,
    *contenders: Mapping[str, Any],
    test: list[str] | int = 8,
    train: int = 12,
    **settings: Any,
) -> Path:
    """A bake-off file over questions, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    write_examples(folder / "train.jsonl", questions(train))
    write_examples(folder / "validation.jsonl", questions(4, 100))
    asked = questions(test, 200) if isinstance(test, int) else test
    write_examples(folder / "test.jsonl", asked)
    task = {
        "id": "chat", "train": "train.jsonl", "validation": "validation.jsonl",
        "test": "test.jsonl", "max_new_tokens": 16,
    }  # fmt: skip
    file = folder / "bakeoff.yaml"
    written = {"name": "paid", "task": task, "contenders": [dict(c) for c in contenders]}
    file.write_text(yaml.safe_dump(written | settings), encoding="utf-8")
    return file


def run(file: Path, progress: SilentProgress | None = None, **options: Any) -> Results:
    """Carries a file out in this process; everything goes below the file's folder."""
    folder = file.parent / "run"
    return tuneoff.run(tuneoff.load(file), folder, progress=progress or SilentProgress(), **options)


def start(
    file: Path, *arguments: str, held: bool = False, bare: bool = False, elsewhere: bool = False,
    env: Mapping[str, str] | None = None, **options: Any,
) -> subprocess.Popen[str]:  # fmt: skip
    """`tuneoff run` as a process with short pauses (`child.py`); `held`: it begins when a line
    comes on its stdin; `bare`: no report is written; `elsewhere`: no provider is here."""
    flags = ["--held"] * held + ["--bare"] * bare + ["--elsewhere"] * elsewhere
    command = [*flags, "run", file.name, "--run-dir", "run", *arguments]
    return tuneoff_process(file.parent, *command, env=env, **options)


def tuneoff_process(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """`tuneoff` as a process with short pauses in a folder; `child.py`'s flags come first."""
    command = [sys.executable, str(HERE / "child.py"), *arguments]
    environment = {
        k: v
        for k, v in os.environ.items()
        if k == days.VARIABLE or not k.startswith(("OPENAI_", "TUNEOFF_"))
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        command, cwd=folder, env=environment | dict(env or {}), text=True,
        # A suite that runs in the background ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **(pipes | options),
    )  # fmt: skip


def finished(file: Path, *arguments: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `tuneoff run` as a process."""
    child = start(file, *arguments, **options)
    out, err = child.communicate(timeout=180)
    return child.returncode, out, err


def rows(file: Path, name: str = "tuned", what: str = "predictions") -> list[dict[str, Any]]:
    """A contender's rows of a JSONL file."""
    path = file.parent / "run" / "contenders" / name / f"{what}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def job_of(file: Path, name: str = "tuned") -> dict[str, Any]:
    path = file.parent / "run" / "contenders" / name / "job.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found
