"""A hosted contender through the official SDK against a server in a process of its own: each job
is created once, whatever goes wrong on the way, and what the server tells is what is kept."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import (
    PRICE,
    Heard,
    Trainer,
    bakeoff_file,
    hosted,
    job_of,
    prompted,
    questions,
    rows,
    start,
)
from world import run as carry_out

from tuneoff.costs.ledger import Ledger
from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.providers.base import normalize_job_status
from tuneoff.results import Results

pytest.importorskip("openai")
JOBS, CHAT = "/v1/fine_tuning/jobs", "/v1/chat/completions"


def fault(method: str, path: str, *kinds: str, times: int = 1) -> dict[str, Any]:
    return {"method": method, "path": path, "kinds": kinds, "times": times}


def error_of(results: Results) -> str | None:
    return results.contenders[0].error


def done_once(file: Path, fake: Trainer, uploads: int = 2, tests: int = 8) -> None:
    """One upload a file, one job, one row per example."""
    saw = fake.saw()
    sent = {name: n for name, n in saw["uploads"].items() if name != "step_metrics.csv"}
    assert list(sent.values()) == [1] * uploads
    assert len(saw["jobs"]) == 1
    ids = [row["id"] for row in rows(file)]
    assert len(ids) == len(set(ids)) == tests


def test_the_whole_flow(fake: Trainer, tmp_path: Path) -> None:
    """Files, job, metrics, checkpoints and answers; the same command again asks for nothing."""
    fake.set(results="base64")
    file = bakeoff_file(tmp_path / "b", hosted(fake.url, epochs=2, seed=5, suffix="mine"))
    heard = Heard()
    assert error_of(carry_out(file, heard)) is None
    done_once(file, fake)
    saw = fake.saw()
    asked = saw["jobs"][0]["asked"]
    assert asked["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2}
    assert (asked["seed"], asked["suffix"]) == (5, "mine")
    assert asked["metadata"]["tuneoff_run"] == "paid"
    assert asked["metadata"]["tuneoff_contender"] == "tuned"
    names = {each["id"]: each["filename"] for each in saw["files"]}
    uploaded = file.parent / "run" / "contenders" / "tuned" / "upload"
    assert {names[asked["training_file"]], names[asked["validation_file"]]} == {
        path.name for path in uploaded.iterdir()
    }
    body = saw["chat_bodies"][0]
    assert (body["temperature"], body["max_tokens"]) == (0, 16)
    assert body["model"] == job_of(file)["tuned_model"] == "ft:fake-1:org:mine:0000"
    assert job_of(file)["trained_tokens"] == saw["billed"]["training"]
    losses = rows(file, what="loss")
    assert [row["step"] for row in losses] == list(range(1, 11))
    assert losses[5] == {"step": 6, "examples_seen": 24, "train": 0.3333, "validation": 0.9}
    assert losses[4]["validation"] is None
    for status in ("validating_files", "queued", "running"):
        assert sum(f"is {status}" in line for line in heard.lines) == 1
    assert carry_out(file).contenders[0].error is None
    assert fake.saw()["log"] == saw["log"]


def test_losses_are_the_same_plain_and_as_base64(fake: Trainer, tmp_path: Path) -> None:
    kept = []
    for kind in ("plain", "base64"):
        fake.set(results=kind)
        file = bakeoff_file(tmp_path / kind, hosted(fake.url))
        carry_out(file)
        kept.append(rows(file, what="loss"))
    assert kept[0] == kept[1]
    assert len(kept[0]) == 10


@pytest.mark.parametrize("results", ["garbage", "none"])
def test_without_metrics_and_checkpoints_there_is_a_model(
    fake: Trainer, tmp_path: Path, results: str
) -> None:
    fake.set(results=results, checkpoints=False)
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url)), Heard()
    assert error_of(carry_out(file, heard)) is None
    assert "checkpoints of job" in heard.text()
    assert rows(file, what="loss") == []
    done_once(file, fake)


def test_the_best_checkpoint_answers(fake: Trainer, tmp_path: Path) -> None:
    file = bakeoff_file(tmp_path / "b", hosted(fake.url, checkpoint="best"))
    carry_out(file)
    assert [c["step"] for c in job_of(file)["checkpoints"]] == [4, 8, 10]
    asked = {body["model"] for body in fake.saw()["chat_bodies"]}
    assert asked == {f"{job_of(file)['tuned_model']}:ckpt-step-8"}


def test_a_job_that_pauses_or_is_in_an_unknown_state_is_waited_for(
    fake: Trainer, tmp_path: Path
) -> None:
    fake.set(states=["queued", "paused", "pondering", "running", "succeeded"])
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url)), Heard()
    assert error_of(carry_out(file, heard)) is None
    assert "is paused" in heard.text()
    assert "is pondering (a state that is not known here; waiting on)" in heard.text()


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("state", "end", "said"),
    [
        ("SUCCEEDED", "succeeded", None),
        ("done", "succeeded", None),
        ("expired", "failed", "failed (too short)"),
        ("running", "failed", "failed (too short)"),
        ("cancelling", "cancelled", "was cancelled"),
    ],
)
def test_a_job_that_shows_when_it_finished_is_at_its_end(
    fake: Trainer, tmp_path: Path, state: str, end: str, said: str | None
) -> None:
    """Whatever its state is called: the tuned model tells whether it succeeded."""
    fake.set(states=["queued", state], ends={state: end}, job_error="too short")
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    heard = Heard()
    found = error_of(carry_out(file, heard))
    assert found is None if said is None else said in str(found)
    assert "not known here" not in heard.text()
    assert job_of(file)["status"] == end
    assert fake.creates() == 1


@pytest.mark.parametrize(
    ("status", "model", "has_finished", "expected"),
    [
        ("succeeded", None, True, "failed"),
        ("succeeded", None, False, "succeeded"),
        ("Running", None, False, "running"),
        ("error", None, False, "error"),  # it may be tried again there: waited on
        ("completed", "ft:x", False, "completed"),
        ("completed", "ft:x", True, "succeeded"),
        ("error", None, True, "failed"),
        ("Failed", None, True, "failed"),
        ("canceled", None, True, "cancelled"),
        ("failed", "ft:x", True, "failed"),
        ("CANCELED", None, False, "cancelled"),
        ("cancelling", None, False, "cancelling"),
    ],
)
def test_ends(status: str, model: str | None, has_finished: bool, expected: str) -> None:
    assert normalize_job_status(status, model, has_finished) == expected


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("batch", [False, True])
def test_a_file_is_waited_for_until_it_is_processed(
    fake: Trainer, tmp_path: Path, batch: bool
) -> None:
    fake.set(
        file_states=["pending", "running", "uploaded", "processed"],
        batch_states=["validating", "finished"], batch_ends={"finished": "completed"},
    )  # fmt: skip
    settings = {"batch": True} if batch else {}
    contender = prompted(fake.url, "tuned", **settings) if batch else hosted(fake.url)
    file, heard = bakeoff_file(tmp_path / "b", contender, test=2), Heard()
    assert error_of(carry_out(file, heard)) is None
    assert "is pending at http" in heard.text()
    assert "is running at http" in heard.text()
    assert len(rows(file)) == 2
    assert fake.calls("POST", "/v1/batches" if batch else JOBS) == 1


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    "behaviour",
    [{"file_states": [None]}, {"file_states": ["uploaded"]}, {"file_route": False}],
)
def test_a_server_that_does_not_say_more_of_a_file_is_not_waited_for(
    fake: Trainer, tmp_path: Path, behaviour: dict[str, Any]
) -> None:
    fake.set(**behaviour)
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    assert error_of(carry_out(file)) is None
    done_once(file, fake, tests=2)


@pytest.mark.usefixtures("no_report")
def test_a_file_that_is_no_good_is_said_and_sent_anew_next_time(
    fake: Trainer, tmp_path: Path
) -> None:
    fake.set(file_states=["running", "error"])
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    assert "is refused: line 3 is no JSON" in str(error_of(carry_out(file)))
    assert fake.creates() == 0
    fake.set(file_states=["processed"])
    assert error_of(carry_out(file)) is None
    assert fake.creates() == 1


@pytest.mark.usefixtures("no_report")
def test_a_process_killed_while_a_file_is_processed_uploads_it_once(
    fake: Trainer, tmp_path: Path
) -> None:
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    fake.set(file_states=["pending"])
    child = start(file, held=True, bare=True)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    looks = {"pid": child.pid, "method": "GET", "path": "/v1/files/file-.*", "nth": 3}
    fake.set(kill={**looks, "when": "before"})
    child.stdin.write("\n")
    child.communicate(timeout=180)
    assert child.returncode == -signal.SIGKILL
    fake.set(file_states=["pending", "pending", "pending", "processed"], kill=None)
    assert error_of(carry_out(file)) is None
    done_once(file, fake, tests=2)
    assert fake.creates() == 1


@pytest.mark.parametrize(
    ("state", "said"), [("failed", "failed (too short)"), ("cancelled", "was cancelled")]
)
def test_a_job_without_a_model_is_not_paid_for_again(
    fake: Trainer, tmp_path: Path, state: str, said: str
) -> None:
    fake.set(states=["queued", state], job_error="too short")
    file = bakeoff_file(tmp_path / "b", hosted(fake.url))
    for _ in range(2):
        assert said in str(error_of(carry_out(file)))
    assert "--only tuned --fresh" in str(error_of(carry_out(file)))
    assert (fake.creates(), fake.completions()) == (1, 0)


def test_duplicate_events_are_told_once(fake: Trainer, tmp_path: Path) -> None:
    fake.set(duplicate_events=True)
    heard = Heard()
    carry_out(bakeoff_file(tmp_path / "b", hosted(fake.url)), heard)
    for message in ("Created fine-tuning job: ftjob-0000", "The job has successfully completed"):
        assert heard.lines.count(f"tuned: {message}") == 1


@pytest.mark.parametrize(
    ("cut", "metadata"),
    [
        ("forwarded", "kept"), ("forwarded", "ignored"), ("forwarded", "refused"),
        ("mid-body", "kept"), ("malformed", "kept"), ("503", "refused"), ("429", "kept"),
    ],
)  # fmt: skip
def test_a_create_that_went_wrong_leaves_one_job(
    fake: Trainer, tmp_path: Path, cut: str, metadata: str
) -> None:
    """Where it was carried out and nobody heard of it, the job is found by its metadata, or by its
    file and suffix; else another is created."""
    fake.set(faults=[fault("POST", JOBS, cut)], metadata=metadata)
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    assert error_of(carry_out(file)) is None
    done_once(file, fake, tests=2)
    assert fake.creates() == (1 if cut in ("forwarded", "mid-body", "malformed") else 2)


def test_a_lost_create_is_found_in_a_listing_that_lags(fake: Trainer, tmp_path: Path) -> None:
    fake.set(
        faults=[fault("POST", JOBS, "forwarded"), fault("POST", "/v1/files", "mid-body")],
        lag_seconds=0.4, pages=False, shows_suffix=False, metadata="ignored",
    )  # fmt: skip
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    assert error_of(carry_out(file)) is None
    done_once(file, fake, tests=2)
    assert fake.creates() == 1


def test_two_contenders_alike_have_a_job_each(fake: Trainer, tmp_path: Path) -> None:
    """Their files are the same and are sent once; the second does not take the first one's job."""
    fake.set(metadata="ignored", shows_suffix=False, faults=[fault("POST", JOBS, "forwarded")])
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), hosted(fake.url, "again"), test=2)
    results = carry_out(file)
    assert [each.error for each in results.contenders] == [None, None]
    saw = fake.saw()
    assert [n for f, n in saw["uploads"].items() if f.startswith("tuneoff-")] == [1, 1]
    assert {job_of(file)["job_id"], job_of(file, "again")["job_id"]} == {
        job["id"] for job in saw["jobs"]
    }
    assert len(saw["jobs"]) == 2


