"""The result of a hosted job in the terms of every other contender: losses, verdict, tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from tuneoff.config.contenders import HostedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import RejectedError
from tuneoff.providers.base import Job, Provider, StepLoss
from tuneoff.providers.retries import retry
from tuneoff.records import LossRow, TrainingRecord
from tuneoff.training.convergence import classify_loss_curve, find_best_row, find_overfitting_step

T = TypeVar("T")


def save_job_result(
    settings: HostedConfig, work: ContenderContext, provider: Provider, job: Job
) -> None:
    """Write `loss.jsonl`, the checkpoints, the tuned model's name and `training.json`.

    Not every compatible server has checkpoints or metrics; the model is recorded without them.
    """
    checkpoints = _fetch_optional(work, settings.name, lambda: provider.checkpoints(job.id))
    losses = _fetch_optional(work, settings.name, lambda: provider.losses(job))
    rows = _build_loss_rows(losses, job, len(work.train))
    work.directory.write_loss(rows)
    facts = work.directory.job()
    facts |= {
        "status": job.status,
        "tuned_model": job.model,
        "trained_tokens": job.trained_tokens,
        "checkpoints": [asdict(checkpoint) for checkpoint in checkpoints],
    }
    work.directory.write_job(facts)
    best = find_best_row(rows)
    steps = max(
        [row.step for row in rows] + [checkpoint.step for checkpoint in checkpoints], default=0
    )
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
            seconds=_compute_seconds(job),
            peak_memory_bytes=None,
            best_step=best.step if best else None,
            overfitting_step=find_overfitting_step(rows),
            verdict=classify_loss_curve(rows, None),
        )
    )


def _fetch_optional(work: ContenderContext, name: str, call: Callable[[], list[T]]) -> list[T]:
    """Return a call's result; where the provider rejects the call, warn and return nothing."""
    try:
        return retry(call)
    except RejectedError as error:
        work.progress.say(f"warning: {name}: {error}")
        return []


def _build_loss_rows(losses: list[StepLoss], job: Job, examples: int) -> list[LossRow]:
    """Return loss rows with the examples seen by each step.

    That is `batch_size` per step, or the step's share of the epochs.
    """
    steps = max((loss_row.step for loss_row in losses), default=0)
    examples_per_step = float(job.batch_size or 0) or (job.epochs or 0) * examples / max(1, steps)
    max_seen = (job.epochs or 0) * examples or None
    rows = []
    for loss in losses:
        seen = round(loss.step * examples_per_step)
        seen = seen if max_seen is None else min(seen, round(max_seen))
        rows.append(LossRow(loss.step, seen, loss.train, loss.validation))
    return rows


def _compute_seconds(job: Job) -> float | None:
    """Return the job's duration in seconds; None where the provider does not report it."""
    if job.finished_at is None or job.created_at is None:
        return None
    return float(job.finished_at - job.created_at)
