"""Examples answered a second: our engine against `transformers.generate`, same answers.

Prompts: ViGGO's test set with its whole instruction (`TUNEOFF_DATA` or ../shared/data;
without it the generated functional sample). Model: the shipped base, all parameters tuned
for about a minute. `generate` answers one by one and in length-sorted batches of several sizes;
then the best size and ours take turns, and medians are compared. Wherever answers differ,
the unbatched model says how far apart the two best tokens were at the first difference.

    python benchmarks/answering_speed.py --json

stdout: the result (JSON with --json); stderr: progress. Unit: examples a second of wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tuneoff.config.contenders import LocalConfig, TrainConfig
from tuneoff.config.schema import TaskConfig
from tuneoff.inference import engine, engine_check, generate
from tuneoff.inference.generate import BATCH_SIZE
from tuneoff.inference.stopping import StopCriteria, build_stop_criteria
from tuneoff.models.loading import SHIPPED_BASE_DIR, load_model, load_tokenizer
from tuneoff.records import Example, Prediction
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.tasks.base import DataPaths
from tuneoff.tokenization.examples import encode_prompt
from tuneoff.training.fine_tune import tune

Prompts = list[tuple[str, list[int]]]
SIZES = (8, 16, 32, 64, 128)
# Prompts of the sweep over sizes, and of one by one: slow arms get fewer.
SWEPT, ALONE = 128, 16
NEAR = 1e-3


@dataclass(frozen=True)
class Noting(StopCriteria):
    """Keeps the token ids of every answer, end token included."""

    noted: dict[str, list[int]] = field(default_factory=dict)

    def build_prediction(
        self, id: str, tokens_in: int, new: Sequence[int], seconds: float
    ) -> Prediction:
        ended = next((n for n, token in enumerate(new, 1) if token in self.end_tokens), len(new))
        self.noted[id] = list(new[:ended])
        return super().build_prediction(id, tokens_in, new, seconds)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def examples() -> tuple[str, list[Example], list[Example]]:
    """(source, train, test)."""
    root = Path(__file__).parent.parent
    data = Path(os.environ.get("TUNEOFF_DATA") or root.parent / "shared" / "data")
    source = "viggo" if (data / "viggo").is_dir() else "sample"
    settings = TaskConfig(id="functional_representation", source=source)
    splits = task.load(settings, DataPaths(root, data))
    return source, list(splits["train"]), list(splits["test"])


def tuned(train: Sequence[Example], source: str, count: int, folder: Path) -> Any:
    """The shipped base, all its parameters tuned on `count` whole prompts by our trainer; a
    folder that holds it already is loaded."""
    directory = ContenderDir(folder)
    if directory.weights() is None:
        settings = LocalConfig(
            name="tuned",
            id="local",
            base="tiny",
            method="full",
            train=TrainConfig(epochs=1, batch_size=8, learning_rate=1.5e-3),
        )
        folder.mkdir(parents=True, exist_ok=True)
        order = random.Random(0).sample(train, min(count + 32, len(train)))
        template = task.template(TaskConfig(id="functional_representation", source=source))
        tune(settings, str(SHIPPED_BASE_DIR), order[32:], order[:32], template, directory)
    return load_model(str(directory.weights()), "none", torch.float32).eval()


def speed(name: str, prompts: Prompts, arm: Callable[[Prompts], Iterator[Any]]) -> float:
    started = time.perf_counter()
    for _ in arm(prompts):
        pass
    found = len(prompts) / (time.perf_counter() - started)
    say(f"{name}: {found:.2f} examples/s")
    return found


def differences(
    model: Any, prompts: Prompts, ours: dict[str, list[int]], theirs: dict[str, list[int]]
) -> list[dict[str, Any]]:
    """Of every prompt that two arms answer differently: where, and the two best logits' gap
    there, computed by the model on that one sequence without any cache."""
    found = []
    for id, ids in prompts:
        a, b = ours[id], theirs[id]
        if a == b:
            continue
        place = next(n for n in range(len(a)) if a[: n + 1] != b[: n + 1])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids + a[:place]])).logits[0, -1]
        best = logits.topk(2).values
        found.append({"id": id, "token": place, "gap": float(best[0] - best[1])})
    return found


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(arguments.threads)
    source, train, test = examples()
    model = tuned(train, source, arguments.tuned_on, folder)
    tokenizer = load_tokenizer(str(SHIPPED_BASE_DIR))
    template = task.template(TaskConfig(id="functional_representation", source=source))
    chosen = random.Random(1).sample(test, min(arguments.prompts, len(test)))
    prompts = [(e.id, encode_prompt(tokenizer, e, template, "text")) for e in chosen]
    reason = engine_check.explain_unsupported(
        model, [ids for _, ids in prompts], task.MAX_NEW_TOKENS
    )
    assert reason is None, reason
    base = build_stop_criteria(model, tokenizer, ())

    def arm(way: Any, size: int) -> tuple[dict[str, list[int]], Callable[[Prompts], Any]]:
        ending = Noting(base.tokenizer, base.end_tokens, base.stop)
        most = task.MAX_NEW_TOKENS
        return ending.noted, lambda prompts: way(model, ending, prompts, most, size)

    plain = generate.generate_with_transformers
    singly, alone = arm(plain, 1)
    sweep = {
        size: speed(f"generate, batch {size}", prompts[:SWEPT], arm(plain, size)[1])
        for size in arguments.sizes
    }
    best = max(sweep, key=lambda size: sweep[size])
    theirs, batched = arm(plain, best)
    ours, own = arm(engine.generate_with_engine, arguments.batch_size)
    arms = {
        "ours": (prompts, own),
        "generate_best": (prompts, batched),
        "generate_one_by_one": (prompts[:ALONE], alone),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(arguments.repeats):
        for name, (some, way) in arms.items():
            times[name].append(speed(name, some, way))
    medians = {name: statistics.median(found) for name, found in times.items()}
    gaps = differences(model, prompts, ours, theirs)
    gaps_alone = differences(model, prompts[:ALONE], ours, singly)
    lengths = [len(new) for new in ours.values()]
    return {
        "source": source,
        "prompts": len(prompts),
        "threads": arguments.threads,
        "prompt_tokens_mean": statistics.mean(len(ids) for _, ids in prompts),
        "answer_tokens_mean": statistics.mean(lengths),
        "answer_tokens_max": max(lengths),
        "answered_right": sum(
            e.completion.strip() == tokenizer.decode(ours[e.id], skip_special_tokens=True).strip()
            for e in chosen
        ),
        "generate_sweep": sweep,
        "generate_best_batch": best,
        "our_batch": arguments.batch_size,
        "examples_per_second": medians,
        "all_examples_per_second": times,
        "ratio_to_best_batch": medians["ours"] / medians["generate_best"],
        "ratio_to_one_by_one": medians["ours"] / medians["generate_one_by_one"],
        "different_from_best_batch": gaps,
        "different_from_one_by_one": gaps_alone,
        "different_beyond_near_ties": sum(gap["gap"] > NEAR for gap in gaps + gaps_alone),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--tuned-on", type=int, default=1000, help="examples to tune on")
    parser.add_argument("--model", type=Path, help="where the tuned model is kept, or taken from")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(arguments, arguments.model or Path(temporary))
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found["examples_per_second"].items():
        print(f"{name}: {value:.2f} examples/s")
    print(f"ours / generate at its best batch: {found['ratio_to_best_batch']:.2f}")
    print(f"answers that differ beyond near ties: {found['different_beyond_near_ties']}")


if __name__ == "__main__":
    main()
