"""What came of a hosted job, in the words of every other contender: losses, verdict, tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from tuneoff.contender_settings import HostedSettings
from tuneoff.contenders import Work
from tuneoff.errors import RefusedError
from tuneoff.providers import Job, Provider, StepLoss
from tuneoff.providers.calls import repeated
from tuneoff.records import LossRow, TrainingRecord
from tuneoff.training.convergence import best_row, overfitting_step, verdict

T = TypeVar("T")


def write_down(settings: HostedSettings, work: Work, provider: Provider, job: Job) -> None:
    """Writes `loss.jsonl`, the checkpoints, the tuned model's name and `training.json`. Not every
    server of this shape has checkpoints or metrics; the model is there without them."""
    checkpoints = _if_there_are(work, settings.name, lambda: provider.checkpoints(job.id))
    losses = _if_there_are(work, settings.name, lambda: provider.losses(job))
    rows = _rows(losses, job, len(work.train))
    work.directory.write_loss(rows)
    facts = work.directory.job()
    facts |= {
        "status": job.status,
        "tuned_model": job.model,
        "trained_tokens": job.trained_tokens,
        "checkpoints": [asdict(each) for each in checkpoints],
    }
    work.directory.write_job(facts)
    best = best_row(rows)
    steps = max([row.step for row in rows] + [each.step for each in checkpoints], default=0)
    epochs = job.epochs or (0.0 if settings.epochs == "auto" else float(settings.epochs))
    work.directory.write_training(
        TrainingRecord(
            examples=len(work.train),
            epochs=epochs,
            steps=steps,
            tokens_raw=None,
            tokens_templated=None,
            tokens_billed=job.trained_tokens,
            tokens_computed=None,
            seconds=_seconds(job),
            peak_memory_bytes=None,
            best_step=best.step if best else None,
            overfitting_step=overfitting_step(rows),
            verdict=verdict(rows, None),
        )
    )


def _if_there_are(work: Work, name: str, call: Callable[[], list[T]]) -> list[T]:
    try:
        return repeated(call)
    except RefusedError as error:
        work.progress.say(f"warning: {name}: {error}")
        return []


def _rows(losses: list[StepLoss], job: Job, examples: int) -> list[LossRow]:
    """Steps with the examples seen by then: `batch_size` a step, or the epochs' share of it."""
    steps = max((each.step for each in losses), default=0)
    each_step = float(job.batch_size or 0) or (job.epochs or 0) * examples / max(1, steps)
    most = (job.epochs or 0) * examples or None
    rows = []
    for loss in losses:
        seen = round(loss.step * each_step)
        seen = seen if most is None else min(seen, round(most))
        rows.append(LossRow(loss.step, seen, loss.train, loss.validation))
    return rows


def _seconds(job: Job) -> float | None:
    if job.finished_at is None or job.created_at is None:
        return None
    return float(job.finished_at - job.created_at)
