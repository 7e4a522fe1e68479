"""`tuneoff parity` of two files beside `tuneoff score` of one: what does the second one add?

Data set: ViGGO's test set (TUNEOFF_DATA, or ../shared/data), 1,083 rows, as two invented files of
answers, in which 80 and 79 of 100 are the reference and the others that of another row.
Metric: seconds of wall and of CPU time of each command, process start included; medians of
`--repeats` runs of each, which take turns. Target: a ratio under 2. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
TASK = ("--task", "functional_representation", "--json")
RIGHT = {"old": 0.80, "new": 0.79}


def write_answers(folder: Path) -> dict[str, Path]:
    """Write two files of answers with their references; return them by name."""
    data = Path(os.environ.get("TUNEOFF_DATA") or ROOT.parent / "shared" / "data")
    text = (data / "viggo" / "test.jsonl").read_text(encoding="utf-8")
    references = [json.loads(line)["meaning_representation"] for line in text.splitlines()]
    drawn, files = random.Random(0), {}
    for name, share in RIGHT.items():
        files[name] = folder / f"{name}.jsonl"
        with files[name].open("w", encoding="utf-8") as stream:
            for number, reference in enumerate(references):
                other = references[(7 * number + 3) % len(references)]
                answer = reference if drawn.random() < share else other
                row = {"id": str(number), "reference": reference, "prediction": answer}
                stream.write(json.dumps(row) + "\n")
    return files


def measure(*arguments: object) -> tuple[float, float]:
    """Return the seconds of wall and of CPU time that a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        "-c",
        "from tuneoff.cli.main import main; main()",
        *map(str, arguments),
    ]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON")
    repeats = parser.parse_args().repeats
    with TemporaryDirectory() as made:
        files = write_answers(Path(made))
        commands = {
            "score": ("score", "--predictions", files["old"], *TASK),
            "parity": ("parity", files["old"], files["new"], *TASK),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for command in commands.values():  # files are read once before
            measure(*command)
        for _ in range(repeats):
            for name, command in commands.items():
                taken[name].append(measure(*command))
        rows = sum(1 for _ in files["old"].open())
    found: dict[str, object] = {"rows": rows, "repeats": repeats}
    for place, kind in enumerate(("wall", "cpu")):
        medians = {name: statistics.median(t[place] for t in all) for name, all in taken.items()}
        found[f"{kind}_seconds"] = {name: round(value, 2) for name, value in medians.items()}
        found[f"{kind}_ratio"] = round(medians["parity"] / medians["score"], 2)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
