"""Reads a run directory, and counts the figures that agree with its results.json."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from recomputing import money


class BadInput(Exception):
    """One sentence: what is wrong, where, what to do."""


# --- figures held against each other ------------------------------------------------------------


@dataclass
class Findings:
    """Counts by kind of figure, the disagreements, and what could not be made again."""

    compared: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)
    not_made: Counter = field(default_factory=Counter)

    def hold(self, kind, where, reported, own):
        """Count a figure, or each of a dict or list of them, and keep it if it disagrees."""
        if isinstance(own, dict):
            for key, value in own.items():
                of = reported.get(key, "missing") if isinstance(reported, dict) else reported
                self.hold(kind, f"{where}.{key}", of, value)
        elif isinstance(own, (list, tuple)) and isinstance(reported, list):
            self.hold(kind, f"{where}.length", len(reported), len(own))
            for place, (one, other) in enumerate(zip(reported, own, strict=False)):
                self.hold(kind, f"{where}[{place}]", one, other)
        else:
            self.compared[kind] += 1
            if not agree(reported, own):
                self.wrong.append(
                    {"kind": kind, "where": where, "reported": reported, "recomputed": own}
                )

    def count_wrong(self):
        return dict(Counter(each["kind"] for each in self.wrong))

    def agreeing(self):
        return self.compared.total() - len(self.wrong)


def agree(one, other):
    numbers = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in (one, other)]
    if all(numbers):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


# --- the run ------------------------------------------------------------------------------------


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise BadInput(f"{path}: this is not JSON ({error}); make the report again.") from None


def read_lines(path):
    """The rows of a JSON-lines file; a last line that was cut by a kill is none."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError:
            if number < len(lines):
                raise BadInput(f"{path}, line {number}: this is not JSON.") from None
    return rows


@dataclass
class Training:
    """What one training of a contender left in its folder; `samples` answers to each example."""

    folder: Path
    fraction: float = 1.0
    samples: int = 1

    def __post_init__(self):
        self.record = read_json(self.folder / "training.json")
        self.serving = read_json(self.folder / "serving.json")
        kept = {}
        for row in read_lines(self.folder / "predictions.jsonl"):
            kept.setdefault((row["id"], row.get("sample", 0)), row)
        self.answers_held = len(kept)
        self.answers = [
            {id: row for (id, sample), row in kept.items() if sample == k}
            for k in range(self.samples)
        ]
        rows = read_lines(self.folder / "scores.jsonl")
        self.by_sample = [
            {row["id"]: row for row in rows if row.get("sample", 0) == k}
            for k in range(self.samples)
        ]
        self.average()

    def average(self):
        """Makes `rows`, the means over the samples of the examples that all of them have."""
        first, *others = self.by_sample
        self.rows = first
        if others:
            ids = [id for id in first if all(id in of for of in others)]
            self.rows = {id: average_rows([of[id] for of in self.by_sample]) for id in ids}

    def answered(self):
        return [row for of in self.answers for row in of.values() if row.get("error") is None]

    def losses(self):
        return read_lines(self.folder / "loss.jsonl")

    def answering_seconds(self):
        answers = [row for of in self.answers for row in of.values()]
        known = [row["seconds"] for row in answers if row.get("seconds")]
        return sum(known) if known else None

    def times_answered(self):
        """How often an example was answered on average; samples that no longer count were paid."""
        return self.answers_held / len(self.answers[0]) if self.answers[0] else 1.0


def average_rows(rows):
    """The mean of one example's answers; of a metric that some of them lack, of the others."""
    values = defaultdict(list)
    for row in rows:
        for metric, value in row["scores"].items():
            values[metric].append(float(value))
    scores = {metric: math.fsum(each) / len(each) for metric, each in values.items()}
    return rows[0] | {"scores": scores}


