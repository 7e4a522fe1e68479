"""`tuneoff plan` over a million chat examples of at most 100 tokens.

Data set: generated chat examples (system, user, assistant), 60 to 100 tokens as billed.
Metric: seconds of wall time (and of CPU, which other work does not lengthen) and peak resident
memory of the whole command, in a process of its own; tokens counted a second. Promised: under
120 s on two cores, and under 500 MB.
Pattern: one file, so that test and validation are carved out of it, too; a hosted contender,
whose bill is counted to the last example. `--local` adds an open one (torch is loaded then).

    python benchmarks/plan_speed.py --json          about a minute and a half, 0.4 GB of disk
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

LIMIT_SECONDS, LIMIT_BYTES, LONGEST = 120, 500_000_000, 100
SYSTEM = "You answer questions about a shop's orders in one short sentence and name the order."
NOUNS = [
    "order",
    "parcel",
    "invoice",
    "refund",
    "customer",
    "address",
    "voucher",
    "return",
    "delivery",
    "payment",
]
VERBS = [
    "check",
    "cancel",
    "change",
    "find",
    "confirm",
    "repeat",
    "send",
    "move",
    "explain",
    "track",
]


def write(file: Path, examples: int) -> None:
    """Examples that differ in their questions and lengths."""
    drawer = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for i in range(examples):
            words = drawer.choices(NOUNS, k=drawer.randrange(8, 36))
            turns = [
                {"role": "system", "content": SYSTEM},
                {
                    "role": "user",
                    "content": f"Please {drawer.choice(VERBS)} {i}: {' '.join(words)}",
                },
                {"role": "assistant", "content": f"The {words[0]} {i} is on its way."},
            ]
            stream.write(json.dumps({"messages": turns}) + "\n")


def measure(examples: int, local: bool) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        write(Path(folder) / "train.jsonl", examples)
        own = "  - {name: own, id: local}\n" if local else ""
        file = Path(folder) / "b.yaml"
        file.write_text(
            "name: x\ntask: {id: chat, train: train.jsonl}\ncontenders:\n"
            f"  - {{name: hosted, id: hosted, model: gpt-4.1-mini-2025-04-14}}\n{own}"
        )
        cli = "from tuneoff.cli.main import main; main()"
        command = [sys.executable, "-c", cli, "plan", str(file), "--json", "--no-measure"]
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - began
    training = json.loads(done.stdout)["contenders"][0]["training"]
    # Of the largest child, which this one is.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "examples": examples,
        "local_contender": local,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "tokens_per_epoch": training["tokens_per_epoch"],
        "tokens_per_second": round(training["tokens_per_epoch"] / seconds),
        "mean_tokens": round(training["tokens_per_epoch"] / training["examples"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--local", action="store_true", help="add an open model")
    parser.add_argument("--json", action="store_true", help="only the JSON document")
    asked = parser.parse_args()
    found = measure(asked.examples, asked.local)
    found["within_limits"] = (
        found["seconds"] < LIMIT_SECONDS and found["peak_memory_bytes"] < LIMIT_BYTES
    )
    if not asked.json:
        print(f"{found['seconds']} s, {found['peak_memory_bytes'] / 1e6:.0f} MB", file=sys.stderr)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