def test_a_refused_create_is_a_new_try_next_time(fake: Trainer, tmp_path: Path) -> None:
    fake.set(refuse_create=1)
    file = bakeoff_file(tmp_path / "b", hosted(fake.url))
    assert "billing hard limit" in str(error_of(carry_out(file)))
    assert error_of(carry_out(file)) is None
    done_once(file, fake)


def test_a_model_that_is_still_loading_is_waited_for(fake: Trainer, tmp_path: Path) -> None:
    fake.set(loading=3)
    file = bakeoff_file(tmp_path / "b", hosted(fake.url))
    assert error_of(carry_out(file)) is None
    assert all(row["error"] is None for row in rows(file))


def test_a_newer_model_is_asked_without_what_it_refuses(fake: Trainer, tmp_path: Path) -> None:
    fake.set(newer_model=True)
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, concurrency=1), train=2)
    assert error_of(carry_out(file)) is None
    assert len(rows(file, "asked")) == fake.saw()["billed"]["completions"] == 8
    assert fake.completions() == 10  # each refusal is learned from once


@pytest.mark.parametrize("concurrency", [1, 4])  # with 1, nobody asks beside the last one
def test_refused_for_good_is_a_row_with_its_error(
    fake: Trainer, tmp_path: Path, concurrency: int
) -> None:
    asked = [*questions(5, 200), "FILTERED-PROMPT a", "TOO-LONG b", "FILTERED-ANSWER c", "POISON d"]
    file = bakeoff_file(
        tmp_path / "b", prompted(fake.url, concurrency=concurrency), test=asked, train=2,
        measure=False,
    )  # fmt: skip
    results = carry_out(file)
    assert error_of(results) is None
    found = rows(file, "asked")
    wrong = sorted(str(row["error"]) for row in found if row["error"])
    assert len(found) == 9
    assert len(wrong) == 4
    for part in ("was filtered", "Too many tokens", "content filter kept", "had an error"):
        assert any(part in each for each in wrong), part
    refused = {row["id"] for row in found if row["error"]}
    for row in rows(file, "asked", "scores"):  # they are counted, as wrong, and say why
        if row["id"] in refused:
            assert not any(row["scores"].values())
            assert row["verdict"] not in ("right", "wrong")
    assert carry_out(file).contenders[0].error is None
    assert fake.saw()["asked"]["FILTERED-ANSWER c"] == 1


