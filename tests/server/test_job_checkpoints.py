"""Checkpoints of a job's last epochs are models: asked, listed and deleted through the official
SDK, while the job is paused, after it was cancelled, and when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import examples

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
WAIT_SECONDS = 240


def until(true: Callable[[], Any]) -> Any:
    """What a question finally answers."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.1)
    raise AssertionError("it never came true")


def create(client: Any, base: Path, count: int = 24, **more: Any) -> Any:
    file = client.files.create(file=("t.jsonl", examples(count)), purpose="fine-tune")
    return client.fine_tuning.jobs.create(model=base.name, training_file=file.id, **more)


def succeeded(client: Any, id: str) -> Any:
    def done() -> Any:
        job = client.fine_tuning.jobs.retrieve(id)
        assert job.status in ("queued", "running", "succeeded"), job.error
        return job if job.status == "succeeded" else None

    return until(done)


def checkpoints(client: Any, id: str) -> list[Any]:
    return list(client.fine_tuning.jobs.checkpoints.list(id))


def said(client: Any, model: str) -> list[float]:
    """How likely a model finds each token that it says with one seed: other weights show."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Is 3 a number?"}], max_tokens=24,
        temperature=1.5, seed=5, logprobs=True,
    )  # fmt: skip
    found = [round(each.logprob, 4) for each in answer.choices[0].logprobs.content]
    assert found
    return found


@pytest.fixture(scope="module")
def finished(client: Any, tiny_base: Path) -> Any:
    """Five epochs of three steps, validated."""
    validation = client.files.create(file=("v.jsonl", examples(6)), purpose="fine-tune")
    job = create(
        client, tiny_base, validation_file=validation.id, suffix="five", seed=1,
        hyperparameters={"n_epochs": 5, "batch_size": 8, "learning_rate_multiplier": 30},
    )  # fmt: skip
    return succeeded(client, job.id)


def test_the_last_three_epochs_are_listed(client: Any, finished: Any, served_dir: Path) -> None:
    found = checkpoints(client, finished.id)
    assert [each.step_number for each in found] == [15, 12, 9]
    for each in found:
        name = f"{finished.fine_tuned_model}:ckpt-step-{each.step_number}"
        assert each.fine_tuned_model_checkpoint == name
        assert each.fine_tuning_job_id == finished.id
        assert each.object == "fine_tuning.job.checkpoint"
        assert each.metrics.step == each.step_number
        assert each.metrics.train_loss > 0
        assert each.metrics.full_valid_loss == each.metrics.valid_loss > 0
    losses = [each.metrics.full_valid_loss for each in found]
    assert losses == sorted(losses)
    events = client.fine_tuning.jobs.list_events(finished.id, limit=100)
    made = [e.message for e in events if e.message.startswith("Checkpoint created at step")]
    assert len(made) == 5
    # On disk there is nothing else: no older epoch, and nothing to go on training from.
    folder = served_dir / "jobs" / finished.id
    assert {each.name for each in (folder / "epochs").iterdir()} == {"step-9", "step-12", "step-15"}
    assert not (folder / "checkpoints").exists()
    assert (folder / "adapter").is_dir()


def test_they_come_in_pages(client: Any, finished: Any) -> None:
    whole = checkpoints(client, finished.id)
    assert list(client.fine_tuning.jobs.checkpoints.list(finished.id, limit=1)) == whole
    page = client.fine_tuning.jobs.checkpoints.list(finished.id, limit=2)
    assert (page.data, page.has_more) == (whole[:2], True)
    rest = client.fine_tuning.jobs.checkpoints.list(finished.id, after=whole[1].id)
    assert (rest.data, rest.has_more) == (whole[2:], False)
    with pytest.raises(openai.NotFoundError, match="No such checkpoint"):
        client.fine_tuning.jobs.checkpoints.list(finished.id, after="ftckpt-none")


def test_they_are_models(client: Any, tiny_base: Path, finished: Any) -> None:
    names = [each.fine_tuned_model_checkpoint for each in checkpoints(client, finished.id)]
    listed = {model.id for model in client.models.list()}
    assert {*names, finished.fine_tuned_model} <= listed
    assert client.models.retrieve(names[0]).owned_by == "local"
    texts = {name: said(client, name) for name in (tiny_base.name, *names)}
    assert len({tuple(each) for each in texts.values()}) == 4, texts
    # The fifth epoch has the lowest validation loss, so it is the model.
    assert texts[names[0]] == said(client, finished.fine_tuned_model)


def test_each_is_deleted_alone(client: Any, tiny_base: Path, served_dir: Path) -> None:
    job = create(
        client, tiny_base,
        hyperparameters={"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 30},
    )  # fmt: skip
    model = succeeded(client, job.id).fine_tuned_model
    last, first = checkpoints(client, job.id)
    assert last.metrics.full_valid_loss is None, "nothing was given to validate with"
    assert last.metrics.train_loss < first.metrics.train_loss
    names = [each.fine_tuned_model_checkpoint for each in (first, last)]
    texts = [said(client, name) for name in (*names, model)]
    assert texts[1] == texts[2], "without validation the last step is the model"
    assert client.models.delete(names[0]).deleted is True
    with pytest.raises(openai.NotFoundError, match="No such model"):
        said(client, names[0])
    with pytest.raises(openai.NotFoundError, match="No such model"):
        client.models.delete(names[0])
    assert checkpoints(client, job.id) == [last]
    assert client.models.delete(model).deleted is True
    with pytest.raises(openai.NotFoundError, match="No such model"):
        said(client, model)
    assert said(client, names[1]) == texts[1]
    folder = served_dir / "jobs" / job.id
    assert {each.name for each in folder.iterdir() if each.is_dir()} == {"epochs"}
    assert [each.name for each in (folder / "epochs").iterdir()] == [f"step-{last.step_number}"]
    client.models.delete(names[1])


def test_of_a_job_that_is_paused_goes_on_and_is_cancelled(
    client: Any, tiny_base: Path, served_dir: Path
) -> None:
    jobs = client.fine_tuning.jobs
    job = create(client, tiny_base, hyperparameters={"n_epochs": 50, "batch_size": 1})
    until(lambda: checkpoints(client, job.id))
    paused = jobs.pause(job.id)
    assert (paused.status, paused.estimated_finish) == ("paused", None)
    folder = served_dir / "jobs" / job.id
    (before, *_) = checkpoints(client, job.id)
    assert before.step_number % 24 == 0
    assert said(client, before.fine_tuned_model_checkpoint)
    assert any((folder / "checkpoints").iterdir()), "what it goes on from"
    jobs.resume(job.id)
    until(lambda: checkpoints(client, job.id)[0].step_number > before.step_number)
    assert jobs.cancel(job.id).status == "cancelled"
    until(lambda: not (folder / "checkpoints").exists())
    kept = checkpoints(client, job.id)
    assert kept
    assert said(client, kept[0].fine_tuned_model_checkpoint)
    for each in kept:
        client.models.delete(each.fine_tuned_model_checkpoint)
    assert not folder.exists()
    with pytest.raises(openai.BadRequestError, match="is cancelled"):
        jobs.resume(job.id)


def test_cancelled_while_paused_leaves_nothing(
    client: Any, tiny_base: Path, served_dir: Path
) -> None:
    # Long after its first checkpoint to go on from comes its first epoch's end.
    job = create(client, tiny_base, 600, hyperparameters={"n_epochs": 1, "batch_size": 1})
    folder = served_dir / "jobs" / job.id
    until(lambda: (folder / "checkpoints").is_dir() and any((folder / "checkpoints").iterdir()))
    client.fine_tuning.jobs.pause(job.id)
    client.fine_tuning.jobs.cancel(job.id)
    until(lambda: not folder.exists())
