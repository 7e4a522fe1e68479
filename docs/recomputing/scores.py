"""Row scores, scores, breakdowns, classes of error, learning curves and pairs of a run."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from pathlib import Path

from recomputing import answers, inference, new_trainings, sql
from recomputing.run import BadInput, read_lines

FRACTIONS = ("slot_precision", "slot_recall", "slot_f1", "judge")
MAX_GROUPS = 24
CHARACTERS_SHOWN = 200
LEFT_OUT = "left out: "
# How SQLite says what the classes of error say.
CLASSES = {
    "no such column": "unknown column", "ambiguous column name": "unknown column",
    "no such table": "unknown table", "syntax error": "does not parse",
    "not a query": "does not parse", "more than one statement": "does not parse",
}  # fmt: skip

PAIR_FIGURES = {
    "differences": ("difference", "units"),
    "intervals of differences": (
        "low", "high", "low_adjusted", "high_adjusted", "low_90", "high_90",
    ),
    "p-values": ("p_value",),
    "adjusted p-values": ("p_adjusted",),
    "flips": ("flips",),
    "outcomes": ("verdict", "outcome", "margin", "within_margin", "test"),
}  # fmt: skip

# --- rows ---------------------------------------------------------------------------------------


def remake_rows(run, databases, findings):
    """Makes row scores again, and puts them in place of those of `scores.jsonl`."""
    reported_out = set(run.results["left_out"])
    unusable = set()
    for training in run.trainings():
        rows = [pair for of in training.by_sample for pair in of.items()]
        unusable |= {id for id, row in rows if row["verdict"].startswith(LEFT_OUT)}
    if run.task["id"] == "functional_representation":
        unusable |= {e["id"] for e in run.test if answers.parse_call(e["completion"]) is None}
    findings.hold("counts", "left_out", sorted(reported_out), sorted(unusable))
    for training in run.trainings():
        for place, (rows, said) in enumerate(
            zip(training.by_sample, training.answers, strict=True)
        ):
            for id in reported_out & rows.keys():
                del rows[id]
            where = f"{training.folder.relative_to(run.path)}/scores.jsonl"
            where += f" sample {place}" if place else ""
            remake_sample(run, databases, rows, said, where, findings)
        training.average()


def remake_sample(run, databases, rows, said, where, findings):
    """Makes the scores of one answer to each example again."""
    examples = {example["id"]: example for example in run.test}
    cut = answers.find_cut_ids(run.test, said)
    for id, row in rows.items():
        if id not in said:
            findings.not_made["scored rows without an answer in predictions.jsonl"] += 1
            continue
        own = remake_row(run, databases, examples[id], said[id], id in cut, row, findings)
        for metric, value in own.items():
            if metric not in row["scores"]:
                continue
            if value is None:
                findings.not_made["SQL rows that ties or limits settle"] += 1
                continue
            findings.hold("row scores", f"{where} {id} {metric}", row["scores"][metric], value)
            row["scores"][metric] = value


def remake_row(run, databases, example, said, is_cut, row, findings):
    """The metrics of one answer that are made here; None where one is open."""
    reference, given = example["completion"], said["prediction"]
    if run.task["id"] == "text_to_sql" and run.task.get("mode") == "official":
        findings.not_made["SQL rows in official mode"] += 1
        return {}
    answer = None if is_cut else answers.strip_thoughts(given, reference)
    missing = said.get("error") is not None or answer is None or not answer.strip()
    if run.task["id"] == "functional_representation":
        names, score = answers.CALL_METRICS, answers.score_call
    elif run.task["id"] == "text_to_sql":
        names = (*answers.TEXT_METRICS, "execution_accuracy", "test_suite_accuracy")
        score = score_query(databases, example, row, findings)
    else:
        names, score = answers.TEXT_METRICS, answers.score_text
    return dict.fromkeys(names, False) if missing else score(reference, answer)


def score_query(databases, example, row, findings):
    def score(reference, answer):
        query = sql.find_query(answer, reference)
        expected = sql.find_query(reference, reference)
        found = {
            "exact_match": answer.strip() == reference.strip(),
            "normalized_match": answers.normalize(query) == answers.normalize(expected),
        }
        if "execution_accuracy" not in row["scores"]:
            return found
        if databases is None:
            findings.not_made["SQL rows without databases (give --data)"] += 1
            return found
        return found | sql.score_sql(databases, example["meta"]["db_id"], reference, answer)

    return score


def find_databases(run, data, findings):
    """The run's databases, whose hashes must be those of the report; None where there are none."""
    hashes = run.results["database_sha256"]
    choices = [Path(data), Path(data) / "spider" / "databases"] if data else []
    folders = [f for f in (*choices, run.path / "data" / "databases") if f.is_dir()]
    ids = {name.split("/")[0] for name in hashes}
    folder = next((f for f in folders if all((f / id).is_dir() for id in ids)), None)
    if data and ids and folder is None:
        raise BadInput(f"--data {data}: it does not hold the folders {', '.join(sorted(ids))}.")
    if not ids or folder is None:
        return None
    found = sql.Databases(folder, run.path / "data" / "derived", run.task["seconds"])
    for id in sorted(ids):
        own, *others = found.suite(id)
        for name, file in ((id, own), *((f"{id}/{file.name}", file) for file in others)):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            findings.hold("databases", name, hashes.get(name), digest)
    return found


