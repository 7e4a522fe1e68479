"""One training over several workers: Ray Train starts the processes and connects them."""

from __future__ import annotations

import tempfile

from tuneoff.cluster.resources import ResourceRequest
from tuneoff.cluster.worker import WorkerTask, tune_in_group


class WorkerLostError(Exception):
    """A process of the group, or its supervisor, is gone; the message says why."""


def train_group(errand: WorkerTask, wanted: ResourceRequest, count: int) -> str | None:
    """Train in `count` processes, one for each accelerator; return the error that one raised, or
    None.

    Raises:
        WorkerLostError: a process or its machine was lost, whatever the others then raised.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from tuneoff.training.distributed.process_group import COLLECTIVE_TIMEOUT

    # Only Ray Train's own state; checkpoints go to the task's storage.
    with tempfile.TemporaryDirectory(prefix="tuneoff-") as state_dir:
        trainer = TorchTrainer(
            tune_in_group,
            train_loop_config={"errand": errand},
            torch_config=TorchConfig(timeout_s=int(COLLECTIVE_TIMEOUT.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=count,
                use_gpu=bool(wanted.cards),
                accelerator_type=wanted.kind if wanted.cards else None,
            ),
            run_config=RunConfig(
                name=errand.key,
                storage_path=state_dir,
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failures = list(getattr(error, "worker_failures", {}).values())
            for failure in failures:
                if isinstance(failure, RayError) or "HealthCheck" in type(failure).__name__:
                    raise WorkerLostError(_get_last_line(failure)) from None
            if not failures:
                raise WorkerLostError(_get_last_line(error)) from None
            return _get_last_line(failures[0])
    return None


def _get_last_line(error: BaseException) -> str:
    """Return the last line of an error, where a traceback has its message."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