class Contender:
    """A contender's settings, its result, and its trainings: on all examples first (one, or one a
    seed), then on parts."""

    def __init__(self, run, settings, result):
        self.settings, self.result, self.name = settings, result, settings["name"]
        self.folder = run / "contenders" / self.name
        local = settings["id"] == "local"
        seeds = (settings.get("seeds") if local else None) or []
        parts = [f for f in (settings.get("learning_curve") if local else None) or [] if f < 1]
        self.samples = result.get("samples", 1)
        whole = [Training(self.folder / f"seed-{seed}") for seed in seeds]
        self.whole = whole or [Training(self.folder, samples=self.samples)]
        self.parts = [Training(self.folder / f"part-{f}", f) for f in parts]
        self.trainings = [*self.whole, *self.parts]
        self.is_paid = settings["id"] == "hosted" or (
            settings["id"] == "prompted" and settings.get("model") is not None
        )
        self.reported = settings.get("scores")

    def scores(self, metric):
        """{id: mean over the seeds} of the rows that every seed has."""
        found = {}
        for id, row in self.whole[0].rows.items():
            rows = [row, *(t.rows[id] for t in self.whole[1:] if id in t.rows)]
            if len(rows) == len(self.whole) and all(metric in r["scores"] for r in rows):
                found[id] = sum(float(r["scores"][metric]) for r in rows) / len(rows)
        return found

    def by_seed(self, metric):
        """The same of each seed; nothing for a single one."""
        of = self.scores(metric) if len(self.whole) > 1 else {}
        return [{id: float(t.rows[id]["scores"][metric]) for id in of} for t in self.whole if of]

    def planned(self):
        """What one training was planned to cost when the run began."""
        return (read_json(self.folder / "planned.json") or {}).get("training_usd")


class Run:
    """A run directory; rows that cannot be used are dropped from every contender."""

    def __init__(self, path):
        self.path = path
        self.results = read_json(path / "results.json") if path.is_dir() else None
        if self.results is None:
            raise BadInput(f"{path}: there is no results.json; give the folder of a finished run.")
        tests = (self.results.get("rules") or {}).get("tests")
        if self.results.get("schema") != 1 or tests != 2:
            raise BadInput(
                f"{path}: its tests are of version {tests or 1} (rules.tests), not 2; carry "
                "out `tuneoff run` with the run's file again, which computes them anew."
            )
        self.settings, self.task = self.results["settings"], self.results["settings"]["task"]
        self.metric = self.results["primary_metric"]
        self.test = read_lines(path / "data" / "test.jsonl")
        if not self.test:
            raise BadInput(f"{path}: there is no data/test.jsonl; give the whole run directory.")
        self.events = read_lines(path / "events.jsonl")
        self.ledger = money.Ledger(self.events)
        of = {result["name"]: result for result in self.results["contenders"]}
        self.contenders = [Contender(path, s, of[s["name"]]) for s in self.settings["contenders"]]
        self.baselines = [
            (result, Training(path / "baselines" / result["name"].replace(" ", "-")))
            for result in self.results.get("baselines", ())
        ]
        known = {row["id"]: row["groups"] for row in read_lines(path / "data" / "groups.jsonl")}
        self.groups = {e["id"]: {**e["meta"], **known.get(e["id"], {})} for e in self.test}
        in_file = self.task.get("cluster") or next(
            (pair["cluster"] for pair in self.results["comparisons"]), None
        )
        self.cluster = in_file or ("db_id" if self.task["id"] == "text_to_sql" else None)
        self.clusters = None
        if self.cluster:
            self.clusters = {e["id"]: str(e["meta"][self.cluster]) for e in self.test}

    def trainings(self):
        """Everything that has rows: each training of each contender, and the baselines."""
        yield from (training for c in self.contenders for training in c.trainings)
        yield from (training for _, training in self.baselines)

    def clusters_of(self, ids):
        return [self.clusters[id] for id in ids] if self.clusters else None

    def priced(self, name):
        """Whether results.json has the prices that a contender's costs are of."""
        of = {contender.name: contender.result["cost"] for contender in self.contenders}
        return bool(of[name].get("unit_prices"))

    @property
    def day(self):
        if self.settings.get("as_of"):
            return self.settings["as_of"]
        return self.events[0]["at"][:10] if self.events else datetime.date.today().isoformat()