# --- scores -------------------------------------------------------------------------------------


def is_yes_no(metric, values, of):
    """Whether a metric's values are yes or no, or means of so many of such."""
    whole = [value * of for value in values]
    return metric not in FRACTIONS and all(abs(v - round(v)) < 1e-9 and 0 <= v <= of for v in whole)


def hold_score(findings, where, reported, metric, scores, clusters, seeds=(), errors=0, samples=1):
    """A score over examples: value, bounds, counts."""
    values = list(scores.values())
    of_seeds = [sum(s.values()) / len(s) for s in seeds]
    value = math.fsum(values) / len(values) if values else None
    bounds = None
    if values:
        yes_no = is_yes_no(metric, values, max(1, len(seeds)) * samples)
        bounds = inference.score_interval(values, yes_no, clusters, of_seeds, samples)
    low, high = bounds or (None, None)
    findings.hold("scores", where, reported, {"value": value, "by_seed": of_seeds})
    findings.hold("intervals of scores", where, reported, {"low": low, "high": high})
    findings.hold("counts", where, reported, {"n": len(values), "errors": errors})


def hold_scores(run, contender, findings):
    """Scores, breakdowns, classes of error and the learning curve."""
    where, result = contender.name, contender.result
    if contender.reported:
        findings.not_made["scores that a recorded contender reports"] += len(result["scores"])
        return
    common = contender.scores(run.metric)
    ids = {id for id in contender.whole[0].rows if all(id in t.rows for t in contender.whole)}
    errors = {
        p["id"]
        for t in contender.whole
        for of in t.answers
        for p in of.values()
        if p.get("error") is not None and p["id"] in ids
    }
    shown = {metric for id in ids for metric in contender.whole[0].rows[id]["scores"]}
    if run.task.get("metrics") is None:
        findings.hold("counts", f"{where}.scores", sorted(result["scores"]), sorted(shown))
    for metric, reported in result["scores"].items():
        scores = contender.scores(metric)
        hold_score(
            findings, f"{where}.scores.{metric}", reported, metric, scores,
            run.clusters_of(scores), contender.by_seed(metric), len(errors), contender.samples,
        )  # fmt: skip
    hold_breakdowns(run, contender, ids, common, findings)
    counts = Counter(
        name
        for row in contender.trainings[0].by_sample[0].values()
        if (name := name_error(run, row))
    )
    findings.hold("counts", f"{where}.error_classes", result["error_classes"], dict(counts))
    findings.hold("counts", f"{where}.error_classes", len(result["error_classes"]), len(counts))
    hold_curve(run, contender, findings)
    hold_samples(run, contender, findings)


