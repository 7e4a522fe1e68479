"""How large a report gets, how long it takes to build, how much memory, and how soon it is open.

Data set: a made-up run of text-to-SQL, 12 contenders that answered 10,000 test examples (a
question, three tables, a query; wrong answers with both sides' result tables, 500 a contender).
Metric: bytes of report.html and of examples.jsonl beside it; wall and CPU seconds and peak
resident memory of `write_report` in a process of its own, also over a tenth of the examples;
milliseconds until headless Chromium has loaded the page and run its scripts, the median of five
tabs. Promised: under 8 MB, under 20 s, memory flat, open in under 2 s.
Pattern: every score, prediction and example is read from its file; nothing is kept from before.

    python benchmarks/report_size.py --json         about a minute, 0.1 GB of disk
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneoff import environment
from tuneoff.records import LossRow, Prediction, ScoredRow, TrainingRecord, to_dict
from tuneoff.report import recommendation
from tuneoff.results import ContenderResult, Results, Score
from tuneoff.scoring.intervals import compute_wilson_interval
from tuneoff.storage.files import write_lines
from tuneoff.storage.run_dir import RunDir

METRIC = "execution_accuracy"
LIMIT_BYTES, LIMIT_SECONDS, LIMIT_OPEN_MS = 8_000_000, 20, 2_000
# Memory is flat where ten times the examples take no more than this many times as much.
FLAT = 1.25
LEVELS = ("easy", "medium", "hard", "extra")
TABLES = "\n".join(
    f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT, height INTEGER, opened INTEGER, "
    "owner TEXT, valley_id INTEGER REFERENCES valley(id))"
    for name in ("hut", "valley", "warden")
)
BUILD = """
import json, resource, sys, time
from pathlib import Path
from tuneoff.report import write_report
from tuneoff.storage.run_dir import RunDir
began, cpu = time.perf_counter(), time.process_time()
write_report(RunDir(Path(sys.argv[1])))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "seconds": round(time.perf_counter() - began, 1),
    "cpu_seconds": round(time.process_time() - cpu, 1),
    "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),
}))
"""


def query(i: int) -> str:
    return (
        f"SELECT T1.name, T2.name FROM hut AS T1 JOIN valley AS T2 ON T1.valley_id = T2.id WHERE "
        f"T1.height > {i} AND T1.opened < {1800 + i % 200} ORDER BY T1.height DESC LIMIT 5"
    )


def example(i: int) -> dict[str, Any]:
    question = (
        f"Which five huts above {i} metres opened before {1800 + i % 200}, and where are they?"
    )
    return {
        "id": f"example-{i}",
        "inputs": {"question": question, "context": TABLES},
        "completion": query(i),
        "meta": {"db_id": f"huts_{i % 20}"},
    }


def table(rows: int) -> dict[str, Any]:
    shown = [[f"Hut number {j}", f"Valley number {j}"] for j in range(min(rows, 10))]
    columns = ["name", "name"]
    return {"columns": columns, "rows": shown, "column_count": 2, "row_count": rows}


def make(folder: Path, contenders: int, examples: int) -> RunDir:
    """A run directory without its reports; one contender after another, row by row."""
    run, rng = RunDir(folder), random.Random(0)
    run.write_examples("test", map(example, range(examples)))
    groups = ((f"example-{i}", {"hardness": LEVELS[i % 4]}) for i in range(examples))
    run.write_groups(dict(groups))
    made = []
    for place in range(contenders):
        name = f"contender-{place}"
        right = bytearray(rng.random() < 0.9 - 0.06 * place for _ in range(examples))
        write_answers(run, name, right)
        made.append(contender(name, place, right))
    run.write_results(
        Results(
            schema=1, name="large", task="text_to_sql", source="made up", primary_metric=METRIC,
            settings={}, requirements={}, created="2026-11-28T00:00:00+00:00", command="",
            split_sizes={"train": 10_000, "validation": 500, "test": examples},
            content_sha256="0" * 64, database_sha256={}, versions={}, machine="",
            contenders=tuple(made), recommendation=recommendation(made, (), METRIC),
        )
    )  # fmt: skip
    return run


def write_answers(run: RunDir, name: str, right: bytearray) -> None:
    folder = run.contender(name)
    folder.path.mkdir(parents=True)

    def predictions() -> Iterator[dict[str, Any]]:
        for i, ok in enumerate(right):
            said = query(i) if ok else query(i).replace("valley_id", "valey_id").replace("<", "<=")
            yield to_dict(Prediction(f"example-{i}", said, 210, 58, 0.01, "stop"))

    def scores() -> Iterator[dict[str, Any]]:
        for i, ok in enumerate(right):
            verdict = "right" if ok else "no such column: valey_id" if i % 3 else "wrong result"
            found = {METRIC: bool(ok), "exact_match": bool(ok), "valid_format": True}
            yield to_dict(ScoredRow(f"example-{i}", found, verdict))

    write_lines(folder.path / "predictions.jsonl", predictions())
    write_lines(folder.path / "scores.jsonl", scores())
    wrong = [i for i, ok in enumerate(right) if not ok][:500]
    folder.write_details(
        [
            {
                "id": f"example-{i}",
                "reference": table(5),
                "prediction": table(17) if i % 3 else None,
            }
            for i in wrong
        ]
    )


def contender(name: str, place: int, right: bytearray) -> ContenderResult:
    n, count = len(right), sum(right)
    score = Score(count / n, *compute_wilson_interval(count, n), n)
    levels = {
        level: {METRIC: Score(count / n, *compute_wilson_interval(count // 4, n // 4), n // 4)}
        for level in LEVELS
    }
    databases = {
        f"huts_{i}": {
            METRIC: Score(count / n, *compute_wilson_interval(count // 20, n // 20), n // 20)
        }
        for i in range(20)
    }
    return ContenderResult(
        name, "local", "a/base", place="own",
        scores={METRIC: score, "exact_match": score, "valid_format": Score(1, 0.99, 1, n)},
        breakdowns={"hardness": levels, "db_id": databases},
        error_classes={"unknown column": n - count},
        training=TrainingRecord(
            10_000, 3, 900, 1_000_000, 2_000_000 * (place + 1), None, 700_000, 3_600.0, 2**33, 600,
            None, "converged",
        ),
        loss=tuple(LossRow(s, 32 * s, 2 / (1 + s), 2 / (1 + s) + place / 50) for s in range(1, 40)),
    )  # fmt: skip


def measure(contenders: int, examples: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        run = make(Path(folder) / "run", contenders, examples)
        built = json.loads(subprocess.check_output([sys.executable, "-c", BUILD, str(run.path)]))
        page = run.path / "report.html"
        return {
            "contenders": contenders,
            "examples": examples,
            "page_bytes": page.stat().st_size,
            "examples_in_page": page.read_text(encoding="utf-8").count("<article"),
            "beside_bytes": run.all_examples.stat().st_size if run.all_examples.exists() else 0,
            **built,
            "open_ms": opened(page),
        }


def opened(page: Path) -> float | None:
    """Median milliseconds until the load event is over, scripts run; None without Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = []
        for _ in range(5):
            tab = browser.new_page()
            tab.goto(page.as_uri(), wait_until="load")
            tab.locator("#examples-count").wait_for()
            times = "performance.getEntriesByType('navigation')[0]"
            found.append(tab.evaluate(f"{times}.loadEventEnd - {times}.startTime"))
            tab.close()
        browser.close()
    return round(statistics.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--contenders", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="only the JSON document")
    asked = parser.parse_args()
    tenth = measure(asked.contenders, asked.examples // 10)
    whole = measure(asked.contenders, asked.examples)
    growth = whole["peak_memory_bytes"] / tenth["peak_memory_bytes"]
    found = {
        "machine": environment.describe_machine(),
        "tenth": tenth,
        "whole": whole,
        "memory_growth": round(growth, 2),
        "within_limits": {
            "bytes": whole["page_bytes"] < LIMIT_BYTES,
            "seconds": whole["seconds"] < LIMIT_SECONDS,
            "memory": growth < FLAT,
            "open": whole["open_ms"] is not None and whole["open_ms"] < LIMIT_OPEN_MS,
        },
    }
    if not asked.json:
        print(
            f"{whole['page_bytes'] / 1e6:.1f} MB, {whole['seconds']} s, "
            f"{whole['peak_memory_bytes'] / 1e6:.0f} MB of memory ({growth:.2f} times a tenth's), "
            f"open in {whole['open_ms']} ms",
            file=sys.stderr,
        )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
