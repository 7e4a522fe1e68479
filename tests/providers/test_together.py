"""Together's whole flow, through its real SDK, against a server of its shape in another process:
one upload a file, one job, losses, answers, what was billed; when calls are lost, when the client
is killed, when a job fails, when it would cost too much, when the tuned model is not deployed."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("together", reason="the SDK of Together is not installed (extra together)")

import tuneoff
from tuneoff.contenders import idempotency, job_polling
from tuneoff.costs.ledger import ANSWERING, TRAINING, Ledger
from tuneoff.errors import BudgetError, ConfigError
from tuneoff.progress import SilentProgress
from tuneoff.providers import together
from tuneoff.providers.base import connect
from tuneoff.providers.retries import retry
from tuneoff.storage.run_dir import RunDir

SERVER = Path(__file__).with_name("together_server.py")
KEY = "tgp_v1_a-key-that-nobody-may-see"
TRAIN, VALIDATION, TEST = range(20, 40), range(40, 44), range(6)
PRICE = "price: {training_usd_per_million_tokens: 0.48, input_usd_per_million_tokens: 0.1, \
output_usd_per_million_tokens: 0.1}"


class Server:
    """The server, and what it says of what it saw."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def ask(self, what: str, **given: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", f"/test/{what}", json.dumps(given))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def state(self) -> Any:
        return self.ask("state")

    def count(self, request: str) -> int:
        return sum(each == request for each in self.state()["requests"])


@pytest.fixture
def server() -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setattr(job_polling, "MIN_POLL_SECONDS", 0.02)
    monkeypatch.setattr(job_polling, "MAX_POLL_SECONDS", 0.05)
    monkeypatch.setattr(idempotency, "LISTING_POLL_SECONDS", 0.05)
    monkeypatch.setattr(idempotency, "LISTING_LAG_SECONDS", 1.0)
    monkeypatch.setattr(idempotency, "UPLOAD_LAG_SECONDS", 0.2)
    monkeypatch.setattr(idempotency, "MIN_POLL_SECONDS", 0.02)


def lines(numbers: range) -> str:
    return "".join(
        json.dumps({"messages": [
            {"role": "user", "content": f"Which number follows {number}?"},
            {"role": "assistant", "content": f"The number {number + 1} does."},
        ]}) + "\n"
        for number in numbers
    )  # fmt: skip


def written(folder: Path, server: Server, more: str = "", top: str = "") -> Path:
    """A bake-off file with one contender of the server."""
    for name, numbers in {"train": TRAIN, "validation": VALIDATION, "test": TEST}.items():
        (folder / f"{name}.jsonl").write_text(lines(numbers))
    file = folder / "b.yaml"
    file.write_text(
        "name: numbers\n"
        "task: {id: chat, train: train.jsonl, validation: validation.jsonl, test: test.jsonl}\n"
        f"{top}"
        "contenders:\n"
        "  - {name: qwen, id: hosted, provider: together, model: Qwen/Qwen3-8B, epochs: 2,\n"
        f"     base_url: '{server.url}'{', ' + more if more else ''}}}\n"
    )
    return file


class Says(SilentProgress):
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def stage(self, title: str, total: int) -> Any:
        return lambda done, note="": self.said.append(f"{title} {done}/{total} {note}")


def run(file: Path, says: Says | None = None, **options: Any) -> Any:
    return tuneoff.run(
        tuneoff.load(file), file.parent / "run", yes=True, progress=says or Says(), **options
    )


def deployed(server: Server, name: str = "acme/numbers", checkpoint: str = "") -> None:
    """Deploys the one tuned model."""
    (job,) = server.state()["jobs"]
    server.ask("deploy", name=name, model=job["model_output_name"] + checkpoint)


def test_the_whole_flow(tmp_path: Path, server: Server) -> None:
    file, says = written(tmp_path, server, f"deployment: acme/numbers, {PRICE}"), Says()
    first = run(file, says)
    # Tuned, and not deployed: one sentence says what is needed, and nothing is counted wrong.
    error = first.contenders[0].error
    assert error is not None
    for part in ("dedicated endpoint", "billed by the minute", "deployment:", "acme/numbers"):
        assert part in error
    deployed(server)
    result = run(file, says).contenders[0]
    assert result.error is None
    assert result.scores["exact_match"].value == 1
    assert result.training.verdict == "overfitting"
    assert [row.validation for row in result.loss] == [None, 1.5, None, 1.0, None, 0.5, None, 0.7]
    assert result.loss[-1].examples_seen == 2 * len(TRAIN)
    state, folder = server.state(), RunDir(tmp_path / "run")
    (job,) = state["jobs"]
    assert len(state["files"]) == 2
    assert server.count("POST /v1/fine-tunes") == 1
    assert state["answers"] == len(TEST)
    asked = {name: job[name] for name in ("n_epochs", "n_evals", "batch_size", "suffix")}
    assert asked == {"n_epochs": 2, "n_evals": 4, "batch_size": "max", "suffix": job["suffix"]}
    assert job["training_method"] == {"method": "sft", "train_on_inputs": False}
    assert folder.contender("qwen").job()["intent"][:8] in job["suffix"]
    assert result.training.tokens_billed == job["token_count"]
    ledger = Ledger(folder.events)
    assert float(ledger.spent("qwen", TRAINING).known) == job["total_price"] / 1e9
    assert ledger.spent("qwen", ANSWERING).known > 0
    assert ledger.spent().uncertain == 0
    told = "\n".join(says.said)
    assert f"for {job['token_count']:,} tokens of training" in told
    assert "warming_up (a state that is not known here; waiting on)" in told
    assert told.count("job created with") == 1
    assert "qwen: training 8/8" in told
    # The server sent the key back in an event, and in nothing else that was kept.
    kept = [path.read_bytes() for path in folder.path.rglob("*") if path.is_file()]
    assert KEY not in told
    assert not any(KEY.encode() in content for content in kept)
    with closing(connect("together", server.url)) as provider:  # what `migrate` saves of it
        (model,) = provider.tuned_models()
        facts = provider.job_facts(str(model.job))
        assert (provider.has_jobs(), facts["id"], facts["n_epochs"]) == (True, job["id"], 2)
        assert KEY not in str(facts)


