"""The seed experiment's own work on one card: answering ViGGO, and its trainings, in hours and USD.

Purpose: what the engine gains where the seed spent its time, beside what the article reports:
7 hours and $3.32 for SQL, 9 hours and $4.27 for ViGGO, on an A40 at $0.475 an hour.

`answering`: ViGGO's 1,083 test prompts with their whole instruction and a model of the 7 B shape,
bf16, greedy, so many new tokens each (`--new-tokens`; random weights do not know where to end).
Arms: `one_by_one`, `transformers.generate` on one prompt after another, as the seed's notebooks
did (a part of the prompts, `--alone`); `tuneoff`, its engine; `vllm`, `backend: vllm` as a run has
it, where vLLM is installed (its engine's start is not timed), else null. Examples a second.

`training`: the seed's job, for both data sets: the 34 B shape, int8 where bitsandbytes is
installed, LoRA r = 8 on attention, loss over the whole text, 128 examples a step, gradient
checkpointing. 20 steps are timed (`training/measure.py`: at evenly spaced ranks of an epoch's
batches), and 400 derived: `hours` = 400 × seconds a step, without its validations and checkpoints;
`usd` = hours × the hour's price of this card (the price book's, or `--usd-per-hour`; null without
one), `usd_at_seeds_price` at $0.475 where the card is an A40, too. Arms: `recipe` (plain
`transformers.Trainer`, 16 examples at once, grouped by length) and `tuneoff` (its engine,
length-sorted batches too).

Needs: one NVIDIA card with bf16: 24 GB for answering, 48 GB for training in int8 (80 GB without
bitsandbytes); 14 GB of disk for vLLM's copy of the weights. Nothing is downloaded. ViGGO and
Spider from TUNEOFF_DATA, else ../shared/data; generated samples where they are not there.

    benchmarks/gpu.sh seed                                     on a CUDA machine
    python benchmarks/gpu_seed.py --device cpu --shape tiny    proves the path, in seconds
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu import LORA, check_device, quantization_of
from training import child, data, shapes
from training.measure import Job, Measurement

from tuneoff import environment
from tuneoff.bakeoff import prepare
from tuneoff.config.contenders import SHIPPED_BASE, LocalConfig
from tuneoff.config.schema import BakeOff
from tuneoff.costs import price_book
from tuneoff.models.loading import choose_rendering, load_tokenizer, release_memory, resolve_base
from tuneoff.tokenization.examples import encode_prompt

STEPS, SEEDS_PRICE = 400, 0.475
ARTICLE = {
    "viggo": {"hours": 9.0, "usd": 4.27},
    "spider_create_context": {"hours": 7.0, "usd": 3.32},
}
ARMS = {"recipe": "recipe", "tuneoff": "tuneoff by_length"}
Prompts = list[tuple[str, list[int]]]


def main() -> None:
    """Measures both parts, or one, or (as a child) carries out one training job."""
    options = _options()
    if options.child:
        child.main(options.child)
        return
    check_device(options.device)
    document: dict[str, Any] = {}
    if options.only in (None, "answering"):
        document["answering"] = _answering(options)
    if options.only in (None, "training"):
        document["training"] = {
            name: _training(name, options) for name in _data_names(options.device == "cpu")
        }
    document["machine"] = {
        "description": environment.describe_machine(),
        "device": options.device,
        "versions": environment.read_versions(),
    }
    print(json.dumps(document, indent=2))


def _answering(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tuneoff.inference import engine, generate
    from tuneoff.inference.generate import BATCH_SIZE
    from tuneoff.inference.stopping import StopCriteria, find_end_tokens

    tokenizer, prompts = _prompts(options.examples)
    ending, new = StopCriteria(tokenizer, find_end_tokens(None, tokenizer), ()), options.new_tokens
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    shape = options.shape or "7b"
    model = shapes.build(shape, torch.device(options.device), dtype, "none").eval()
    some = prompts[:: max(1, len(prompts) // options.alone)][: options.alone]
    for _ in generate.generate_with_transformers(model, ending, some[:1], new, 1):
        pass  # prepares kernels
    alone = _speed(
        "one_by_one", some, generate.generate_with_transformers(model, ending, some, new, 1)
    )
    shared = engine.generate_with_engine(model, ending, prompts, new, BATCH_SIZE)
    found: dict[str, Any] = {
        "one_by_one": alone,
        "tuneoff": _speed("tuneoff", prompts, shared),
        "vllm": None,
    }
    if find_spec("vllm") is None or options.device == "cpu":
        _say("vllm: not measured; it needs a card and `pip install vllm`")
    else:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            del model
            release_memory()
            found["vllm"] = _vllm(folder, ending, prompts, new)
    for name in ("tuneoff", "vllm"):
        speed = found[name] and found[name]["examples_per_second"]
        found[f"ratio_{name}"] = round(speed / alone["examples_per_second"], 2) if speed else None
    return {
        "shape": shape,
        "data": "viggo" if data.data_dir() else "functional_sample",
        "prompts": len(prompts),
        "tokens_in_mean": round(sum(len(ids) for _, ids in prompts) / len(prompts), 1),
        "new_tokens": new,
        **found,
    }


def _vllm(folder: str, ending: Any, prompts: Prompts, new: int) -> dict[str, float]:
    from tuneoff.inference import vllm

    longest = max(len(ids) for _, ids in prompts) + new
    asked = vllm.VllmOptions(folder, "bfloat16", cards=1, longest=longest)
    with vllm.run_vllm(asked) as running:
        for _ in vllm.generate_with_vllm(running, asked, ending, prompts[:8], new):
            pass
        running.reset_prefix_cache()
        return _speed(
            "vllm", prompts, vllm.generate_with_vllm(running, asked, ending, prompts, new)
        )


def _speed(name: str, prompts: Sequence[Any], answers: Iterator[Any]) -> dict[str, float]:
    began = time.perf_counter()
    made = [prediction for some in answers for prediction in some]
    seconds = time.perf_counter() - began
    found = {
        "prompts": len(prompts),
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(prompts) / seconds, 3),
        "new_tokens_per_second": round(sum(p.tokens_out or 0 for p in made) / seconds, 1),
    }
    _say(f"{name}: {found['examples_per_second']} examples/s")
    return found


def _prompts(most: int | None) -> tuple[Any, Prompts]:
    """(tokenizer, test prompts) as a run has them, with the shipped tokenizer."""
    name = "viggo" if data.data_dir() else "functional_sample"
    folder = data.data_dir()
    bakeoff = BakeOff(
        name="benchmark",
        task={**data.REAL, **data.SAMPLES}[name],
        contenders=(LocalConfig(name="tuned", id="local"),),
        data_dir=str(folder) if folder else None,
    )
    parts = prepare.resolve(bakeoff)
    test = parts.task.load(parts.settings, parts.place)["test"][:most]
    tokenizer = load_tokenizer(resolve_base(SHIPPED_BASE, Path()))
    rendering = choose_rendering(tokenizer, None)
    return tokenizer, [(e.id, encode_prompt(tokenizer, e, parts.template, rendering)) for e in test]


def _training(name: str, options: argparse.Namespace) -> dict[str, Any]:
    shape = options.shape or "34b"
    quantization = quantization_of(shape, options.quantization)
    small = options.device == "cpu"
    found: dict[str, Any] = {"shape": shape, "quantization": quantization}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.json"
        data.write(data.load(name, "text"), file)
        for arm, job_arm in ARMS.items():
            job = Job(
                arm=job_arm,
                data=str(file),
                base=resolve_base(SHIPPED_BASE, Path()),
                lora=LORA,
                batch_size=8 if small else 128,
                steps=options.steps,
                threads=options.threads,
                micro_batch_size=4 if small else 16,
                most_tokens=16384,
                learning_rate=3e-4,
                device=options.device,
                precision="float32" if small else "bf16",
                quantization=quantization,
                shape=shape,
                checkpointing=True,
            )
            answer = child.start(__file__, job)
            found[arm] = None if "error" in answer else _derived(Measurement(**answer), options)
            _say(f"{name}, {arm}: {found[arm] or answer['error']}")
    return {**found, "article": ARTICLE.get(name) if shape == "34b" else None}


def _derived(found: Measurement, options: argparse.Namespace) -> dict[str, Any]:
    """What 400 steps of it take and cost."""
    per_step = found.seconds / options.steps
    hours, price = STEPS * per_step / 3600, _usd_per_hour(options)
    return {
        "timed_steps": options.steps,
        "seconds_per_step": round(per_step, 4),
        "examples_per_second": round(found.examples_per_second, 3),
        "peak_memory_bytes": found.peak_memory_bytes,
        "hours": round(hours, 3),
        "usd_per_hour": price,
        "usd": None if price is None else round(hours * price, 2),
        "usd_at_seeds_price": round(hours * SEEDS_PRICE, 2) if _is("A40") else None,
    }


def _usd_per_hour(options: argparse.Namespace) -> float | None:
    """What an hour of this card costs: as told, or in the price book."""
    if options.usd_per_hour is not None or options.device == "cpu":
        return options.usd_per_hour  # type: ignore[no-any-return]
    book = price_book.load_shipped()
    names = [
        a.name
        for a in book.accelerators()
        if environment.is_accelerator(a.name, environment.get_accelerator())
    ]
    hour = book.hour(max(names, key=len), datetime.date.today()) if names else None
    return float(hour.usd_per_hour) if hour else None


def _is(accelerator: str) -> bool:
    return environment.is_accelerator(accelerator, environment.get_accelerator())


def _data_names(small: bool) -> list[str]:
    names = list(ARTICLE) if data.data_dir() else ["functional_sample"]
    return names[:1] if small else names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--only", choices=["answering", "training"])
    parser.add_argument("--shape", choices=list(shapes.SHAPES), help="of both parts (7b, 34b)")
    parser.add_argument("--quantization", choices=["auto", "none", "int8"], default="auto")
    parser.add_argument("--examples", type=int, help="prompts to answer (all; 32 on a CPU)")
    parser.add_argument("--alone", type=int, help="of them, one by one (64; 8 on a CPU)")
    parser.add_argument("--new-tokens", type=int, default=48, help="of each answer (48)")
    parser.add_argument("--steps", type=int, help="timed optimizer steps (20; 2 on a CPU)")
    parser.add_argument("--usd-per-hour", type=float, help="what an hour of this card costs you")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    small = options.device == "cpu"
    options.examples = options.examples or (32 if small else None)
    options.alone = options.alone or (8 if small else 64)
    options.steps = options.steps or (2 if small else 20)
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
