"""A data directory of an earlier commit is served as it is, and what was cut in it goes on.

`fixtures/server-0.2/state` was written by `tuneoff serve` of commit 0dec59d, the last one before
the modules moved: by the bake-off of `fixtures/run-0.2` (a job that ended, one that was under way,
a batch), and by hand (a job that was cancelled after its second epoch, a batch with a request that
was refused, one that was under way). Then the server was killed (SIGKILL). The optimizer of
its last checkpoint but one is left out. `shown.json` is what that commit's server showed of it,
`answers.json` what its models answered (`margin`: how much likelier each token was than the
next, at least), `boathouse` their base.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import request, server

pytest.importorskip("fastapi")
STORED = Path(__file__).parent.parent / "fixtures" / "server-0.2"
JOBS, CHAT = "/v1/fine_tuning/jobs", "/v1/chat/completions"
SHOWN: dict[str, Any] = json.loads((STORED / "shown.json").read_text())
ANSWERS: list[dict[str, Any]] = json.loads((STORED / "answers.json").read_text())


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "place"
    return Path(shutil.copytree(STORED, folder)) / "state"


@pytest.fixture(scope="module")
def port(state: Path) -> Iterator[int]:
    with server(state, "--base", str(state.parent / "boathouse")) as (port, _):
        yield port


def get(port: int, path: str) -> Any:
    status, body = request(port, "GET", path)
    assert status == 200, body
    return body


def until(port: int, path: str, *ends: str) -> Any:
    """What is shown once it has come to an end."""
    end = time.monotonic() + 60
    while (shown := get(port, path))["status"] not in ends:
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    return shown


def still_there(then: Any, now: Any) -> Any:
    """What is shown now, without the keys that are new."""
    if isinstance(then, dict) and isinstance(now, dict):
        return {key: still_there(then[key], now[key]) for key in then if key in now}
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [still_there(*pair) for pair in zip(then, now, strict=True)]
    return now


def only(kind: str, status: str) -> list[str]:
    """The paths of all that is of a kind and in a state."""
    return [
        path for path, each in SHOWN.items()
        if each["object"] == kind and each.get("status") == status
    ]  # fmt: skip


def test_shows_what_it_showed(port: int) -> None:
    assert {path.split("/")[2] for path in SHOWN} == {"files", "fine_tuning", "models", "batches"}
    for path, then in SHOWN.items():
        assert still_there(then, get(port, path)) == then, path


def test_lists_all_of_it(port: int, state: Path) -> None:
    for kind in ("files", "models", "batches"):
        listed = {each["id"] for each in get(port, f"/v1/{kind}?limit=100")["data"]}
        assert {path.split("/")[3] for path in SHOWN if path.startswith(f"/v1/{kind}/")} <= listed
    assert len(get(port, JOBS)["data"]) == 3
    for path, file in SHOWN.items():
        if file["object"] == "file":
            (stored,) = (STORED / "state" / "files").glob(f"{file['id']}.*")
            content = get(port, f"{path}/content")
            one_line = not isinstance(content, bytes)  # which is JSON, and was read as such
            text = stored.read_bytes()
            assert content == (json.loads(text) if one_line else text)


@pytest.mark.parametrize("stored", ANSWERS, ids=lambda stored: stored["request"]["model"])
def test_answers_to_the_letter(port: int, stored: dict[str, Any]) -> None:
    status, answer = request(port, "POST", CHAT, stored["request"])
    assert status == 200, answer
    assert answer["choices"][0]["message"]["content"] == stored["answer"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert answer["usage"][name] == stored["usage"][name]


def test_a_cut_job_goes_on(port: int) -> None:
    known = {path.split("/")[-1] for path in (*only("fine_tuning.job", "succeeded"),
                                              *only("fine_tuning.job", "cancelled"))}  # fmt: skip
    (cut,) = (each["id"] for each in get(port, JOBS)["data"] if each["id"] not in known)
    stored = STORED / "state" / "jobs" / cut
    begun = [json.loads(line) for line in (stored / "loss.jsonl").read_text().splitlines()]
    last = max(int(each.name.split("-")[1]) for each in (stored / "checkpoints").iterdir())
    assert [row["step"] for row in begun][-1] == last == 48
    job = until(port, f"{JOBS}/{cut}", "succeeded", "failed")
    assert job["status"] == "succeeded", job["error"]
    events = get(port, f"{JOBS}/{cut}/events?limit=100")["data"]
    messages = [each["message"] for each in events]
    assert messages.count("Fine-tuning job started") == 1
    assert sum(message.startswith("Fine-tuning job goes on") for message in messages) == 1
    (metrics,) = job["result_files"]
    rows = request(port, "GET", f"/v1/files/{metrics}/content")[1].decode().splitlines()[1:]
    for row, (step, train, *_) in zip(begun, (row.split(",") for row in rows), strict=False):
        assert (row["step"], row["train"]) == (int(step), float(train))
    ask = {**ANSWERS[0]["request"], "model": job["fine_tuned_model"]}
    assert request(port, "POST", CHAT, ask)[0] == 200


def test_a_cut_batch_goes_on(port: int) -> None:
    """A day after it was created it has expired; what was answered is there in any case."""
    known = {path.split("/")[-1] for path in SHOWN}
    (cut,) = (e["id"] for e in get(port, "/v1/batches")["data"] if e["id"] not in known)
    stored = (STORED / "state" / "batches" / cut / "output.jsonl").read_text()
    begun = [line for line in stored.splitlines(keepends=True) if line.endswith("\n")]
    batch = until(port, f"/v1/batches/{cut}", "completed", "expired", "failed")
    assert batch["status"] in ("completed", "expired")
    text = request(port, "GET", f"/v1/files/{batch['output_file_id']}/content")[1].decode()
    assert text.startswith("".join(begun))
    counts = batch["request_counts"]
    assert len(begun) <= counts["completed"] == len(text.splitlines()) <= counts["total"] == 48
