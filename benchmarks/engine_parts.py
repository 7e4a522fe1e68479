"""Why the engine is built as it is: four measurements behind four decisions.

attention   forward and backward of one layer's attention over a batch's tree, in milliseconds:
            the cascade of slices (what the CPU uses), one dense mask, and the "gathered" way
            (every node's queries as a padded batch over copies of its ancestors' keys).
pack_size   tokens a second of LoRA training by how many are computed at once. Training several
            adapters side by side would only make packs larger: where more tokens are not
            faster per token, it cannot gain.
dropout     milliseconds of a LoRA step with and without dropout, whose random numbers every layer
            draws for itself: why the jobs of `tuneoff serve` go without.
grouping    validation loss and tokens computed after the same number of examples, by the order
            of batches (`training/sampler.py`), over several seeds.

Medians of alternating repetitions; one JSON document on stdout, progress on stderr.

    python benchmarks/engine_parts.py [--only attention] [--threads 2]      about 10 minutes
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from training import data as data_sets

from tuneoff import environment
from tuneoff.config.contenders import SHIPPED_BASE, LocalConfig
from tuneoff.models.loading import resolve_base
from tuneoff.prefix_sharing import tree as prefix_tree
from tuneoff.prefix_sharing.attention import TreeAttention
from tuneoff.prefix_sharing.micro_batch import build_tree_batch, install_micro_batch_loss
from tuneoff.prefix_sharing.tree import PrefixTree, WeightedSequence
from tuneoff.tokenization.examples import EncodedExample
from tuneoff.training.batching import MIN_SHARED_TOKENS, MicroBatcher, build_weighted_sequence
from tuneoff.training.model_setup import prepare_model

CPU = torch.device("cpu")
HEADS, HEAD_SIZE, BATCH = 4, 64, 32
REPETITIONS = 7
DROPOUTS, STEP = (0.0, 0.05), 8
PACK_SIZES = (512, 1024, 2048, 4096, 8192)
SEEDS, EXAMPLES, EPOCHS = (0, 1), 500, 2


def main() -> None:
    parts: dict[str, Callable[[], Any]] = {
        "attention": attention, "pack_size": pack_size, "dropout": dropout,
        "grouping": grouping,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(parts))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: parts[name]() for name in options.only or parts}
    print(
        json.dumps(
            {"machine": environment.describe_machine(), "threads": options.threads, **found},
            indent=2,
        )
    )


def batches(name: str) -> list[list[WeightedSequence]]:
    """Random batches of a data set's training examples, evenly spread over it."""
    examples = data_sets.load(name).examples
    step = max(1, len(examples) // (BATCH * 4))
    rows = [build_weighted_sequence(example) for example in examples[::step]]
    return [rows[start : start + BATCH] for start in range(0, BATCH * 4, BATCH)]


def attention() -> dict[str, Any]:
    found = {}
    for name in data_sets.names():
        tree = prefix_tree.build_tree(batches(name)[0], MIN_SHARED_TOKENS)
        heads = [torch.randn(1, HEADS, len(tree), HEAD_SIZE, requires_grad=True) for _ in range(3)]
        ways: dict[str, Callable[[], torch.Tensor]] = {
            "cascade": _with(TreeAttention(tree, CPU, "cascade"), heads),
            "dense": _with(TreeAttention(tree, CPU, "dense"), heads),
            "gathered": _gathered(tree, heads),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(REPETITIONS):
            for way, compute in ways.items():
                began = time.perf_counter()
                torch.autograd.grad(compute().sum(), heads)
                times[way].append(1000 * (time.perf_counter() - began))
        medians = {way: statistics.median(values) for way, values in times.items()}
        found[name] = {"tokens": len(tree), "nodes": len(tree.nodes), "milliseconds": medians}
        print(f"attention, {name}: {medians}", file=sys.stderr)
    return found


def _with(tree: TreeAttention, heads: list[torch.Tensor]) -> Callable[[], torch.Tensor]:
    return lambda: tree.attend(torch.nn.Module(), *heads, None, 0.0)


def _gathered(tree: PrefixTree, heads: list[torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Each node's tokens as a row of a padded batch, over its ancestors' keys and its own."""
    paths = [[tree.nodes[n] for n in tree.path(index)] for index in range(len(tree.nodes))]
    keys = [[i for node in path for i in range(node.start, node.end)] for path in paths]
    queries = [list(range(node.start, node.end)) for node in tree.nodes]
    most_q, most_k = max(map(len, queries)), max(map(len, keys))
    mask = torch.zeros(len(queries), 1, most_q, most_k, dtype=torch.bool)
    for row, (q, k) in enumerate(zip(queries, keys, strict=True)):
        above = len(k) - len(q)
        mask[row, 0, : len(q), : len(k)] = torch.ones(len(q), len(k)).tril(above).bool()
        mask[row, 0, len(q) :, 0] = True
    q_index = torch.tensor([[*q, *[0] * (most_q - len(q))] for q in queries])
    k_index = torch.tensor([[*k, *[0] * (most_k - len(k))] for k in keys])

    def compute() -> torch.Tensor:
        q, k, v = (
            x[0].transpose(0, 1)[index].transpose(1, 2)
            for x, index in zip(heads, (q_index, k_index, k_index), strict=True)
        )
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)

    return compute


def pack_size() -> dict[str, Any]:
    base = resolve_base(SHIPPED_BASE, Path())
    settings = LocalConfig(name="tuned", id="local", lora={"dropout": 0.0})  # type: ignore[arg-type]
    model = prepare_model(settings, base, torch.float32)
    name = data_sets.names()[0]
    rows = [row for batch in batches(name) for row in batch]
    speeds: dict[int, list[float]] = {most: [] for most in PACK_SIZES}
    with install_micro_batch_loss(model, True):
        for _ in range(REPETITIONS):
            for most in PACK_SIZES:
                group = prefix_tree.pack_sequences(rows, most, shortest=MIN_SHARED_TOKENS)[0]
                pack = build_tree_batch([rows[i] for i in group], CPU, shortest=MIN_SHARED_TOKENS)
                began = time.perf_counter()
                model(pack=pack).loss.backward()
                speeds[most].append(pack.tokens / (time.perf_counter() - began))
    medians = {most: round(statistics.median(values)) for most, values in speeds.items()}
    print(f"pack_size, {name}: {medians}", file=sys.stderr)
    return {"data": name, "tokens_per_second": medians}


def dropout() -> dict[str, Any]:
    """A step of LoRA r=16 on all linear layers, as a job of `tuneoff serve` has it."""
    base, name = resolve_base(SHIPPED_BASE, Path()), data_sets.names()[0]
    rows = batches(name)[0][:STEP]
    pack = build_tree_batch(rows, CPU, shortest=MIN_SHARED_TOKENS)
    models = {
        share: prepare_model(
            LocalConfig(name="tuned", id="local", lora={"dropout": share}),  # type: ignore[arg-type]
            base, torch.float32,
        ).train()
        for share in DROPOUTS
    }  # fmt: skip
    times: dict[float, list[float]] = {share: [] for share in DROPOUTS}
    for _ in range(REPETITIONS):
        for share, model in models.items():
            with install_micro_batch_loss(model, True):
                began = time.perf_counter()
                model(pack=pack).loss.backward()
                times[share].append(1000 * (time.perf_counter() - began))
    medians = {share: statistics.median(values) for share, values in times.items()}
    print(f"dropout, {name}: {medians}", file=sys.stderr)
    return {"data": name, "examples": STEP, "tokens": pack.tokens, "milliseconds": medians}


def grouping() -> dict[str, Any]:
    """All parameters, two epochs of Spider with whole schemas (or of the SQL sample)."""
    name = "spider_schema" if "spider_schema" in data_sets.names() else "sql_sample"
    examples = [e for e in data_sets.load(name).examples if len(e.input_ids) <= 700]
    step = max(1, len(examples) // (EXAMPLES + 100))
    chosen = examples[::step][: EXAMPLES + 100]
    # Every ninth validates: the same databases as in training, other questions.
    validation, train = chosen[::9], [e for i, e in enumerate(chosen) if i % 9]
    found: dict[str, Any] = {"data": name, "examples": len(train)}
    for kind in ("random", "by_length", "by_prefix"):
        runs = [_train(kind, seed, train, validation) for seed in SEEDS]
        found[kind] = {
            "validation_loss": [loss for loss, _ in runs],
            "tokens_computed": round(statistics.mean(tokens for _, tokens in runs)),
        }
        print(f"grouping, {kind}: {found[kind]}", file=sys.stderr)
    return found


def _train(
    kind: Any, seed: int, train: list[EncodedExample], validation: list[EncodedExample]
) -> tuple[float, int]:
    from tuneoff.training.arguments import build_training_arguments
    from tuneoff.training.checkpoints import TrainingTotals
    from tuneoff.training.sampler import ExampleSampler
    from tuneoff.training.trainer import build_trainer

    settings = LocalConfig(
        name="tuned", id="local", method="full", seed=seed,
        train={"epochs": EPOCHS, "batch_size": BATCH, "grouping": kind},  # type: ignore[arg-type]
    )  # fmt: skip
    model = prepare_model(settings, resolve_base(SHIPPED_BASE, Path()), torch.float32)
    order = ExampleSampler([e.input_ids for e in train], BATCH, kind, seed)
    effort = TrainingTotals()
    with tempfile.TemporaryDirectory() as folder:
        arguments = build_training_arguments(
            settings, Path(folder), len(train), 1e-3, torch.float32
        )
        arguments.eval_strategy = arguments.save_strategy = "no"
        arguments.load_best_model_at_end = False
        packer = MicroBatcher(CPU, True, 4096)
        trainer = build_trainer(model, arguments, train, validation, order, packer, effort)
        trainer.training_began = 0.0
        with install_micro_batch_loss(model, True):
            trainer.train()
            return round(trainer.compute_validation_loss(), 4), effort.tokens_computed


if __name__ == "__main__":
    main()