def hold_samples(run, contender, findings):
    """The share of examples whose answers differ in their score."""
    if contender.samples == 1:
        return
    by_sample = contender.whole[0].by_sample
    values = [
        {float(of[id]["scores"][run.metric]) for of in by_sample}
        for id in by_sample[0]
        if all(id in of and run.metric in of[id]["scores"] for of in by_sample)
    ]
    share = sum(len(each) > 1 for each in values) / len(values) if values else None
    where = f"{contender.name}.samples_disagree"
    findings.hold("scores", where, contender.result["samples_disagree"], share)


def hold_baselines(run, findings):
    """Scores of what needs no model, and the most frequent answer of the training examples."""
    for result, training in run.baselines:
        where = f"baselines.{result['name']}"
        for metric, reported in result["scores"].items():
            rows = training.rows.items()
            scores = {id: float(r["scores"][metric]) for id, r in rows if metric in r["scores"]}
            of = run.clusters_of(scores)
            hold_score(findings, f"{where}.{metric}", reported, metric, scores, of)
        if result["name"] == "most frequent answer":
            times = Counter(e["completion"] for e in read_lines(run.path / "data" / "train.jsonl"))
            answer, count = times.most_common(1)[0]
            own = {"answer": answer[:CHARACTERS_SHOWN], "share": count / times.total()}
            findings.hold("counts", where, result, own)


def hold_unread(run, findings):
    """How many of a judge's answers have no score, for its reply could not be read."""
    if not any(isinstance(m, dict) and m["id"] == "judge" for m in run.task.get("metrics") or ()):
        return
    trainings = [t for c in run.contenders for t in c.trainings]
    rows = [row for t in trainings for of in t.by_sample for row in of.values()]
    unread = sum("judge" not in row["scores"] for row in rows)
    own = {"answers": unread, "of": len(rows)} if unread else None
    findings.hold("counts", "judge_unread", run.results["judge_unread"], own)


def hold_breakdowns(run, contender, ids, scores, findings):
    """The metric in each group of each key of meta (and of groups.jsonl) that has 2 to 24."""
    groups = defaultdict(lambda: defaultdict(list))
    for id in contender.whole[0].rows:
        for key, group in run.groups[id].items() if id in ids else ():
            groups[key][str(group)].append(id)
    own = {key: of for key, of in groups.items() if 1 < len(of) <= MAX_GROUPS}
    reported, where = contender.result["breakdowns"], f"{contender.name}.breakdowns"
    findings.hold("counts", where, sorted(reported), sorted(own))
    for key, of in own.items():
        for group, members in of.items():
            found = reported.get(key, {}).get(group, {}).get(run.metric, {})
            some = {id: scores[id] for id in members if id in scores}
            hold_group(findings, f"{where}.{key}.{group}", found, run, some, contender)


def hold_group(findings, where, reported, run, scores, contender):
    """A group's score: its interval knows clusters, and not the seeds."""
    samples = contender.samples
    values = list(scores.values())
    bounds = None
    if values:
        yes_no = is_yes_no(run.metric, values, len(contender.whole) * samples)
        of = run.clusters_of(scores)
        bounds = inference.score_interval(values, yes_no, of, answers=samples)
    low, high = bounds or (None, None)
    value = math.fsum(values) / len(values) if values else None
    findings.hold("scores", where, reported, {"value": value})
    findings.hold("intervals of scores", where, reported, {"low": low, "high": high})
    findings.hold("counts", where, reported, {"n": len(values)})


def name_error(run, row):
    if row["scores"].get(run.metric, 0) == 1:
        return None
    verdict = row["verdict"].split(":", 1)[0]
    if verdict == "right":
        return "wrong"
    return CLASSES.get(verdict, verdict) if run.task["id"] == "text_to_sql" else verdict


