"""The tables of docs/scaling.md: how hours, memory and USD grow with examples and model size.

Everything is derived, by the formulas that `tuneoff plan` uses (`models/memory.py`,
`bakeoff/plan/local.py`) and the shipped price book; nothing is loaded and nothing is fetched. What
was measured is only held beside it, in the last table.

    python docs/scaling_table.py            prints the tables
    python docs/scaling_table.py --write    puts them into docs/scaling.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig

from tuneoff.bakeoff.plan.local import TERA, UTILIZATION, count_operations
from tuneoff.config.contenders import LocalConfig, LoraConfig, TrainConfig
from tuneoff.costs import price_book
from tuneoff.models.loading import SHIPPED_BASE_DIR
from tuneoff.models.memory import USABLE_FRACTION, estimate_memory
from tuneoff.models.parameters import inspect_parameters
from tuneoff.prefix_sharing.micro_batch import MAX_LOGITS

FOLDER = Path(__file__).parent
BEGINS, ENDS = "<!-- tables: docs/scaling_table.py -->", "<!-- end of tables -->"
# The price book's prices of this day.
DAY = datetime.date(2026, 11, 28)
CARD = "H100"
# Bytes a second that its memory gives: https://www.nvidia.com/en-us/data-center/h100/ (SXM).
CARD_BYTES_PER_SECOND = 3.35e12
GIB = 2**30
# ViGGO in Llama's tokens: of an example, of the instruction that all share, and how many times
# fewer are computed for it. An answer's tokens, and how many rows are answered at once.
TOKENS, CONSTANT, SHARING = 258, 176, 3.1
ANSWER, ROWS = 48, 128
LONGEST = 512
# The mean of ViGGO's 5,103 training examples in the shipped tokenizer's tokens; and what the two
# cores that computed them multiply a second in float32 (docs/LOG.md, the engine), in TFLOP.
CPU_TOKENS, CPU_PEAK = 327.6, 2 * 0.17
EXAMPLES = (5_000, 100_000, 1_000_000, 10_000_000)
# config.json of Llama 3.2 1B, Llama 3.1 8B, CodeLlama 34B and Llama 3.1 70B.
SHAPES: dict[str, dict[str, Any]] = {
    "1 B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8 B": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "34 B": {
        "hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 48,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000,
    },
    "70 B": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Way:
    """A way to tune: its name in the table, and its settings."""

    name: str
    settings: LocalConfig


def ways() -> list[Way]:
    train = TrainConfig(batch_size=128, gradient_checkpointing=True)
    lora = LoraConfig(r=16, alpha=32, target_modules="all-linear")

    def way(name: str, **more: Any) -> Way:
        return Way(name, LocalConfig(name="x", id="local", lora=lora, train=train, **more))

    return [
        way("LoRA on nf4", quantization="nf4"),
        way("LoRA"),
        way("all parameters", method="full"),
    ]


def training() -> Iterator[str]:
    """Model × way: memory, cards, and hours and USD of one epoch."""
    peak, hour = _card()
    yield (
        "| model | tuned | TFLOP a token | GiB | cards | gradients, GB | "
        + " | ".join(f"{count:,} examples" for count in EXAMPLES)
        + " |"
    )
    yield "|" + "---|" * (6 + len(EXAMPLES))
    for name, shape in SHAPES.items():
        config = LlamaConfig(**shape)
        for way in ways():
            parameters = inspect_parameters(config, way.settings.lora)
            work = count_operations(config, way.settings, parameters, TOKENS)
            held = estimate_memory(
                config,
                way.settings,
                torch.bfloat16,
                gradient_checkpointing=True,
                logits_chunk=MAX_LOGITS // shape["vocab_size"],
                on_accelerator=True,
            )
            needed = held.total_bytes(LONGEST)
            cards = _power_of_two(needed / (USABLE_FRACTION * _memory() * GIB))
            cells = []
            for count in EXAMPLES:
                seconds = work.seconds(count * TOKENS / SHARING, 0, peak * cards)
                cells.append(f"{_long(seconds)}, {_usd(seconds / 3600 * cards * hour)}")
            yield _row(
                name, way.name, f"{work.training / TERA:.3f}", f"{needed / GIB:,.0f}", cards,
                f"{held.gradient_bytes / 1e9:.2f}", *cells,
            )  # fmt: skip


def answering() -> Iterator[str]:
    """Model: examples a second, at most, and USD."""
    peak, hour = _card()
    yield "| model | cards | examples/s, at most | USD for 1,000 | hours and USD for 10,000,000 |"
    yield "|---|---|---|---|---|"
    every = LoraConfig(target_modules="all-linear")
    for name, shape in SHAPES.items():
        config = LlamaConfig(**shape)
        total = inspect_parameters(config, every).total
        weights = total * 2
        size = shape["hidden_size"] // shape["num_attention_heads"]
        kept = 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * size * 2
        cards = _power_of_two(
            (weights + ROWS * LONGEST * kept) / (USABLE_FRACTION * _memory() * GIB)
        )
        prompt = 2 * total * (TOKENS - ANSWER - CONSTANT) / (peak * TERA * UTILIZATION * cards)
        step = (weights + ROWS * (TOKENS - CONSTANT) * kept) / (CARD_BYTES_PER_SECOND * cards)
        each = prompt + ANSWER * step / ROWS
        usd = each / 3600 * cards * hour
        many = 10_000_000
        yield _row(
            name, cards, f"{1 / each:,.0f}", f"${1000 * usd:.4f}",
            f"{_long(many * each)}, {_usd(many * usd)}",
        )  # fmt: skip


def checks() -> Iterator[str]:
    """What the formulas say of two trainings that were measured."""
    yield "| measured | where | took | the formulas say | share of the peak that was reached |"
    yield "|---|---|---|---|---|"
    settings = LocalConfig(
        name="x", id="local", quantization="int8",
        lora=LoraConfig(r=8, alpha=16, target_modules=("q_proj", "k_proj", "v_proj", "o_proj")),
        train=TrainConfig(gradient_checkpointing=True, batch_size=128),
    )  # fmt: skip
    config = LlamaConfig(**SHAPES["34 B"])
    card = price_book.load_shipped().accelerator("A40")
    assert card is not None
    work = count_operations(config, settings, inspect_parameters(config, settings.lora), TOKENS)
    for data, tokens, hours in (("SQL", 145, 7.0), ("ViGGO", TOKENS, 9.0)):
        seconds = work.seconds(400 * 128 * tokens, 0, card.peak_teraflops)
        yield _row(
            f"the seed's own training on {data}, 400 steps of 128 (the article's hours)", "A40",
            f"{hours:g} h", f"{seconds / 3600:.1f} h, nothing shared",
            f"{UTILIZATION * seconds / 3600 / hours:.0%}",
        )  # fmt: skip
    file = FOLDER / "results" / "benchmarks" / "training_speed.json"
    found = json.loads(file.read_text())["viggo"]
    own = LocalConfig(name="x", id="local", lora=LoraConfig(r=16, target_modules="all-linear"))
    tiny = AutoConfig.from_pretrained(SHIPPED_BASE_DIR)
    small = count_operations(tiny, own, inspect_parameters(tiny, own.lora), CPU_TOKENS)
    speed = found["tuneoff"]
    reached = small.training * CPU_TOKENS / found["tokens_ratio"] * speed / TERA
    yield _row(
        "the shipped base on ViGGO (`training_speed.json`)", "2 cores of a Xeon",
        f"{speed:.1f} examples/s", f"{speed / reached * CPU_PEAK * UTILIZATION:.1f} examples/s",
        f"{reached / CPU_PEAK:.0%}",
    )  # fmt: skip


def text() -> str:
    """All tables, with what they are of."""
    peak, hour = _card()
    source = price_book.format_hour_source(price_book.load_shipped().hour(CARD, DAY))
    parts = (
        f"**One epoch of training** (derived): {CARD}s at {UTILIZATION:.0%} of {peak:g} TFLOPS, "
        f"${hour:g} an hour each ({source}), examples of {TOKENS} tokens of which {SHARING} times "
        f"fewer are computed, bf16, r=16 on all linear layers, gradient checkpointing. Cards: the "
        f"power of two that holds it at {LONGEST} tokens at once.",
        *_block(training()),
        f"**Answering** (derived, an upper bound): prompts of {TOKENS - ANSWER} tokens of which "
        f"{CONSTANT} are computed once for all, {ANSWER} new ones, {ROWS} rows at once, bf16 "
        f"weights.",
        *_block(answering()),
        "**The formulas beside what was measured.**",
        *_block(checks()),
    )
    return "\n".join(parts)


def _block(lines: Iterator[str]) -> Sequence[str]:
    return ("", *lines, "")


def _card() -> tuple[float, float]:
    """(TFLOPS, USD an hour) of one card."""
    book = price_book.load_shipped()
    card, hour = book.accelerator(CARD), book.hour(CARD, DAY)
    assert card is not None
    assert hour is not None
    return card.peak_teraflops, float(hour.usd_per_hour)


def _memory() -> float:
    card = price_book.load_shipped().accelerator(CARD)
    assert card is not None
    return card.memory_gb


def _power_of_two(needed: float) -> int:
    return 2 ** max(0, math.ceil(math.log2(needed)))


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _long(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _usd(usd: float) -> str:
    return f"${usd:.2f}" if usd < 100 else f"${usd:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put them into docs/scaling.md")
    if not parser.parse_args().write:
        print(text())
        return
    file = FOLDER / "scaling.md"
    before, _, rest = file.read_text().partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    file.write_text(f"{before}{BEGINS}\n{text()}\n{ENDS}{after}")


if __name__ == "__main__":
    main()
