"""One training over several workers: Ray Train places the processes and connects them."""

from __future__ import annotations

import tempfile

from tuneoff.cluster.demands import Demand
from tuneoff.cluster.worker import Errand, tune_together


def train(errand: Errand, wanted: Demand, count: int) -> None:
    """Trains in `count` processes, one a card.

    Raises:
        ray.train.TrainingFailedError: one of them ended; the board may know why.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # Ray Train's own notes; what the training reaches is kept by the errand's storage.
    with tempfile.TemporaryDirectory(prefix="tuneoff-") as notes:
        TorchTrainer(
            tune_together,
            train_loop_config={"errand": errand},
            scaling_config=ScalingConfig(
                num_workers=count,
                use_gpu=bool(wanted.cards),
                accelerator_type=wanted.kind if wanted.cards else None,
            ),
            run_config=RunConfig(
                name=errand.key, storage_path=notes, failure_config=FailureConfig(max_failures=0)
            ),
        ).fit()
