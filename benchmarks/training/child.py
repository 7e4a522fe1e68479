"""One job, carried out by a child process: one JSON document on its stdout.

An arm has a process of its own so that its peak memory is its own, and so that nothing that
another library patches can slow it down.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from training import data as data_sets
from training.measure import Job
from tuneoff.config.contenders import LocalConfig, LoraConfig

OUT_OF_MEMORY = "out of memory"


def start(script: str, job: Job) -> dict[str, Any]:
    """Runs `script --child JOB` and gives its answer; its stderr is shown only if it fails."""
    threads = str(job.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, script, "--child", json.dumps(asdict(job))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{job.arm} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main(written: str) -> None:
    """Carries out the job that `written` describes in JSON."""
    import torch

    job = Job(**json.loads(written))
    torch.set_num_threads(job.threads)
    with redirect_stdout(sys.stderr):
        try:
            found = _carry_out(job)
        except torch.OutOfMemoryError:
            found = {"error": OUT_OF_MEMORY}
    print(json.dumps(found))


def _carry_out(job: Job) -> dict[str, Any]:
    data = data_sets.read(Path(job.data))
    kind, _, variant = job.arm.partition(" ")
    grouping = cast(Any, variant)
    if kind == "gradients":
        from training import our_arms

        lora = LoraConfig(**{**job.lora, "dropout": 0.0})
        model = _nowhere_zero(_model(job, lora))
        return {"difference": our_arms.gradient_difference(grouping, model, data, job)}
    model = _model(job, LoraConfig(**job.lora))
    if kind == "tuneoff":
        from training import our_arms

        return asdict(our_arms.measure(grouping, model, data, job))
    if kind == "recipe":
        from training import recipe_arm

        return asdict(recipe_arm.measure(model, data, job))
    from training import trl_arms

    return asdict(trl_arms.measure(variant, model, data, job))


def _model(job: Job, lora: LoraConfig) -> Any:
    """The same start for every arm: a base with an adapter, or with all parameters trained."""
    import torch

    from tuneoff.training.model_setup import add_adapter, prepare_model

    settings = LocalConfig(
        name="tuned",
        id="local",
        method=cast(Any, job.method),
        quantization=cast(Any, job.quantization),
        lora=lora,
        train=cast(Any, {"gradient_checkpointing": job.checkpointing}),
        seed=job.seed,
    )
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[job.precision]
    if job.shape is None:
        return prepare_model(settings, job.base, dtype)
    from training import shapes

    torch.manual_seed(job.seed)
    model = shapes.build(job.shape, torch.device(job.device), dtype, job.quantization)
    return add_adapter(settings, model)


def _nowhere_zero(model: Any) -> Any:
    """LoRA's B matrices begin at zero, and with them the gradients of A: made random, so that
    every gradient is compared."""
    import torch

    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model
