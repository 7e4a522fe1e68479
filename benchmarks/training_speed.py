"""Training speed of tuneoff's engine against TRL's `SFTTrainer`, on this machine's CPU.

Purpose: how many examples a second are trained when every shared prefix is computed once,
beside the usual trainer, with the same gradients.

Compared: the same examples, tokens (the shipped tokenizer), model (the shipped base, 5 M
parameters, float32), trained parameters (LoRA r = 16 on all linear layers, or `--method
full`), completion-only loss, AdamW, linear schedule, examples an optimizer step and threads.
tuneoff in random, length-sorted and (Spider with full schemas) by-prefix batches; TRL plain,
packing, group_by_length. `ratio_vs_best` divides by TRL's fastest mode: group_by_length is
compared with length-sorted batches, the others with random ones; `ratios` has both.

Method: each arm runs in a process of its own, one after another, the arms alternating over
the repetitions; speeds are medians. Timed are whole optimizer steps after a warm-up step,
without checkpoints, logs and evaluation; which batches: `training/measure.py`. What TRL keeps
of its defaults: `training/trl_arms.py`. `max_relative_gradient_difference` compares one
batch's gradients through the engine with the plain model's, one example at a time: the largest
‖g−g′‖₂/‖g‖₂ of a trained tensor, dropout off.

Units: examples a second; bytes (peak resident memory of the arm's process while it trains);
`tokens_ratio` is tokens in the timed examples / tokens that tuneoff computed for them;
`cpu_seconds_per_example` is over all threads (well below threads / speed: others were busy).

    python benchmarks/training_speed.py --json               about 15 minutes on two cores
    python benchmarks/training_speed.py --only viggo
    python benchmarks/training_speed.py --quick              a minute or two; proves the path only

Progress goes to stderr, one JSON document to stdout (`--json` also drops its indentation).
Real data: TUNEOFF_DATA, else `../shared/data` beside the checkout; without it, the samples.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from training import child, data, summary
from training.measure import Job, Measurement

from tuneoff import environment
from tuneoff.config.contenders import SHIPPED_BASE, LoraConfig
from tuneoff.models.loading import resolve_base

TRL_ARMS = ("trl plain", "trl packing", "trl group_by_length")
SCHEMA = "spider_schema"
MOST_PADDED = 2**14
QUICK_BATCH = 8


def main() -> None:
    """Runs everything, or (as a child) one job."""
    options = _options()
    if options.child:
        child.main(options.child)
        return
    job, repetitions = _job(options), 1 if options.quick else options.repetitions
    document: dict[str, Any] = {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or data.names():
            document |= _data_set(name, job, repetitions, Path(folder), options.trl_micro_batch)
    document["settings"] = _settings(job, repetitions)
    document["machine"] = {
        "description": environment.describe_machine(),
        "versions": environment.read_versions() | {"trl": metadata.version("trl")},
    }
    document["seconds"] = round(time.perf_counter() - began, 1)
    print(json.dumps(document, indent=None if options.json else 2))


def _data_set(
    name: str, job: Job, repetitions: int, folder: Path, trl_micro_batch: int | None
) -> dict[str, Any]:
    """The sections of one data set, by name."""
    _say(f"{name}: encoding")
    encoded = data.load(name)
    file = folder / f"{name}.json"
    data.write(encoded, file)
    micro = trl_micro_batch or at_once(job.batch_size, max(encoded.lengths))
    job = replace(job, data=str(file), micro_batch_size=micro)
    arms = ["tuneoff random", "tuneoff by_length", *TRL_ARMS]
    if name == SCHEMA:
        arms.insert(2, "tuneoff by_prefix")
    found: dict[str, list[Measurement]] = {arm: [] for arm in arms}
    for repetition in range(repetitions):
        for arm in arms:
            measured = Measurement(**child.start(__file__, replace(job, arm=arm)))
            found[arm].append(measured)
            speed = measured.examples_per_second
            _say(f"{name}, {arm}, {repetition + 1} of {repetitions}: {speed:.2f} examples/s")

    def section(grouping: str, but: str) -> dict[str, Any]:
        difference = child.start(__file__, replace(job, arm=f"gradients {grouping}"))["difference"]
        chosen = {arm: rows for arm, rows in found.items() if arm not in but.split(", ")}
        about = {"examples_left_out": encoded.left_out, "trl_micro_batch_size": micro}
        return summary.section(chosen, grouping, difference) | about

    if name != SCHEMA:
        return {name: section("random", "")}
    return {
        f"{name}_random": section("random", "tuneoff by_prefix"),
        f"{name}_by_prefix": section("by_prefix", "tuneoff random, tuneoff by_length"),
    }


def at_once(batch_size: int, longest: int) -> int:
    """Examples that a padding trainer computes at once: the batch, halved until its tokens, all
    as long as the longest, fit into a common machine's memory (about 0.33 MB a token here)."""
    size = batch_size
    while size > 1 and size % 2 == 0 and size * longest > MOST_PADDED:
        size //= 2
    return size


def _job(options: argparse.Namespace) -> Job:
    return Job(
        arm="",
        data="",
        base=resolve_base(SHIPPED_BASE, Path()),
        method=options.method,
        lora={"dropout": options.lora_dropout},
        batch_size=options.batch_size,
        warmup_steps=1,
        steps=1 if options.quick else options.steps,
        threads=options.threads,
    )


def _settings(job: Job, repetitions: int) -> dict[str, Any]:
    """What was compared, for whoever reads the numbers later."""
    return {
        "base": SHIPPED_BASE,
        "precision": "float32",
        "method": job.method,
        "lora": None if job.method == "full" else LoraConfig(**job.lora).model_dump(),
        "loss_on": "completion",
        "optimizer": "adamw_torch_fused",
        "learning_rate": job.learning_rate,
        "schedule": "linear",
        "batch_size": job.batch_size,
        "trl_packing": "bfd, one packed row at a time",
        "threads": job.threads,
        "warmup_steps": job.warmup_steps,
        "timed_steps": job.steps,
        "repetitions": repetitions,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted({*data.names(), *data.SAMPLES}),
        help="may be repeated",
    )
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument(
        "--lora-dropout", type=float, default=0.0, help="of every arm (0, PEFT's own default)"
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps a repetition (3)")
    parser.add_argument("--repetitions", type=int, default=3, help="of every arm (3)")
    parser.add_argument("--batch-size", type=int, default=32, help="examples a step (32)")
    parser.add_argument("--threads", type=int, default=2, help="of every arm (2)")
    parser.add_argument(
        "--trl-micro-batch",
        type=int,
        help="examples that TRL's plain and group_by_length compute at once (the whole batch, or "
        f"as many as are at most {MOST_PADDED} tokens when padded to the longest)",
    )
    parser.add_argument("--quick", action="store_true", help="batch 8, one step, once")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch_size = QUICK_BATCH if options.quick else options.batch_size
    if options.batch_size % (options.trl_micro_batch or 1):
        parser.error("--trl-micro-batch must divide the batch size")
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
