"""What `test_distributed.py` runs in one process and under torchrun in two, to compare them:
`torchrun --nproc-per-node 2 ranks.py BASE OUT`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from training.test_fine_tune import TRAIN, VALIDATION, settings

from tuneoff.models.loading import load_tokenizer
from tuneoff.prefix_sharing import micro_batch
from tuneoff.prefix_sharing.micro_batch import install_micro_batch_loss
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.tokenization.examples import EncodedExample, encode_example
from tuneoff.training.arguments import build_training_arguments
from tuneoff.training.batching import MicroBatcher
from tuneoff.training.checkpoints import TrainingTotals
from tuneoff.training.distributed import fsdp
from tuneoff.training.distributed.process_group import (
    ProcessGroup,
    join_process_group,
    leave_process_group,
)
from tuneoff.training.fine_tune import tune
from tuneoff.training.model_setup import prepare_model
from tuneoff.training.sampler import ExampleSampler
from tuneoff.training.trainer import build_trainer

CPU = torch.device("cpu")


@dataclass
class Case:
    """One optimizer step: `batch` and `validation` examples, in packs of at most `most` tokens."""

    parallel: str = "ddp"
    method: str = "lora"
    batch: int = 8
    validation: int = 5
    most: int = 4096
    trees: bool = True
    short_of_memory: bool = False
    train: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


CASES = {
    "ddp lora": Case(),
    "ddp full": Case(method="full"),
    "fsdp lora": Case("fsdp"),
    "fsdp full": Case("fsdp", "full"),
    "ddp fewer examples than ranks": Case(batch=1, validation=1),
    "fsdp fewer examples than ranks": Case("fsdp", "full", batch=1, validation=1),
    "ddp uneven": Case(batch=7, most=150),
    "fsdp uneven": Case("fsdp", batch=7, most=150),
    "fsdp padded": Case("fsdp", "full", trees=False),
    "fsdp checkpointing": Case("fsdp", "full", train={"gradient_checkpointing": True}),
    "fsdp bf16": Case("fsdp", dtype=torch.bfloat16, train={"precision": "bf16"}),
    "ddp short of memory in one": Case(method="full", short_of_memory=True),
}


def encoded(base: str) -> tuple[list[EncodedExample], list[EncodedExample]]:
    tokenizer = load_tokenizer(base)
    template = task.SAMPLE.drop_instruction()
    train, validation = (
        [encode_example(tokenizer, e, template, "text", "completion", 1024) for e in split]
        for split in (TRAIN, VALIDATION)
    )
    return train, validation


def one_step(base: str, folder: Path, case: Case, group: ProcessGroup) -> dict[str, Any]:
    """Losses and whole gradients, as the trainer has them when it takes its step."""
    chosen = settings(method=case.method, train=case.train, lora={"r": 4, "dropout": 0.0})
    model = prepare_model(chosen, base, case.dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what A learns
            torch.nn.init.normal_(parameter, std=0.05)
    if group.size > 1 and case.parallel == "fsdp":
        fsdp.shard(model, fsdp.build_mesh(group), case.dtype)
        assert_divided(model, group)
    train, validation = (part[:n] for part, n in zip(
        encoded(base), (case.batch, case.validation), strict=True))  # fmt: skip
    packer = MicroBatcher(CPU, case.trees, case.most)
    arguments = build_training_arguments(chosen, folder, len(train), 1e-3, case.dtype, group=group)
    order = ExampleSampler([e.input_ids for e in train], len(train), "random", 0)
    trainer = build_trainer(
        model, arguments, train, validation, order, packer, TrainingTotals(), group=group
    )
    assert trainer.accelerator.num_processes == 1, "accelerate must not divide anything"
    if case.train.get("gradient_checkpointing"):
        model.activation_checkpointing_enable()
    whole = micro_batch.build_tree_batch
    if case.short_of_memory and group.size > 1:
        micro_batch.build_tree_batch = small_card(whole, group)
    try:
        with install_micro_batch_loss(model, case.trees):
            loss = float(trainer.training_step(model, {"examples": train}))
            gradients = {
                name: fsdp._gather_tensor(p.grad, True)
                for name, p in model.named_parameters()
                if p.grad is not None
            }
            found = {
                "loss": loss,
                "gradients": gradients,
                "validation": trainer.compute_validation_loss(),
            }
    finally:
        micro_batch.build_tree_batch = whole
    shares = [
        [pack.tokens for pack in packer.build_micro_batches(train, rank, group.size)]
        for rank in range(group.size)
    ]
    return {
        **found, "computed": trainer.totals.tokens_computed, "shares": shares,
        "most": packer.most_tokens,
    }  # fmt: skip


def small_card(whole: Any, group: ProcessGroup) -> Any:
    """Packs of over 150 tokens fail, in the second process only."""

    def made(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        pack = whole(sequences, *args, **kwargs)
        if pack.tokens > 150 and group.rank == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pack

    return made


def assert_divided(model: Any, group: ProcessGroup) -> None:
    """Every parameter, frozen ones too, is a DTensor of which this process has its part."""
    from torch.distributed.tensor import DTensor, Shard

    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert parameter.placements == (Shard(0),), name
        own = parameter.to_local().numel()
        assert own * group.size == parameter.numel(), (name, own, parameter.numel())


def resumed(parallel: str) -> Any:
    """The training that one process begins and two go on with."""
    return settings(
        method="full",
        train={"max_steps": 12, "evaluate_every": 3, "learning_rate": 1e-3, "parallel": parallel},
        hardware={"count": 2},
    )


def go_on(base: str, folder: Path, parallel: str) -> Any:
    directory = ContenderDir(folder)
    return tune(
        resumed(parallel), base, TRAIN, VALIDATION, task.SAMPLE.drop_instruction(), directory
    )


def main() -> None:
    base, out = sys.argv[1], Path(sys.argv[2])
    group = join_process_group()
    for name, case in CASES.items():
        found = one_step(base, out / "arguments", case, group)
        torch.save(found, out / f"{name}-{group.rank}.pt")
    for parallel in ("ddp", "fsdp"):
        # Each has a folder of its own, as on machines of their own.
        record = go_on(base, out / f"{parallel}-{group.rank}", parallel)
        torch.save(record.steps, out / f"{parallel}-{group.rank}.steps")
    leave_process_group()
    # All is written: an abort in torch's threads while the interpreter ends says nothing of it.
    os._exit(0)


if __name__ == "__main__":
    main()
