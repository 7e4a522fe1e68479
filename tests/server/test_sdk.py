"""The official SDK, unmodified, against a real server process: the seed's hosted flow."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from running import examples

from tuneoff.server.store import Store

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
JOB_SECONDS = 240


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> str:
    return tiny_base.name


@pytest.fixture(scope="module")
def files(client: Any) -> tuple[Any, Any]:
    train = client.files.create(file=("train.jsonl", examples(24)), purpose="fine-tune")
    validation = client.files.create(file=("valid.jsonl", examples(6)), purpose="fine-tune")
    return train, validation


def wait(client: Any, id: str, *states: str) -> Any:
    end = time.monotonic() + JOB_SECONDS
    while time.monotonic() < end:
        job = client.fine_tuning.jobs.retrieve(id)
        if job.status in states:
            return job
        assert job.status not in ("failed", "cancelled"), job.error
        time.sleep(0.2)
    raise AssertionError(f"the job is still {job.status}")


@pytest.fixture(scope="module")
def finished(client: Any, base: str, files: tuple[Any, Any]) -> Any:
    train, validation = files
    job = client.fine_tuning.jobs.create(
        model=base,
        training_file=train.id,
        validation_file=validation.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2,
                "batch_size": 8, "learning_rate_multiplier": 10}}},
        suffix="capital-test",
        seed=7,
        metadata={"run": "one"},
    )  # fmt: skip
    assert job.status in ("queued", "running")
    return wait(client, job.id, "succeeded")


def test_files(client: Any, files: tuple[Any, Any]) -> None:
    train, validation = files
    assert (train.filename, train.purpose, train.bytes) == (
        "train.jsonl", "fine-tune", len(examples(24)),
    )  # fmt: skip
    assert client.files.content(train.id).read() == examples(24)
    assert client.files.retrieve(validation.id) == validation
    assert {train.id, validation.id} <= {file.id for file in client.files.list()}
    one, *_ = client.files.list(limit=1, order="asc", purpose="fine-tune").data
    assert one.id == train.id
    more = client.files.create(file=("x.jsonl", examples(10)), purpose="fine-tune")
    assert client.files.delete(more.id).deleted is True
    with pytest.raises(openai.NotFoundError, match="No such file"):
        client.files.retrieve(more.id)


def test_a_finished_job(client: Any, base: str, finished: Any, files: tuple[Any, Any]) -> None:
    assert finished.fine_tuned_model.startswith(f"ft:{base}:local:capital-test:")
    assert finished.hyperparameters.n_epochs == 2
    assert finished.method.supervised.hyperparameters.learning_rate_multiplier == 10
    assert (finished.seed, finished.metadata) == (7, {"run": "one"})
    assert finished.training_file == files[0].id
    assert finished.trained_tokens > 0
    assert finished.finished_at >= finished.created_at
    assert finished.error is None


def test_events_and_their_pages(client: Any, finished: Any) -> None:
    pages = client.fine_tuning.jobs.list_events(finished.id, limit=3)
    events = list(pages)
    messages = [event.message for event in events][::-1]
    assert messages[0] == f"Created fine-tuning job: {finished.id}"
    assert messages[-1] == "The job has successfully completed"
    assert len({event.id for event in events}) == len(events) > 6
    metrics = [event for event in events if event.type == "metrics"]
    assert metrics
    assert metrics[0].data["step"] <= metrics[0].data["total_steps"] == 6


def test_the_result_file(client: Any, finished: Any) -> None:
    (id,) = finished.result_files
    text = client.files.content(id).read().decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["step", "train_loss", "valid_loss"]
    assert int(rows[-1]["step"]) == 6
    assert float(rows[-1]["valid_loss"]) > 0
    assert client.files.retrieve(id).purpose == "fine-tune-results"


def test_trained_tokens_are_those_a_hosted_job_is_billed_for(
    base: str, tiny_base: Path, finished: Any
) -> None:
    from tuneoff.models.loading import choose_rendering, load_tokenizer
    from tuneoff.prompts import CHAT_PASS_THROUGH
    from tuneoff.records import Example
    from tuneoff.tokenization.examples import encode_example

    tokenizer = load_tokenizer(str(tiny_base))
    rendering = choose_rendering(tokenizer, None)
    lengths = []
    for line in examples(24).splitlines():
        *turns, answer = json.loads(line)["messages"]
        example = Example("", {"messages": turns}, answer["content"])
        encoded = encode_example(
            tokenizer, example, CHAT_PASS_THROUGH, rendering, "completion", 1024, False
        )
        lengths.append(len(encoded.input_ids))
    assert finished.trained_tokens == 2 * sum(lengths), "in each of two epochs"


def test_estimates_and_events_of_a_finished_job(client: Any, finished: Any) -> None:
    assert finished.estimated_finish is None
    (error,) = {event.level for event in client.fine_tuning.jobs.list_events(finished.id)}
    assert error == "info"


def test_lists_by_metadata_and_page(client: Any, base: str, finished: Any) -> None:
    with_it = list(client.fine_tuning.jobs.list(metadata={"run": "one"}))
    assert [job.id for job in with_it] == [finished.id]
    assert list(client.fine_tuning.jobs.list(metadata={"run": "two"})) == []
    without = client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert finished.id not in [job.id for job in without]
    with pytest.raises(openai.BadRequestError, match="not both"):
        client.fine_tuning.jobs.list(extra_query={"metadata": "null", "metadata[run]": "one"})
    for nested in ("metadata[]", "metadata[run][0]"):
        with pytest.raises(openai.BadRequestError, match="one key and a text"):
            client.fine_tuning.jobs.list(extra_query={nested: "one"})


def test_what_is_not_here_says_so(client: Any, finished: Any) -> None:
    tuning = client.fine_tuning
    with pytest.raises(openai.NotFoundError, match="POST /v1/fine_tuning/alpha/graders/run"):
        tuning.alpha.graders.run(grader={"type": "string_check"}, model_sample="x")
    with pytest.raises(openai.NotFoundError, match="GET /v1/fine_tuning/checkpoints/"):
        tuning.checkpoints.permissions.list(finished.fine_tuned_model)


def test_models(client: Any, base: str, finished: Any) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == base
    assert finished.fine_tuned_model in names
    assert client.models.retrieve(finished.fine_tuned_model).owned_by == "local"
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete(base)
    with pytest.raises(openai.NotFoundError, match="No such model"):
        client.models.retrieve("ft:none")


def test_pausing_resuming_and_cancelling(
    client: Any, base: str, files: tuple[Any, Any], finished: Any
) -> None:
    def create(**more: Any) -> Any:
        return client.fine_tuning.jobs.create(model=base, training_file=files[0].id, **more)

    long = create(hyperparameters={"n_epochs": 50, "batch_size": 1})
    waiting = create()
    assert waiting.hyperparameters.n_epochs == "auto", "what was asked, until it begins"
    assert waiting.method.supervised.hyperparameters.batch_size == "auto"
    assert (waiting.estimated_finish, waiting.trained_tokens) == (None, None)
    assert client.fine_tuning.jobs.pause(waiting.id).status == "paused"
    with pytest.raises(openai.BadRequestError, match="is paused"):
        client.fine_tuning.jobs.pause(waiting.id)
    wait(client, long.id, "running")
    with pytest.raises(openai.BadRequestError, match="still needs this file"):
        client.files.delete(files[0].id)
    assert client.fine_tuning.jobs.cancel(long.id).status == "cancelled"
    assert client.fine_tuning.jobs.resume(waiting.id).status == "queued"
    done = wait(client, waiting.id, "succeeded")
    assert client.fine_tuning.jobs.retrieve(long.id).status == "cancelled"
    assert done.hyperparameters.n_epochs == 4, "24 examples: at most 100 are seen"
    assert client.models.delete(done.fine_tuned_model).deleted is True


def test_a_job_that_failed_goes_on(
    client: Any, base: str, files: tuple[Any, Any], served_dir: Path
) -> None:
    job = client.fine_tuning.jobs.create(
        model=base, training_file=files[0].id, hyperparameters={"n_epochs": 1}
    )
    client.fine_tuning.jobs.pause(job.id)
    error = {"code": "training_failed", "message": "no space left", "param": None}
    Store(served_dir).change_job(job.id, "failed", error=error, finished_at=1)
    assert client.fine_tuning.jobs.retrieve(job.id).error.message == "no space left"
    resumed = client.fine_tuning.jobs.resume(job.id)
    assert (resumed.error, resumed.finished_at) == (None, None)
    assert wait(client, job.id, "succeeded").error is None


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": "gpt-9"}, "model", "model_not_available"),
        ({"training_file": "file-none"}, "training_file", "invalid_training_file"),
        ({"validation_file": "../../etc"}, "validation_file", "invalid_validation_file"),
        ({"method": {"type": "dpo"}}, "method.type", "invalid_value"),
        ({"suffix": "../x"}, "suffix", "invalid_value"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations",
         "invalid_value"),
        ({"extra_body": {"batch": 3}}, "batch", "invalid_value"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(
    client: Any, base: str, files: tuple[Any, Any], change: dict[str, Any], param: str, code: str
) -> None:
    asked = {"model": base, "training_file": files[0].id, **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**asked)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_too_few_examples(client: Any, base: str) -> None:
    few = client.files.create(file=("few.jsonl", examples(9)), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="has 9 examples; at least 10"):
        client.fine_tuning.jobs.create(model=base, training_file=few.id)
