"""The memory estimate beside the measured peak of real trainings of the shipped base.

Purpose: `tuneoff.models.memory` says before a model is loaded what training takes; this says
how far it is off. Each setting trains three steps of 64 examples of a sample task in a process
of its own; measured is the peak of resident memory since before the base was loaded
(`tuneoff.training.callbacks`), estimated is the same for the largest pack that was computed.

Units: bytes; `ratio` is estimate / measured, so above 1 is on the safe side.

    python benchmarks/memory_estimate.py            about five minutes on one core

One JSON document to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PADDED = {"share_prefixes": False, "batch_size": 128}
# name → (task, tokens computed at once, settings of the contender)
SETTINGS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "LoRA, all linear": ("functional", 4096, {}),
    "LoRA, attention": ("sql", 4096, {"lora": {"target_modules": "attention"}}),
    "all parameters": ("sql", 4096, {"method": "full"}),
    "LoRA, padded": ("functional", 4096, {"train": {"share_prefixes": False}}),
    "LoRA, padded, 16k tokens": ("functional", 16384, {"train": PADDED}),
    "the same, checkpointed": (
        "functional", 16384, {"train": PADDED | {"gradient_checkpointing": True}},
    ),
    "all parameters, padded, 16k tokens": ("sql", 16384, {"method": "full", "train": PADDED}),
    "LoRA on int8": ("sql", 4096, {"quantization": "int8"}),
    "LoRA on nf4": ("sql", 4096, {"quantization": "nf4"}),
}  # fmt: skip
STEPS = {"max_steps": 3, "batch_size": 64, "evaluate_every": 3, "learning_rate": 1e-4}


def measure(name: str) -> dict[str, Any]:
    """One setting, trained in this process."""
    import torch
    from transformers import AutoConfig

    from tuneoff.config.contenders import LocalConfig
    from tuneoff.config.schema import TaskConfig
    from tuneoff.models.loading import SHIPPED_BASE_DIR
    from tuneoff.models.memory import estimate_memory
    from tuneoff.prefix_sharing.micro_batch import MAX_LOGITS, MicroBatch
    from tuneoff.storage.run_dir import ContenderDir
    from tuneoff.tasks.base import load_task
    from tuneoff.tasks.samples import functional, sql
    from tuneoff.tokenization.examples import EncodedExample
    from tuneoff.training import fine_tune
    from tuneoff.training.batching import MicroBatcher

    kind, most, fields = SETTINGS[name]
    fields = fields | {"train": STEPS | fields.get("train", {})}
    settings = LocalConfig.model_validate({"name": "x", "id": "local", **fields})
    id = "text_to_sql" if kind == "sql" else "functional_representation"
    template = load_task(id).template(TaskConfig(id=id, source="sample"))
    splits = sql.generate(0) if kind == "sql" else functional.generate(0)
    computed: list[int] = []
    whole = MicroBatcher.build_micro_batches

    def counted(self: MicroBatcher, examples: Sequence[EncodedExample]) -> Iterator[MicroBatch]:
        for pack in whole(self, examples):
            computed.append(pack.tokens)
            yield pack

    MicroBatcher.build_micro_batches, fine_tune.MAX_CPU_TOKENS = counted, most  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        directory = ContenderDir(Path(folder))
        record = fine_tune.tune(
            settings,
            str(SHIPPED_BASE_DIR),
            splits["train"][:384],
            splits["validation"][:64],
            template,
            directory,
        )
    config = AutoConfig.from_pretrained(SHIPPED_BASE_DIR)
    estimated = estimate_memory(
        config,
        settings,
        torch.float32,
        gradient_checkpointing=settings.train.gradient_checkpointing,
        logits_chunk=MAX_LOGITS // config.vocab_size,
    ).total_bytes(max(computed))
    measured = record.peak_memory_bytes or 0
    return {
        "tokens_at_once": max(computed),
        "measured_bytes": measured,
        "estimated_bytes": estimated,
        "ratio": round(estimated / max(measured, 1), 2),
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    found = {}
    for name in SETTINGS:
        done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {found[name]}", file=sys.stderr)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