ALL = ("429", "429 with Retry-After", "500", "503", "not forwarded", "forwarded", "mid-body",
       "malformed")  # fmt: skip


def test_faults_of_every_kind_are_answered_in_the_end(fake: Trainer, tmp_path: Path) -> None:
    fake.set(
        faults=[
            {"method": "POST", "path": CHAT, "kinds": ALL, "rate": 0.25, "seed": 3},
            {"method": "GET", "path": "/v1/.*", "kinds": ALL, "rate": 0.25, "seed": 4},
            fault("POST", "/v1/files", *ALL, times=2),
        ]
    )
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=60)
    assert error_of(carry_out(file)) is None
    done_once(file, fake, tests=60)
    assert all(row["error"] is None and row["prediction"] for row in rows(file))
    assert set(fake.saw()["faulty"]) == set(ALL)


def test_only_one_contender_begun_anew_is_paid_for_again(
    fake: Trainer, tmp_path: Path, cli: Any
) -> None:
    """`--only NAME --fresh --yes`, and nothing else: not the whole run, not a changed file."""
    file = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2)
    carry_out(file)
    with pytest.raises(RunDirectoryError, match="would forget what was paid for"):
        carry_out(file, fresh=True, yes=True)
    written = yaml.safe_load(file.read_text())
    written["contenders"][0]["epochs"] = 2
    file.write_text(yaml.safe_dump(written))
    with pytest.raises(RunDirectoryError, match=r"changed: contenders\.tuned\.epochs"):
        carry_out(file)
    assert fake.creates() == 1
    first = job_of(file)["job_id"]
    again = ("run", file, "--run-dir", file.parent / "run", "--only", "tuned", "--fresh")
    code, _, err = cli(*again)
    assert (code, fake.creates()) == (2, 1), err
    code, _, err = cli(*again, "--yes")
    assert (code, fake.creates()) == (0, 2), err
    assert job_of(file)["job_id"] != first
    assert fake.saw()["uploads"][job_of(file)["training_file"]["name"]] == 1


