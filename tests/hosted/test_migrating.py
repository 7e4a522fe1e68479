"""`tuneoff migrate` goes on where it was cut, and pays for no answer twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from world import KEY, Trainer, questions, tune, tuneoff_process, write_examples

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")
CHAT = "/v1/chat/completions"
VALIDATION = 4


@pytest.fixture
def model(fake: Trainer, tmp_path: Path) -> str:
    """The name of a model that was tuned."""
    train, validation = tmp_path / "train.jsonl", tmp_path / "validation.jsonl"
    write_examples(train, questions(12))
    write_examples(validation, questions(VALIDATION, 100))
    return tune(fake, train, validation)


def counted(fake: Trainer) -> tuple[int, int, int]:
    """Files that were fetched, answers, jobs."""
    log = fake.saw()["log"]
    fetched = sum(m == "GET" and p.endswith("/content") for m, p in log)
    return fetched, fake.completions(), fake.creates()


def test_killed_it_goes_on(fake: Trainer, model: str, tmp_path: Path, cli: Any) -> None:
    """Once while it asks, once while it fetches; the files and answers that are there stay."""
    fetched, answers, jobs = counted(fake)
    command = ("migrate", model, "--out", str(tmp_path / "saved"), "--base-url", fake.url)
    for path, nth, method in (("/v1/files/[^/]+/content", 2, "GET"), (CHAT, 2, "POST")):
        child = tuneoff_process(tmp_path, "--held", "--bare", *command, env={"OPENAI_API_KEY": KEY})
        fake.set(kill={"pid": child.pid, "method": method, "path": path, "nth": nth,
                       "when": "answered"})  # fmt: skip
        child.communicate("go\n", timeout=120)
        assert child.returncode == -signal.SIGKILL
    fake.set(kill=None)
    code, out, err = cli(*command, "--json")
    assert code == 0, err
    now = counted(fake)
    # Both files and the curves; the second file came when nobody was there any more.
    assert now[0] - fetched in (3, 4)
    assert VALIDATION <= now[1] - answers <= 2 * VALIDATION
    assert now[2] == jobs
    kept = [
        json.loads(line) for line in (tmp_path / "saved/answers.jsonl").read_text().splitlines()
    ]
    assert (
        len({row["id"] for row in kept}) == len(kept) == json.loads(out)["answered"] == VALIDATION
    )
    code, _, err = cli(*command)
    assert code == 0, err
    assert counted(fake) == now
    assert "bakeoff.yaml is there already, and stays as it is" in err


def test_without_a_validation_file_it_wants_examples_it_has_not_seen(
    fake: Trainer, tmp_path: Path, cli: Any
) -> None:
    write_examples(tmp_path / "train.jsonl", questions(12))
    write_examples(tmp_path / "unseen.jsonl", questions(5, 50))
    model = tune(fake, tmp_path / "train.jsonl", None)
    command = ("migrate", model, "--out", tmp_path / "saved", "--base-url", fake.url)
    code, _, err = cli(*command)
    assert code == 2
    assert "--test" in err
    assert fake.completions() == 0
    code, out, err = cli(*command, "--test", tmp_path / "unseen.jsonl", "--json")
    assert code == 0, err
    assert json.loads(out)["answered"] == fake.completions() == 5
    assert (tmp_path / "saved" / "train.jsonl").read_bytes() == (
        tmp_path / "train.jsonl"
    ).read_bytes()


def test_a_model_that_is_not_there_is_named(
    fake: Trainer, model: str, tmp_path: Path, cli: Any
) -> None:
    code, _, err = cli("migrate", model + "x", "--out", tmp_path / "saved", "--base-url", fake.url)
    assert code == 2
    assert f"did you mean {model}?" in err
    assert not (tmp_path / "saved").exists()


def test_a_refused_try_blocks_nothing_and_another_capture_is_refused(
    fake: Trainer, model: str, tmp_path: Path, cli: Any
) -> None:
    saved = tmp_path / "saved"
    command = ("migrate", model, "--out", str(saved), "--base-url", fake.url)
    seen, unseen = tmp_path / "seen.jsonl", tmp_path / "unseen.jsonl"
    write_examples(seen, questions(2))  # it was tuned on them
    write_examples(unseen, questions(3, 900))
    code, _, err = cli(*command, "--test", seen)
    assert code == 2, err
    answers = fake.completions()
    code, out, err = cli(*command, "--test", unseen, "--json")
    assert code == 0, err
    assert json.loads(out)["answered"] == fake.completions() - answers == 3
    code, _, err = cli(*command, "--test", unseen, "--limit", 2)
    assert code == 2
    assert "another capture was begun here (changed: limit)" in err
    write_examples(unseen, questions(4, 900))
    code, _, err = cli(*command, "--test", unseen)
    assert (code, f"it was changed since {model} answered it" in err) == (2, True)
    assert fake.completions() - answers == 3
