"""How a server stands eight prompts of 5 MB at once, which fit no model here.

Pattern: against a real server process on loopback, with the base that ships (2,048 positions) and
with a random one of its tokenizer and 131,072 positions: `--prompts` chat requests at once, each
with one content of `--megabytes`, and meanwhile one small chat after another. Contents of several
kinds (words, one line without blanks, blanks, emoji, CJK, and words in as many turns as a body may
have): `--rounds` of each.
Metric: of a round, the seconds until the last of the long ones had its 400 and the longest that a
small chat took; of the process, how far its memory rose above what it was before (sampled 100 times
a second). Prints one JSON document. The limits that the server is to keep (words, quiet machine):
2 s, 1 s, 300 MB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

LONG_POSITIONS = 131_072
SAMPLE_SECONDS = 0.01
MOST_TURNS = 4_096
WORDS = "The hut number 17 has a stove of tiles, and nobody knows (really) what it costs. "
KINDS = {
    "words": WORDS, "no_blanks": "abcdefghijklmnopqrstuvwxyz0123456789", "blanks": " ",
    "emoji": "😀🏔️", "cjk": "山小屋的炉子", "turns": WORDS,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--note", default="", help="about the machine, kept in the output")
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        **vars(arguments), "cores": os.cpu_count(), "machine": platform.machine(), "bases": {},
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        for positions, base in bases(Path(folder)):
            with served(Path(folder) / f"data-{positions}", base) as (port, process):
                found["bases"][str(positions)] = measure(port, process, base, arguments)
    print(json.dumps(found, indent=2))


def bases(folder: Path) -> Iterator[tuple[int, str]]:
    """Positions and `--base` of the base that ships, and of a random one with long positions."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from tuneoff.models.loading import SHIPPED_BASE_DIR

    config = AutoConfig.from_pretrained(SHIPPED_BASE_DIR)
    yield config.max_position_embeddings, "tiny"
    long = folder / "long"
    shutil.copytree(SHIPPED_BASE_DIR, long)
    config.update({"max_position_embeddings": LONG_POSITIONS, "num_hidden_layers": 1,
                   "hidden_size": 64, "intermediate_size": 64})  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(long)
    yield LONG_POSITIONS, str(long)


@contextmanager
def served(data_dir: Path, base: str) -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server, which is ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "serve", "--port",
               str(port), "--data-dir", str(data_dir), "--base", base]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if asked(port, "GET", "/health")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("the server did not start")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def asked(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, float]:
    """Status, decoded answer, and seconds of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(text), time.perf_counter() - began


def chat(port: int, model: str, messages: list[dict[str, str]]) -> tuple[int, Any, float]:
    body = {"model": model, "messages": messages, "max_tokens": 2, "temperature": 0}
    return asked(port, "POST", "/v1/chat/completions", json.dumps(body).encode())


def measure(port: int, process: psutil.Process, base: str, arguments: Any) -> dict[str, Any]:
    """All kinds, after a first chat, which loads the base, and one long prompt."""
    model = Path(base).name
    small = [{"role": "user", "content": "Is 3 a number?"}]
    assert chat(port, model, small)[0] == 200
    assert long_one(port, body_of(model, "words", 100_000 if base == "tiny" else 3_000_000)) > 0
    found = {}
    for kind in arguments.kinds:
        body = body_of(model, kind, int(arguments.megabytes * 1e6))
        rounds = [one_round(port, process, model, body, arguments.prompts)
                  for _ in range(arguments.rounds)]  # fmt: skip
        found[kind] = {
            "body_bytes": len(body),
            "last_400_seconds": spread([each[0] for each in rounds]),
            "small_chat_seconds": spread([each[1] for each in rounds]),
            "memory_megabytes": spread([each[2] / 1e6 for each in rounds]),
        }
    return found


def body_of(model: str, kind: str, size: int) -> bytes:
    """A chat request of about so many bytes."""
    text, turns = KINDS[kind], MOST_TURNS if kind == "turns" else 1
    content = text * (size // turns // len(text.encode()))
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": content} for turn in range(turns)]
    body = {"model": model, "messages": messages, "max_tokens": 2}
    return json.dumps(body, ensure_ascii=False).encode()


def long_one(port: int, body: bytes) -> float:
    """Seconds until a long prompt was refused."""
    status, answer, seconds = asked(port, "POST", "/v1/chat/completions", body)
    assert status == 400, (status, answer)
    assert answer["error"]["code"] == "context_length_exceeded", answer
    return seconds


def one_round(
    port: int, process: psutil.Process, model: str, body: bytes, prompts: int
) -> tuple[float, float, int]:
    """Seconds of the last long prompt and of the slowest small chat, and bytes of memory more."""
    before = process.memory_info().rss
    most, ended = before, threading.Event()
    chats: list[float] = []

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, process.memory_info().rss)
            time.sleep(SAMPLE_SECONDS)

    def chatting() -> None:
        while not ended.is_set():
            status, answer, seconds = chat(port, model, [{"role": "user", "content": "a"}])
            assert status == 200, answer
            chats.append(seconds)

    with ThreadPoolExecutor(prompts + 2) as pool:
        beside = [pool.submit(watch), pool.submit(chatting)]
        long = [pool.submit(long_one, port, body) for _ in range(prompts)]
        try:
            seconds = max(each.result() for each in long)
        finally:
            ended.set()
        for each in beside:
            each.result()
    return seconds, max(chats), most - before


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "most": round(max(values), 3)}


if __name__ == "__main__":
    main()