@pytest.mark.parametrize("how", ["cut", "before", 500, 429])
def test_a_lost_create_is_found_again(tmp_path: Path, server: Server, how: Any) -> None:
    faults = [
        {"request": "POST /v1/files", "how": how},
        {"request": "PUT /storage/file-.", "how": how},
        {"request": "POST /v1/files/.*/preprocess", "how": how},
        {"request": "POST /v1/fine-tunes", "how": how},
        {"request": "GET /v1/fine-tunes/ft-.*", "how": how},
        {"request": "GET /v1/fine-tunes/ft-.*/metrics", "how": how},
    ]
    server.ask("set", faults=faults)
    file = written(tmp_path, server, "deployment: acme/numbers")
    run(file)
    state = server.state()
    assert len(state["jobs"]) == 1
    sent = [each for each in state["files"] if each["bytes"]]
    assert len({each["checksum"] for each in sent}) == len(sent) == 2
    deployed(server)
    server.ask("set", faults=[{"request": "POST /v1/chat/completions", "how": how}] * 3)
    result = run(file).contenders[0]
    assert (result.error, result.scores["exact_match"].value) == (None, 1)
    rows = (tmp_path / "run/contenders/qwen/predictions.jsonl").read_text().splitlines()
    assert len(rows) == len(TEST)
    assert len(server.state()["jobs"]) == 1


def test_a_killed_client_goes_on(tmp_path: Path, server: Server) -> None:
    """Killed while the job runs, and once more before the create's answer is written down."""
    server.ask("set", held="running")
    file = written(tmp_path, server, "deployment: acme/numbers")
    command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "run", str(file),
               "--run-dir", str(tmp_path / "run"), "--yes"]  # fmt: skip
    client = subprocess.Popen(
        command, env={**os.environ, "TOGETHER_API_KEY": KEY}, stderr=subprocess.DEVNULL
    )
    while client.poll() is None:
        if any(each.startswith("GET /v1/fine-tunes/ft-") for each in server.state()["requests"]):
            break
        time.sleep(0.1)
    client.kill()
    client.wait(30)
    folder = RunDir(tmp_path / "run").contender("qwen")
    facts = folder.job()
    assert facts["job_id"] is not None
    # As if it had been killed one step earlier: the job is there, and nobody wrote down which.
    before = {"job_id": None, "doing": "create job", "look_until": time.time() + 5}
    folder.write_job(facts | before)
    server.ask("set", held=None)
    run(file)
    deployed(server)
    assert run(file).contenders[0].scores["exact_match"].value == 1
    state = server.state()
    assert (len(state["jobs"]), len(state["files"])) == (1, 2)
    assert server.count("POST /v1/fine-tunes") == 1
    assert state["answers"] == len(TEST)


def test_a_failing_job_says_why_and_costs_nothing(tmp_path: Path, server: Server) -> None:
    server.ask("set", fails=True)
    result = run(written(tmp_path, server, PRICE)).contenders[0]
    assert result.error is not None
    assert "failed (the loss is not a number)" in result.error
    spent = Ledger(tmp_path / "run" / "events.jsonl").spent()
    assert (spent.known, spent.uncertain) == (0, 0)


def test_the_budget_holds_against_the_provider_s_own_estimate(
    tmp_path: Path, server: Server
) -> None:
    """More than was thought is refused before the job is created; with more money the same run
    goes on, and pays once."""
    server.ask("set", estimate=7.5)
    file = written(tmp_path, server, f"deployment: acme/numbers, {PRICE}", "budget_usd: 5\n")
    with pytest.raises(BudgetError, match=r"\$7\.50.*budget_usd 5"):
        run(file)
    assert server.state()["jobs"] == []
    assert Ledger(tmp_path / "run/events.jsonl").spent().uncertain == 0
    server.ask("set", estimate=None)
    run(file)
    (job,) = server.state()["jobs"]
    known = Ledger(tmp_path / "run/events.jsonl").spent("qwen", TRAINING).known
    assert float(known) == job["total_price"] / 1e9


