"""How much a server gains when requests come together, with the base that ships.

Pattern: four LoRA adapters of one base (random ones: speed does not depend on what they
learned), `--requests` streamed chat requests spread over them, with a shared instruction and
`--tokens` new tokens each: one after another, then `--concurrency` at once, against a real
server process on loopback. Then, one after another and in turn, requests that begin with one
long instruction and ones that begin with it and a number of their own before it: the first find its
keys and values kept from the request before, the others are as long and find nothing. In the end
the same requests to one merged model, here and with `transformers serve`
(`against_transformers_serve.py`).
On a machine that others use too, set OMP_NUM_THREADS=1: threads that wait for each other make
every step many times as long there.
Metric: requests/s, seconds to the first token and to the last (p50, p95). Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from against_transformers_serve import against

ADAPTERS = 4
INSTRUCTION = (
    "Write the meaning of the sentence as one record: the kind of thing first, then what is "
    "said about it, each as a name with its value in brackets, in the order of the sentence. "
) * 3
# About 1,100 tokens, as a schema with some examples has.
LONG_INSTRUCTION = INSTRUCTION * 8
# Requests after which a prefix is surely kept.
WARM = 4


class Taken(NamedTuple):
    """Seconds to the first token and to the last, tokens of the answer and of the prompt, and how
    many of the prompt's were kept."""

    first: float
    seconds: float
    tokens: int
    prompt: int
    cached: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--kept", type=int, default=24, help="requests with the long instruction")
    parser.add_argument("--rounds", type=int, default=3, help="of both with transformers serve")
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        names = adapters(Path(folder))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "serve",
                   "--port", str(port), "--data-dir", folder]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            found = measure(port, names, arguments)
        finally:
            process.terminate()
            process.wait()
    with TemporaryDirectory() as folder:
        found["transformers_serve"] = against(
            Path(folder), turns, arguments.requests, arguments.concurrency, arguments.tokens,
            arguments.rounds,
        )  # fmt: skip
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count()
    settings = {**vars(arguments), "adapters": ADAPTERS, "threads": threads}
    print(json.dumps({**settings, **found}, indent=2))


def adapters(data_dir: Path) -> list[str]:
    """Writes adapters where a server's jobs would have left them; their model names."""
    import peft
    import torch

    from tuneoff.models.loading import SHIPPED_BASE_DIR, load_model
    from tuneoff.server.store import Store

    store, names = Store(data_dir), []
    for number in range(ADAPTERS):
        model = load_model(str(SHIPPED_BASE_DIR), "none", torch.float32)
        config = peft.LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
        torch.manual_seed(number)
        job = f"ftjob-{number:012d}"
        peft.get_peft_model(model, config).save_pretrained(store.job_path(job) / "adapter")
        names.append(f"ft:tiny:local::{number:012d}")
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO models (id, created_at, base, job_id) VALUES (?, 0, 'tiny', ?)",
                (names[-1], job),
            )
    return names


def measure(port: int, names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
    wait(client)

    def one(number: int, instruction: str = INSTRUCTION, adapter: int | None = None) -> Taken:
        began = time.perf_counter()
        first, usage = 0.0, None
        for chunk in client.chat.completions.create(
            model=names[(number if adapter is None else adapter) % len(names)],
            messages=turns(number, instruction),
            temperature=0,
            max_tokens=arguments.tokens,
            stream=True,
            stream_options={"include_usage": True},
        ):
            if chunk.choices and chunk.choices[0].delta.content and not first:
                first = time.perf_counter() - began
            usage = chunk.usage or usage
        seconds = time.perf_counter() - began
        cached = usage.prompt_tokens_details.cached_tokens
        return Taken(first, seconds, usage.completion_tokens, usage.prompt_tokens, cached)

    for number in range(len(names)):
        one(number)
    found = {}
    for name, threads in (("one_by_one", 1), ("together", arguments.concurrency)):
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            taken = list(pool.map(one, range(arguments.requests)))
        seconds = time.perf_counter() - began
        found[name] = {
            "requests_per_second": round(arguments.requests / seconds, 2),
            "tokens_per_second": round(sum(each.tokens for each in taken) / seconds, 1),
            "first_token_seconds": spread([each.first for each in taken if each.first]),
            "seconds": spread([each.seconds for each in taken]),
        }
    ratio = found["together"]["tokens_per_second"] / found["one_by_one"]["tokens_per_second"]
    return {**found, "times_as_fast_together": round(ratio, 2), "prefix": kept(one, arguments.kept)}


def turns(number: int, instruction: str = INSTRUCTION) -> list[dict[str, str]]:
    """What is asked."""
    return [
        {"role": "system", "content": instruction},
        {"role": "user", "content": f"The hut number {number} has a stove of tiles."},
    ]


def kept(one: Callable[..., Taken], requests: int) -> dict[str, Any]:
    """Requests in turn whose long instruction was there before, and whose was not."""
    taken: dict[str, list[Taken]] = {"kept": [], "not_kept": []}
    for number in range(requests + WARM):
        taken["kept"].append(one(number, LONG_INSTRUCTION, 0))
        taken["not_kept"].append(one(number, f"{number}. {LONG_INSTRUCTION}", 0))
    found: dict[str, Any] = {}
    for name, every in taken.items():
        warm = every[WARM:]
        found[name] = {
            "prompt_tokens": statistics.median(each.prompt for each in warm),
            "cached_tokens": statistics.median(each.cached for each in warm),
            "first_token_seconds": spread([each.first for each in warm if each.first]),
            "seconds": spread([each.seconds for each in warm]),
        }
    for name, of in (("first_token", "first_token_seconds"), ("answer", "seconds")):
        ratio = found["not_kept"][of]["p50"] / found["kept"][of]["p50"]
        found[f"{name}_times_as_fast"] = round(ratio, 2)
    return found


def wait(client: Any) -> None:
    for _ in range(600):
        try:
            client.models.list()
        except Exception:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server did not start")


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 4),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 4),
    }


if __name__ == "__main__":
    main()
