"""Training speed on an accelerator: tuneoff's engine against the seed experiment's recipe.

Purpose: what computing every shared prefix once gains with models of 1, 7 and 34 billion
parameters on one card, in examples a second and in memory.

Compared, on the same ViGGO examples (shipped tokenizer, full instruction; the generated
sample where the data set is not there), LoRA r = 8 on attention, loss over the whole text as
the seed's notebooks had it (or `--loss-on completion`), bf16, 128 examples an optimizer step:

* recipe: plain `transformers.Trainer`, padded, grouped by length, 16 examples at once,
  8 accumulated, gradient checkpointing;
* tuneoff: its engine, length-sorted batches too, the same gradient checkpointing;
* tuneoff without checkpointing: where the card's memory allows it, else null.

Method: random weights of the models' real shapes, made on the card (`training/shapes.py`);
34b is int8 where bitsandbytes is installed, else bf16. Each arm runs in a process of its own;
a warm-up step, then whole optimizer steps are timed (`training/measure.py`), without
checkpoints, logs and evaluation.

Units: examples and tokens a second (`tokens_per_second` counts tokens of the data,
`computed_tokens_per_second` those that went through the model, padding included); bytes
(`torch.cuda.max_memory_allocated` while training; resident memory on a CPU).
`share_of_matrix_peak`: work of the blocks' linear layers a second (2 operations a weight and
computed token forward, 2 backward for a frozen base, 2 more with checkpointing; attention,
head and adapters are not counted) / the best of large bf16 matrix products measured in the
same run. `effective_share` counts tokens of the data, once forward and backward.

    benchmarks/gpu.sh                                        on a CUDA machine
    python benchmarks/gpu.py --device cpu --shape tiny       proves the path, in seconds
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training import child, data, shapes
from training.measure import Job, Measurement

from tuneoff import environment
from tuneoff.config.contenders import SHIPPED_BASE
from tuneoff.models.loading import resolve_base

LORA = {
    "r": 8,
    "alpha": 16,
    "dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
ARMS = {  # arm in the document → what the child runs, and whether activations are recomputed
    "recipe": ("recipe", True),
    "tuneoff": ("tuneoff by_length", True),
    "tuneoff_without_checkpointing": ("tuneoff by_length", False),
}
# Operations a weight and token: forward, backward through a frozen layer, forward once more.
FORWARD = BACKWARD = 2


def main() -> None:
    """Runs the shapes that are asked for, or (as a child) one job."""
    options = _options()
    if options.child:
        child.main(options.child)
        return
    check_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        job = _job(options, Path(folder))
        peak = matrix_peak(options.device)
        _say(f"matrix peak: {peak / 1e12:.2f} TFLOP/s")
        document = {shape: _shape(shape, job, peak, options) for shape in options.shape}
    document["settings"] = {
        "lora": LORA,
        "loss_on": options.loss_on,
        "batch_size": job.batch_size,
        "recipe_micro_batch_size": job.micro_batch_size,
        "tuneoff_most_tokens": job.most_tokens,
        "warmup_steps": job.warmup_steps,
        "timed_steps": job.steps,
        "data": _data_name(),
    }
    document["machine"] = {
        "description": environment.describe_machine(),
        "device": options.device,
        "matrix_peak_flops_per_second": peak,
        "versions": environment.read_versions(),
    }
    print(json.dumps(document, indent=2))


def _shape(shape: str, job: Job, peak: float, options: argparse.Namespace) -> dict[str, Any]:
    """All arms of one model."""
    quantization = quantization_of(shape, options.quantization)
    job = replace(job, shape=shape, quantization=quantization)
    found: dict[str, Any] = {"precision": job.precision, "quantization": quantization}
    for name, (arm, checkpointing) in ARMS.items():
        answer = child.start(__file__, replace(job, arm=arm, checkpointing=checkpointing))
        if "error" in answer:
            _say(f"{shape}, {name}: {answer['error']}")
            found[name] = None
            continue
        found[name] = _speeds(shape, Measurement(**answer), peak, checkpointing)
        _say(f"{shape}, {name}: {found[name]['examples_per_second']} examples/s")
    recipe = found["recipe"]
    for name in ("tuneoff", "tuneoff_without_checkpointing"):
        speed = found[name] and found[name]["examples_per_second"]
        known = recipe is not None and speed is not None
        found[f"ratio_{name}"] = round(speed / recipe["examples_per_second"], 2) if known else None
    return found


def _speeds(shape: str, found: Measurement, peak: float, checkpointing: bool) -> dict[str, Any]:
    weights, seconds = shapes.block_weights(shape), found.seconds
    once = FORWARD + BACKWARD
    operations = once + FORWARD if checkpointing else once
    computed, useful = found.tokens_computed / seconds, found.tokens_in_data / seconds
    return {
        "examples_per_second": round(found.examples_per_second, 3),
        "tokens_per_second": round(useful, 1),
        "computed_tokens_per_second": round(computed, 1),
        "tokens_ratio": round(found.tokens_in_data / found.tokens_computed, 3),
        "peak_memory_bytes": found.peak_memory_bytes,
        "share_of_matrix_peak": round(computed * operations * weights / peak, 4),
        "effective_share": round(useful * once * weights / peak, 4),
        "trainable_parameters": found.trainable_parameters,
    }


def matrix_peak(device: str) -> float:
    """Operations a second of the best large matrix product: bf16 on a card, float32 else."""
    import torch

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    best = 0.0
    for size in (4096, 8192, 16384) if device == "cuda" else (512, 1024):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        _wait(device)
        began, rounds = time.perf_counter(), 10
        for _ in range(rounds):
            a @ b
        _wait(device)
        best = max(best, rounds * 2 * size**3 / (time.perf_counter() - began))
        del a, b
    if device == "cuda":
        torch.cuda.empty_cache()  # the children need the card's memory
    return best


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def quantization_of(shape: str, asked: str) -> str:
    """int8 for the 34b, as in the seed experiment, where bitsandbytes is installed."""
    if asked != "auto":
        return asked
    if shape == "34b" and find_spec("bitsandbytes") is not None:
        return "int8"
    return "none"


def _job(options: argparse.Namespace, folder: Path) -> Job:
    name = _data_name()
    _say(f"{name}: encoding")
    file = folder / "data.json"
    data.write(data.load(name, options.loss_on), file)
    small = options.device == "cpu"
    micro = options.micro or (4 if small else 16)
    return Job(
        arm="",
        data=str(file),
        base=resolve_base(SHIPPED_BASE, Path()),
        lora=LORA,
        batch_size=micro * (options.accumulate or (2 if small else 8)),
        warmup_steps=1,
        steps=options.steps or (1 if small else 3),
        threads=options.threads,
        micro_batch_size=micro,
        most_tokens=options.most_tokens,
        learning_rate=3e-4,
        device=options.device,
        precision="float32" if small else "bf16",
    )


def _data_name() -> str:
    return "viggo" if data.data_dir() else "functional_sample"


def check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "gpu.py: torch sees no CUDA device here; run it on a machine with one, or prove the "
            "path with --device cpu --shape tiny."
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shape", action="append", choices=list(shapes.SHAPES))
    parser.add_argument("--quantization", choices=["auto", "none", "int8"], default="auto")
    parser.add_argument("--loss-on", choices=["text", "completion"], default="text")
    parser.add_argument("--micro", type=int, help="examples the recipe computes at once (16)")
    parser.add_argument("--accumulate", type=int, help="micro-batches a step (8)")
    parser.add_argument("--steps", type=int, help="timed optimizer steps (3)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument(
        "--most-tokens", type=int, default=16384, help="tokens tuneoff computes at once (16384)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.shape = options.shape or ["1b", "7b", "34b"]
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
