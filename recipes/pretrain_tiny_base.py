"""Trains and exports the tiny base that ships with tuneoff: one command, from nothing.

    python recipes/pretrain_tiny_base.py --work work/tiny-base --export src/tuneoff/assets/tiny-base

The same command again goes on from the last checkpoint, step for step as if never stopped. A file
named STOP in the work folder ends it at the next step with a checkpoint. The learning rate warms
up, stays, and falls to zero over the last `--decay` of `--steps`; --steps may change between calls,
so a run can be finished early. `--snapshot` exports the averaged weights of the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from tiny_base import mix
from tiny_base.batches import batches
from tiny_base.evaluate import exact_match
from tiny_base.export import export
from tiny_base.model import Shape, TinyLlama
from tiny_base.start import prepare
from tiny_base.tokenizer import train as train_tokenizer

SEED = 20261123
FAMILIES = ("copying", "records", "sql")
AVERAGE = 0.997  # of the moving average of the weights


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("work/tiny-base"))
    parser.add_argument("--export", type=Path, default=None)
    parser.add_argument("--resume", type=Path, default=None, help="a checkpoint of another folder")
    parser.add_argument("--snapshot", action="store_true", help="only export the last checkpoint")
    parser.add_argument("--steps", type=int, default=2190)
    parser.add_argument("--decay", type=int, default=400)
    parser.add_argument("--early", type=int, default=300, help="steps of short, copying documents")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint-minutes", type=float, default=3)
    parser.add_argument("--evaluate-minutes", type=float, default=5)
    return parser.parse_args()


def tokenizer_in(work: Path) -> Tokenizer:
    """The tokenizer of the work folder, trained on first use."""
    path = work / "tokenizer.json"
    if not path.exists():
        texts = ("".join(t for t, _ in mix.document(SEED - 1, i)) for i in range(40_000))
        train_tokenizer(texts, Shape().vocab).save(str(path))
    return Tokenizer.from_file(str(path))


def optimizers_for(model: TinyLlama, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    inner = [p for p in model.blocks.parameters() if p.ndim == 2]
    outer = [model.embed, model.norm, *(p for p in model.blocks.parameters() if p.ndim < 2)]
    muon = torch.optim.Muon(
        inner, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(outer, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)]


def rate(step: int, a: argparse.Namespace) -> float:
    """The learning rate's factor: warm up, stay, fall."""
    return float(min((step + 1) / 100, 1.0, max(a.steps - step, 0) / a.decay))


def save(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def main() -> None:
    a = arguments()
    torch.set_flush_denormal(True)
    torch.set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    latest = a.work / "checkpoint.pt"
    tokenizer = tokenizer_in(a.work)
    torch.manual_seed(SEED)
    model = TinyLlama(Shape())
    prepare(model)
    optimizers = optimizers_for(model, a.lr)
    average = {k: v.detach().clone() for k, v in model.named_parameters()}
    done = {"step": 0, "tokens": 0, "supervised": 0, "seconds": 0.0}
    source = latest if latest.exists() else a.resume
    if source:
        state = torch.load(source, weights_only=False)
        model.load_state_dict(state["model"])
        average, done = state["average"], state["done"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    if a.snapshot:
        model.load_state_dict(average, strict=False)
        export(model, tokenizer, a.export, done)
        return

    def checkpoint() -> None:
        states = [o.state_dict() for o in optimizers]
        everything = {"model": model.state_dict(), "average": average, "optimizers": states}
        save(latest, {**everything, "done": dict(done)})

    def log(**row: Any) -> None:
        row = {"step": done["step"], "tokens": done["tokens"], **row}
        print(json.dumps(row), flush=True)
        with (a.work / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    loss_of = torch.compile(model.loss, dynamic=False)
    begun, saved_at, tested_at = time.time(), time.time(), time.time()
    before, losses, tokens_then = done["seconds"], [], done["tokens"]
    then = time.time()
    for batch in batches(tokenizer, SEED, int(done["step"]), a.early):
        if done["step"] >= a.steps or (a.work / "STOP").exists():
            break
        factor = rate(int(done["step"]), a)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = a.lr * factor
        loss = loss_of(batch.tokens, batch.places, batch.targets, batch.mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                average[name].lerp_(parameter, 1 - AVERAGE)
        losses.append(loss.item())
        done["step"] += 1
        done["tokens"] += batch.tokens.numel()
        done["supervised"] += int((batch.targets >= 0).sum())
        done["seconds"] = before + time.time() - begun
        if done["step"] % 50 == 0:
            speed = (done["tokens"] - tokens_then) / (time.time() - then)
            log(
                loss=round(sum(losses) / len(losses), 4),
                lr=a.lr * factor,
                tokens_per_second=round(speed),
                supervised=done["supervised"],
                seconds=round(done["seconds"]),
            )
            losses, tokens_then, then = [], done["tokens"], time.time()
        if time.time() - tested_at > 60 * a.evaluate_minutes:
            log(exact_match={f: exact_match(model, tokenizer, f, 60) for f in FAMILIES})
            tested_at = time.time()
        if time.time() - saved_at > 60 * a.checkpoint_minutes:
            checkpoint()
            saved_at = time.time()
    checkpoint()
    log(exact_match={f: exact_match(model, tokenizer, f, 200) for f in FAMILIES})
    if a.export and done["step"] >= a.steps:
        export(model, tokenizer, a.export, done)


if __name__ == "__main__":
    main()