def test_the_best_checkpoint_answers(tmp_path: Path, server: Server) -> None:
    """By validation loss the third of four; its name is what has to be deployed."""
    file = written(tmp_path, server, "checkpoint: best, deployment: acme/best")
    run(file)
    (job,) = server.state()["jobs"]
    assert job["n_checkpoints"] == 4
    folder = RunDir(tmp_path / "run").contender("qwen")
    settings = tuneoff.load(file).contenders[0]
    kept = {each["step"]: each["validation"] for each in folder.job()["checkpoints"]}
    assert kept == {2: 1.5, 4: 1.0, 6: 0.5, 8: 0.7}
    best = min(folder.job()["checkpoints"], key=lambda each: each["validation"])
    assert best["model"].endswith("-step-6")
    assert settings.checkpoint == "best"
    deployed(server, "acme/best", "-step-6")
    assert run(file).contenders[0].scores["exact_match"].value == 1


def test_the_deployment_may_change_and_nothing_else(tmp_path: Path, server: Server) -> None:
    run(written(tmp_path, server))
    deployed(server, "acme/other")
    result = run(written(tmp_path, server, "deployment: acme/other")).contenders[0]
    assert result.scores["exact_match"].value == 1
    with pytest.raises(tuneoff.errors.RunDirectoryError, match=r"qwen\.learning_rate"):
        run(written(tmp_path, server, "deployment: acme/other, learning_rate: 1.0e-4"))


def test_a_recorded_run_is_replayed_without_the_server(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, server, "deployment: acme/numbers, record: true")
    run(file)
    deployed(server)
    first = run(file).contenders[0]
    asked = len(server.state()["requests"])
    monkeypatch.delenv("TOGETHER_API_KEY")
    again = tuneoff.run(tuneoff.load(file), tmp_path / "again", replay=tmp_path / "run")
    assert len(server.state()["requests"]) == asked + 1
    for name in ("predictions.jsonl", "loss.jsonl"):
        kept = [
            (tmp_path / run / "contenders/qwen" / name).read_bytes() for run in ("run", "again")
        ]
        assert sorted(kept[0].splitlines()) == sorted(kept[1].splitlines())
    assert again.contenders[0].scores == first.scores
    assert KEY.encode() not in (tmp_path / "run/contenders/qwen/exchanges.jsonl").read_bytes()


def test_a_refused_request_is_a_row_with_an_error(tmp_path: Path, server: Server) -> None:
    file = written(tmp_path, server, "deployment: acme/numbers")
    run(file)
    deployed(server)
    server.ask("set", refused=["Which number follows 3?"])
    result = run(file).contenders[0]
    assert result.scores["exact_match"].value == pytest.approx(5 / 6)
    rows = [
        json.loads(line)
        for line in (tmp_path / "run/contenders/qwen/predictions.jsonl").read_text().splitlines()
    ]
    (error,) = [row["error"] for row in rows if row["error"]]
    assert "longer than the model's context" in error


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("learning_rate_multiplier: 2", r"no learning_rate_multiplier; give the rate itself"),
        ("suffix: " + "x" * 41, r"has 41 letters; together takes at most 40"),
    ],
)
def test_what_it_does_not_take_is_refused(
    tmp_path: Path, server: Server, setting: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(written(tmp_path, server, setting))
    assert server.state()["requests"] == ["POST /test/state"]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("learning_rate: 0.5", "learning_rate 0.5 is not between 1e-07 and 0.01"),
        ("batch_size: 4", "batch_size 4 is not between 8 and 96"),
        ("method: full", "can only be tuned with method: lora"),
    ],
)
def test_a_model_s_limits_are_kept(
    tmp_path: Path, server: Server, setting: str, sentence: str
) -> None:
    error = run(written(tmp_path, server, setting)).contenders[0].error
    assert error is not None
    assert sentence in error
    assert server.state()["jobs"] == []


def test_openai_refuses_what_only_together_takes(tmp_path: Path, server: Server) -> None:
    file = written(tmp_path, server, "learning_rate: 1.0e-4")
    file.write_text(file.read_text().replace("together", "openai"))
    with pytest.raises(ConfigError, match="take no learning_rate; it takes learning_rate_mult"):
        run(file)


def test_a_wrong_key_is_a_sentence_without_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp_v1_another-secret-key")
    with (
        closing(together.connect(server.url)) as provider,
        pytest.raises(tuneoff.errors.RejectedError, match=r"\[key\] is not valid") as refused,
    ):
        retry(lambda: provider.find_file("x.jsonl"))
    assert "another-secret-key" not in str(refused.value)
    monkeypatch.delenv("TOGETHER_API_KEY")
    with pytest.raises(ConfigError, match="TOGETHER_API_KEY is not set"):
        together.connect()