def test_refusals_that_come_first_lose_no_answer(fake: Trainer, tmp_path: Path) -> None:
    """Ten refusals without an answer stop the asking, but what is under way may be one."""
    asked = [*(f"FILTERED-PROMPT {n}" for n in range(12)), *questions(30, 200)]
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, concurrency=16), test=asked, train=2,
                        measure=False)  # fmt: skip
    assert error_of(carry_out(file)) is None
    found = rows(file, "asked")
    assert len({row["id"] for row in found}) == len(found) == 42
    assert sum(bool(row["error"]) for row in found) == 12
    assert fake.saw()["billed"]["completions"] == 30


def test_nothing_but_refusals_is_an_error(fake: Trainer, tmp_path: Path) -> None:
    asked = [f"FILTERED-PROMPT {n}" for n in range(40)]
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, concurrency=4), test=asked, train=2)
    assert "refused every request" in str(error_of(carry_out(file)))
    assert rows(file, "asked") == []
    assert fake.completions() < 25


def test_fresh_keeps_what_was_paid_for_under_another_name(fake: Trainer, tmp_path: Path) -> None:
    paid = bakeoff_file(tmp_path / "b", hosted(fake.url, price=PRICE), test=2)
    assert error_of(carry_out(paid)) is None
    renamed = bakeoff_file(tmp_path / "b", hosted(fake.url, "renamed", price=PRICE), test=2)
    with pytest.raises(RunDirectoryError, match=r"paid for \(contender tuned\)"):
        carry_out(renamed, fresh=True)
    assert job_of(paid)["job_id"]


