"""One training over several workers: Ray Train places the processes and connects them."""

from __future__ import annotations

import tempfile

from tuneoff.cluster.demands import Demand
from tuneoff.cluster.worker import Errand, tune_together


class LostError(Exception):
    """One of the processes, or what watches over them, is gone; the message says why."""


def train(errand: Errand, wanted: Demand, count: int) -> str | None:
    """Trains in `count` processes, one a card. What went wrong is returned as one of them raised
    it, where no other was lost.

    Raises:
        LostError: a process or its machine was lost, whatever the others made of that.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from tuneoff.training.group import PATIENCE

    # Ray Train's own notes; what the training reaches is kept by the errand's storage.
    with tempfile.TemporaryDirectory(prefix="tuneoff-") as notes:
        trainer = TorchTrainer(
            tune_together,
            train_loop_config={"errand": errand},
            torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=count,
                use_gpu=bool(wanted.cards),
                accelerator_type=wanted.kind if wanted.cards else None,
            ),
            run_config=RunConfig(
                name=errand.key, storage_path=notes, failure_config=FailureConfig(max_failures=0)
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failures = list(getattr(error, "worker_failures", {}).values())
            for failed in failures:
                if isinstance(failed, RayError) or "HealthCheck" in type(failed).__name__:
                    raise LostError(_last_line(failed)) from None
            if not failures:
                raise LostError(_last_line(error)) from None
            return _last_line(failures[0])
    return None


def _last_line(error: BaseException) -> str:
    """What a traceback in a message ends with."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
