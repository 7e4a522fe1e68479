"""`tuneoff serve` and transformers' own `transformers serve` at the same work, one after another.

Pattern: one merged model (the shipped base with a random adapter in it) in a local folder, with
a chat template that renders as ours does a base without one, so that both compute the same tokens;
the same greedy streamed requests to a real process of each on loopback, in float32 and with
the same limit of threads. `transformers serve` answers one request after another, or, with
`--continuous-batching`, several at a time; both are measured.
Metric: tokens/s one by one and together, medians over the rounds, and how many answers are equal.
The servers are measured one after another, each in all its rounds: on a machine that others use,
the values by round say how far a ratio can be trusted.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for turn in messages %}### {{ turn['role'] | capitalize }}:\n{{ turn['content'] }}\n\n"
    "{% endfor %}### Assistant:\n"
)
# Answers before anything is measured: continuous batching takes most of a minute for its first.
WARM = 4
START_SECONDS = 180
# (requests at a time) -> answers and seconds
Asked = Callable[[int], tuple[list[tuple[str, int]], float]]


def merged(folder: Path) -> Path:
    """The model that both serve."""
    import peft
    import torch
    from transformers import AutoTokenizer

    from tuneoff.models.loading import SHIPPED_BASE_DIR, load_model

    torch.manual_seed(0)
    config = peft.LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
    model: Any = peft.get_peft_model(
        load_model(str(SHIPPED_BASE_DIR), "none", torch.float32), config
    )
    model.merge_and_unload().save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED_BASE_DIR))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def running(command: list[str], log: Path) -> Iterator[int]:
    """The port of a server that answers; it is ended afterwards.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=stream, stderr=stream, env=environment
        )
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    lines = log.read_text(errors="replace").strip().splitlines()
                    raise RuntimeError(lines[-1] if lines else "it did not start") from None
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def asking(port: int, model: str, requests: int, messages: Any, tokens: int) -> Asked:
    """Has all requests answered, some at a time."""
    import openai

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)

    def one(number: int) -> tuple[str, int]:
        text, usage = "", None
        # `transformers serve` knows no stream_options, and tells the usage in any case.
        options: Any = {"stream_options": {"include_usage": True}} if model == "merged" else {}
        for chunk in client.chat.completions.create(
            model=model, messages=messages(number), temperature=0, max_tokens=tokens, stream=True,
            **options,
        ):  # fmt: skip
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
        return text, usage.completion_tokens

    def every(at_a_time: int) -> tuple[list[tuple[str, int]], float]:
        began = time.perf_counter()
        with ThreadPoolExecutor(at_a_time) as pool:
            found = list(pool.map(one, range(requests)))
        return found, time.perf_counter() - began

    for number in range(WARM):
        one(number)
    return every


def against(
    folder: Path, messages: Any, requests: int, concurrency: int, tokens: int, rounds: int
) -> dict[str, Any]:
    """Both at the same requests; `skipped` says why there is nothing to compare.

    Args:
        messages: gives the turns of a request by its number.
    """
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        return {"skipped": "transformers serve lacks packages: pip install transformers[serving]"}
    model = merged(folder / "merged")
    ours = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "serve",
            "--base", str(model), "--data-dir", str(folder / "data")]  # fmt: skip
    theirs = [sys.executable, "-c", "from transformers.cli.transformers import main; main()",
              "serve", str(model), "--host", "127.0.0.1", "--device", "cpu",
              "--dtype", "float32"]  # fmt: skip
    found: dict[str, Any] = {"version": version("transformers"), "rounds": rounds}
    texts: dict[str, list[str]] = {}
    for name, command, known in (
        ("tuneoff", ours, "merged"),
        ("transformers", theirs, str(model)),
        ("transformers_continuous_batching", [*theirs, "--continuous-batching"], str(model)),
    ):
        try:
            with running(command, folder / f"{name}.log") as port:
                ask = asking(port, known, requests, messages, tokens)
                found[name], texts[name] = measured(ask, concurrency, rounds)
        except Exception as error:
            found[name] = {"skipped": (str(error) or type(error).__name__).splitlines()[0]}
    for name in texts:
        if name != "tuneoff" and "tuneoff" in texts:
            for mode in ("one_by_one", "together"):
                rates = [found[n][mode]["tokens_per_second"] for n in ("tuneoff", name)]
                found[name][mode]["tuneoff_times_as_fast"] = round(rates[0] / rates[1], 2)
            equal = sum(a == b for a, b in zip(texts["tuneoff"], texts[name], strict=True))
            found[name]["equal_answers"] = equal
    return found


def measured(ask: Asked, concurrency: int, rounds: int) -> tuple[dict[str, Any], list[str]]:
    """Medians of both ways to ask, and the texts of one by one."""
    rates: dict[str, list[float]] = {"one_by_one": [], "together": []}
    texts = list[str]()
    for _ in range(rounds):
        for mode, at_a_time in (("one_by_one", 1), ("together", concurrency)):
            answers, seconds = ask(at_a_time)
            rates[mode].append(sum(count for _, count in answers) / seconds)
            if mode == "one_by_one":
                texts = [text for text, _ in answers]
    return {
        mode: {
            "tokens_per_second": round(statistics.median(each), 1),
            "tokens_per_second_by_round": [round(rate, 1) for rate in each],
        }
        for mode, each in rates.items()
    }, texts


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    from serve_throughput import turns

    with TemporaryDirectory() as place:
        print(json.dumps(against(Path(place), turns, 64, 64, 40, 3), indent=2))
