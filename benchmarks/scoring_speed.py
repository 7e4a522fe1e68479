"""Official-mode scoring of Spider: 1,034 dev pairs, and as many rows as are asked for.

Data set: the official verdicts' pairs (TUNEOFF_DATA, or ../shared/data).
Metric: seconds of wall time, median of `--repeats`; rows per second; peak memory.
Pattern: warm runs reuse the pool of child processes; a cold one is a new Python process that
starts its own. The long run is a process of its own, too, over files of `--rows` and of a
tenth of them: what its parent needs at most should not grow. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.sql.scorer import score_rows

ROOT = Path(__file__).parent.parent
# The official evaluator on these pairs, one process (measured when the verdicts were made).
OFFICIAL_SECONDS = {"execution": 11.8, "execution and set match": 13.4}
METRICS = {
    "execution": ("execution_accuracy",),
    "execution and set match": ("execution_accuracy", "exact_set_match"),
    "every metric": None,
}
COLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
from scoring_speed import official_rows, score
score(official_rows(), {metrics!r}, {workers})
"""
LONG = """
import json, time
from pathlib import Path
from tuneoff.bakeoff.score import ScoreOptions, score_file
how = ScoreOptions(databases={databases!r}, mode="official", workers={workers})
began = time.perf_counter()
found = score_file("text_to_sql", {rows!r}, how, {out!r})
# getrusage would also count the process that started this one.
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1]
print(json.dumps({{
    "rows": found["n"],
    "seconds": round(time.perf_counter() - began, 2),
    "parent_peak_bytes": int(peak.split()[0]) * 1024,
    "execution_accuracy": found["scores"]["execution_accuracy"]["value"],
}}))
"""


def data() -> Path:
    return Path(os.environ.get("TUNEOFF_DATA") or ROOT.parent / "shared" / "data") / "spider"


def official_rows() -> list[ScoringInput]:
    lines = (data() / "official_verdicts_sample.jsonl").read_text(encoding="utf-8").splitlines()
    verdicts = [json.loads(line) for line in lines]
    return [
        ScoringInput(str(v["index"]), v["gold"], v["pred"], {"db_id": v["db_id"]}) for v in verdicts
    ]


def score(rows: list[ScoringInput], metrics: tuple[str, ...] | None, workers: int) -> int:
    options = Options(data() / "databases", mode="official", workers=workers, metrics=metrics)
    return sum(1 for _ in score_rows(rows, options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000, help="of the long run; 0: none")
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON")
    arguments = parser.parse_args()
    rows = official_rows()
    found: dict[str, Any] = {
        "workers": arguments.workers, "pairs": len(rows), "official_seconds": OFFICIAL_SECONDS,
        "warm_seconds": {}, "cold_seconds": {},
    }  # fmt: skip
    for name, metrics in METRICS.items():
        score(rows, metrics, arguments.workers)
        found["warm_seconds"][name] = median(
            lambda m=metrics: score(rows, m, arguments.workers), arguments.repeats
        )
        code = COLD.format(
            folder=str(Path(__file__).parent), metrics=metrics, workers=arguments.workers
        )
        found["cold_seconds"][name] = median(lambda c=code: run(c), arguments.repeats)
    found["times_as_fast_as_official"] = {
        name: round(seconds / found["warm_seconds"][name], 1)
        for name, seconds in OFFICIAL_SECONDS.items()
    }
    found["parsing_seconds"] = parsing(rows, arguments.repeats)
    if arguments.rows:
        found["long"] = [
            long_run(rows, number, arguments.workers)
            for number in (arguments.rows // 10, arguments.rows)
        ]
    print(json.dumps(found, indent=2))


def parsing(rows: list[ScoringInput], repeats: int) -> dict[str, float]:
    """Every reference and prediction, read by Spider's grammar and by sqlglot, in one process."""
    from tuneoff.scoring.sql import normal_form, spider_parser
    from tuneoff.scoring.sql.sandbox import connect

    folder = data() / "databases"
    columns = {
        id: connect(str(folder / id / f"{id}.sqlite")).columns.by_table
        for id in {str(row.meta["db_id"]) for row in rows}
    }
    texts = [
        (text, columns[str(row.meta["db_id"])])
        for row in rows
        for text in (row.reference, row.prediction)
    ]

    def read(parse: Callable[..., object], *more: int) -> None:
        for text, names in texts:
            with contextlib.suppress(ValueError):
                parse(text, *(names for _ in more))

    return {
        "Spider's grammar": median(lambda: read(spider_parser.parse_spider, 1), repeats),
        "sqlglot": median(lambda: read(normal_form.parse_query), repeats),
    }


def median(action: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken), 3)


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def long_run(rows: list[ScoringInput], number: int, workers: int) -> dict[str, Any]:
    """The pairs over and over, each time with ids of their own, every metric."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for index in range(number):
                row = rows[index % len(rows)]
                stream.write(
                    json.dumps({
                        "id": str(index), "reference": row.reference,
                        "prediction": row.prediction, "meta": dict(row.meta),
                    })
                    + "\n"
                )  # fmt: skip
        code = LONG.format(
            databases=str(data() / "databases"), workers=workers, rows=str(path),
            out=str(Path(folder) / "scores.jsonl"),
        )  # fmt: skip
        found: dict[str, Any] = json.loads(run(code))
    return {**found, "rows_per_second": round(found["rows"] / found["seconds"])}


if __name__ == "__main__":
    main()