def hold_curve(run, contender, findings):
    """Each point's score, and the p-value of its test against the point before."""
    points, before = [], {}
    trainings = [t for t in (*contender.parts, contender.whole[0]) if t.record]
    for training in sorted(trainings, key=lambda t: t.fraction) if contender.parts else ():
        rows = training.rows.items()
        scores = {id: float(r["scores"][run.metric]) for id, r in rows if run.metric in r["scores"]}
        if scores:
            pairs = inference.make_pairs({"this": scores, "before": before}, run.clusters)
            judged = inference.judge_pairs(pairs, 0.03)
            points.append((training, scores, judged[0]["p_value"] if judged else None))
            before = scores
    reported, where = contender.result["learning_curve"], f"{contender.name}.learning_curve"
    findings.hold("counts", where, len(reported), len(points) if len(points) > 1 else 0)
    for place, (point, (training, scores, p)) in enumerate(zip(reported, points, strict=False)):
        at, values = f"{where}[{place}]", list(scores.values())
        low, high = inference.score_interval(
            values, is_yes_no(run.metric, values, 1), run.clusters_of(scores)
        ) or (None, None)
        findings.hold("scores", at, point, {"value": math.fsum(values) / len(values)})
        findings.hold("intervals of scores", at, point, {"low": low, "high": high})
        findings.hold("p-values", at, point, {"p_value": p})
        facts = {"fraction": training.fraction, "examples": training.record["examples"]}
        findings.hold("counts", at, point, facts)


# --- pairs --------------------------------------------------------------------------------------


def hold_pairs(run, findings):
    """Every figure of every pair."""
    finished = [c for c in run.contenders if c.result["error"] is None]
    scores = {c.name: s for c in finished if (s := c.scores(run.metric))}
    seeds = {c.name: c.by_seed(run.metric) for c in finished}
    pairs = inference.make_pairs(scores, run.clusters, seeds)
    margin = run.results["requirements"]["margin_points"] / 100
    hold_bars(run, scores, seeds, margin, findings)
    reported = run.results["comparisons"]
    names = [[pair["a"], pair["b"]] for pair in reported]
    findings.hold("counts", "comparisons", names, [[pair.a, pair.b] for pair in pairs])
    of = {(pair["a"], pair["b"]): pair for pair in reported}
    judged = inference.judge_pairs(pairs, margin)
    known = new_trainings.find_seeds(finished, run.metric)
    trainings = {name: len(of) for name, of in seeds.items()}
    told = new_trainings.judge_new_trainings(pairs, judged, known, trainings)
    for pair, figures, anew in zip(pairs, judged, told, strict=True):
        where = f"{pair.a} against {pair.b}"
        training = of.get((pair.a, pair.b), {}).get("training")
        findings.hold("new trainings", f"{where}.training", training, anew)
        hold_pair(where, of.get((pair.a, pair.b)), figures, findings)


def hold_bars(run, scores, seeds, margin, findings):
    """Every figure of each contender's test against each baseline, each pair by itself."""
    for result, training in run.baselines:
        rows, name = training.rows.items(), result["name"]
        bar = {id: float(r["scores"][run.metric]) for id, r in rows if run.metric in r["scores"]}
        of = {pair["a"]: pair for pair in result["comparisons"]}
        others = [other for other in scores if scores[other].keys() & bar.keys()]
        findings.hold("counts", f"baselines.{name}.comparisons", list(of), others)
        for other in others:
            both = {other: scores[other], name: bar}
            (figures,) = inference.judge_pairs(
                inference.make_pairs(both, run.clusters, seeds), margin
            )
            hold_pair(f"{other} against {name}", of.get(other), figures, findings)


def hold_pair(where, reported, figures, findings):
    for kind, keys in PAIR_FIGURES.items():
        some = {key: figures[key] for key in keys}
        findings.hold(kind, where, reported, some)