def test_paying_again_counts_against_the_budget_and_not_for_the_new_job(
    fake: Trainer, tmp_path: Path
) -> None:
    file = bakeoff_file(tmp_path / "b", hosted(fake.url, price=PRICE), test=2)
    first = carry_out(file).contenders[0].cost
    again = carry_out(file, only="tuned", fresh=True).contenders[0].cost
    assert again.training_usd == first.training_usd
    spent = Ledger(tmp_path / "b/run/events.jsonl").spent()
    assert float(spent.known) == pytest.approx(fake.billed_usd(), abs=1e-9)
    assert float(spent.known) == pytest.approx(2 * (first.training_usd + first.answering_usd))


def test_a_fresh_start_that_is_refused_leaves_the_old_work_under_the_old_file(
    fake: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, concurrency=1), test=2, train=2)
    assert error_of(carry_out(file)) is None
    stored = (file.parent / "run" / "bakeoff.yaml").read_text()
    other = prompted(fake.url, concurrency=1, shots=1, key_variable="NOT_THERE")
    bakeoff_file(tmp_path / "b", other, test=2, train=2)
    with pytest.raises(RunDirectoryError):
        carry_out(file)
    monkeypatch.delenv("OPENAI_API_KEY")
    bakeoff_file(tmp_path / "b", {**other, "provider": "openai"}, test=2, train=2)
    with pytest.raises(ConfigError):
        carry_out(file, only="asked", fresh=True)
    assert (file.parent / "run" / "bakeoff.yaml").read_text() == stored
    with pytest.raises(RunDirectoryError):  # the old answers are not the new settings'
        carry_out(file)
