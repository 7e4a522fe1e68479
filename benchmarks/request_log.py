"""`tuneoff import` of request logs of 10,000 and of 100,000 requests.

Data set: generated requests with their responses, as a proxy logs them: some 900 characters
each, of 500 users over 60 days; a tenth repeat an earlier one, some have another answer, an error,
a cut-off answer, tool calls, a mail address, a phone number or a line that is no JSON.
Metric: seconds of wall time and peak resident memory of the whole command, in a process of its
own; rows a second; the ratio of the two peaks. Promised: 100,000 under 60 s, with flat memory.
Pattern: one file per size; every request must be counted once, as a row that was
written or by the reason why it was not.

    python benchmarks/request_log.py --json            under two minutes, 0.5 GB of disk
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIZES = (10_000, 100_000)
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
LIMIT_SECONDS, LIMIT_RATIO = 60, 1.2
START = 1_790_000_000
SYSTEM = (
    "You answer questions about a shop's orders in one short sentence, name the order, and never "
    "promise a day of delivery."
)
WORDS = (
    "order", "parcel", "invoice", "refund", "customer", "address", "voucher", "return", "payment",
    "delivery", "check", "cancel", "change", "find", "confirm", "repeat", "send", "move", "late",
    "explain", "track", "broken", "blue", "large", "second", "wrong",
)  # fmt: skip


def write_log(file: Path, requests: int) -> None:
    """Writes a log whose rows differ in length and in what is wrong with them."""
    drawer = random.Random(0)
    asked: list[str] = []
    with file.open("w", encoding="utf-8") as stream:
        for number in range(requests):
            if number % 1_000 == 999:
                stream.write('{"request": {"messages"\n')
                continue
            if asked and drawer.random() < 0.1:
                question = drawer.choice(asked)
            else:
                words = drawer.choices(WORDS, k=drawer.randrange(40, 160))
                question = f"Order {number}: {' '.join(words)}?"
                if drawer.random() < 0.02:
                    question += f" Write to customer{number}@shop-{number % 7}.com."
                if drawer.random() < 0.02:
                    question += f" Call +49 30 {1_000_000 + number}."
                asked = [*asked[-999:], question]
            stream.write(json.dumps(make_row(drawer, number, question, requests)) + "\n")


def make_row(drawer: random.Random, number: int, question: str, requests: int) -> dict[str, Any]:
    """Returns a row of a proxy's log."""
    chance = drawer.random()
    message: dict[str, Any] = {"role": "assistant", "content": f"It is on its way: {number % 97}."}
    if chance < 0.01:
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function"}]}
    response: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "model": "ft:gpt-4.1-mini-2025-04-14:shop::abc",
        "choices": [
            {"index": 0, "message": message, "finish_reason": "length" if chance > 0.99 else "stop"}
        ],
        "usage": {"prompt_tokens": 120, "completion_tokens": 12, "total_tokens": 132},
    }
    failed = 0.01 <= chance < 0.02
    return {
        "id": f"req_{number}",
        "timestamp": START + number * 60 * 86_400 // requests,
        "status_code": 429 if failed else 200,
        "user": f"user-{drawer.randrange(500)}",
        "request": {
            "model": "ft:gpt-4.1-mini-2025-04-14:shop::abc",
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": question},
            ],
            "temperature": 0.0,
        },
        "response": {"error": {"message": "slow down"}} if failed else response,
    }


def measure(folder: Path, requests: int) -> dict[str, Any]:
    """Imports a log of so many requests in a process of its own, and returns what that took."""
    log, out = folder / f"{requests}.jsonl", folder / f"out-{requests}"
    write_log(log, requests)
    cli = "from tuneoff.cli.main import main; main()"
    command = [sys.executable, "-c", cli, "import", str(log), "--out", str(out), "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if process.returncode != 0:
        raise SystemExit(f"the import ended with {process.returncode}")
    reasons = [*found["left_out"].values(), *found["unreadable"].values()]
    left_out = sum(found["repeats"].values()) + sum(reason["rows"] for reason in reasons)
    if found["split"]["train"] + found["split"]["test"] + left_out != requests:
        raise SystemExit("not every request was counted once")
    return {
        "requests": requests,
        "log_mb": round(log.stat().st_size / 1e6, 1),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "rows_per_second": round(requests / seconds),
        "peak_mb": round(usage.ru_maxrss * MAXRSS_UNIT / 1e6, 1),
        "train": found["split"]["train"],
        "test": found["split"]["test"],
        "left_out": left_out,
    }


def main() -> None:
    """Prints one JSON document, and a verdict without `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        small, large = (measure(Path(name), size) for size in SIZES)
    ratio = round(large["peak_mb"] / small["peak_mb"], 3)
    kept = large["seconds"] < LIMIT_SECONDS and ratio < LIMIT_RATIO
    print(json.dumps({"logs": [small, large], "ratio_of_peaks": ratio, "kept": kept}, indent=2))
    if not options.json:
        print("as promised" if kept else "NOT as promised")


if __name__ == "__main__":
    main()
