"""`tuneoff migrate --all` of three models, killed at ten points one after another, saves everything
once. Real processes and real SIGKILLs against the fake trainer, which lives on."""

from __future__ import annotations

import json
import random
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from world import KEY, Trainer, questions, trainer, tune, tuneoff_process, write_examples

pytestmark = pytest.mark.slow
pytest.importorskip("openai")
SEED, VALIDATION, MODELS = 20261130, 6, 3
# The training file of all, and of each its validation file and its curves.
FILES = 1 + 2 * MODELS
CHAT, CONTENT, JOB = "/v1/chat/completions", "/v1/files/[^/]+/content", "/v1/fine_tuning/jobs/[^/]+"
WHEN = ("before", "during", "handled", "answered")
Kill = tuple[str, str, int, str]


def points() -> list[Kill]:
    """Four while files are fetched, six while answers are asked: the same ones each time."""
    rng = random.Random(SEED)
    paths = [(CONTENT, 2), (JOB, 1), (f"{JOB}/checkpoints", 1), (CONTENT, 2)]
    found = [("GET", path, rng.randint(1, most), rng.choice(WHEN)) for path, most in paths]
    # One answer after another is asked, so each process brings up to two.
    return found + [("POST", CHAT, rng.randint(1, 3), WHEN[n % 4]) for n in range(6)]


def tuned(fake: Trainer, folder: Path) -> list[str]:
    write_examples(folder / "train.jsonl", questions(12))
    models = []
    for number in range(MODELS):
        held_out = folder / f"held-out-{number}.jsonl"
        write_examples(held_out, questions(VALIDATION, 100 * (number + 1)))
        models.append(tune(fake, folder / "train.jsonl", held_out))
    return models


def test_killed_at_ten_points_everything_is_saved_once(tmp_path: Path) -> None:
    kills = points()
    assert len(kills) == 10
    out = tmp_path / "exits"
    with trainer(tmp_path / "fake") as fake, ExitStack() as stack:
        models = tuned(fake, tmp_path)
        command = ("migrate", "--all", "--out", str(out), "--base-url", fake.url)
        children = []
        for _ in (*kills, None):
            child = tuneoff_process(tmp_path, "--held", "--bare", *command,
                                    env={"OPENAI_API_KEY": KEY})  # fmt: skip
            stack.callback(child.kill)
            children.append(child)
        for child, kill in zip(children, [*kills, None], strict=True):
            told = None
            if kill is not None:
                method, path, nth, when = kill
                told = {"pid": child.pid, "method": method, "path": path, "nth": nth, "when": when}
            fake.set(kill=told)
            said, errors = child.communicate("go\n", timeout=120)
            wanted = 0 if kill is None else -signal.SIGKILL
            assert child.returncode == wanted, (kill, said, errors)
        saw = fake.saw()
    assert len(saw["jobs"]) == MODELS
    folders = {}
    for file in out.glob("*/saved.json"):
        notes = json.loads(file.read_text())
        folders[notes["model"]] = file.parent
        assert notes["missing"] == {}
        assert {"train.jsonl", "test.jsonl", "job.json", "results.csv", "checkpoints.json"} == set(
            notes["files"]
        )
        assert notes["answers"]["answered"] == VALIDATION
        kept = (file.parent / "answers.jsonl").read_text()
        rows = [json.loads(line) for line in kept.splitlines()]
        assert len({row["id"] for row in rows}) == len(rows) == VALIDATION
        assert all(row["prediction"].startswith("answer ") for row in rows)
        assert (file.parent / "bakeoff.yaml").exists()
    assert sorted(folders) == sorted(models)
    assert not list(out.rglob("*.part"))
    # Only what was under way at a kill is asked again, and only where its answer was made before.
    again = sum(path == CHAT and when != "before" for _, path, _, when in kills)
    asked = saw["asked"].values()
    assert len(asked) == MODELS * VALIDATION
    assert sum(asked) <= MODELS * VALIDATION + again
    fetched = sum(method == "GET" and path.endswith("/content") for method, path in saw["log"])
    again = sum(path == CONTENT and when != "before" for _, path, _, when in kills)
    assert FILES <= fetched <= FILES + again
