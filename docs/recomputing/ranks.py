"""The order of contenders in the report, and which one is recommended."""

from __future__ import annotations

import math
import re

from recomputing import inference

SAME_COST = 1.02


def hold_ranks(run, findings):
    """The order in report.md, the choice, and how many points it may give away."""
    hold_order(run, findings)
    choice, given_away = choose(run)
    reported = run.results["recommendation"]
    findings.hold("ranks", "recommendation.choice", reported["choice"], choice)
    said = re.search(r"give away up to ([\d.,]+)( points)?", " ".join(reported["because"]))
    found = None
    if said is not None:
        found = float(said[1].replace(",", "")) / (100 if said[2] else 1)
    if given_away is not None and found is not None:
        given_away = round(given_away, 3 if said[2] else 2)
    findings.hold("allowances", "what the choice may give away", found, given_away)


def hold_order(run, findings):
    """Contenders come best first, equal ones as in the file, those without a score last."""
    report = run.path / "report.md"
    if not report.is_file():
        findings.not_made["orders of a report.md that is not there"] += 1
        return

    def rank(contender):
        value = contender.result["scores"].get(run.metric, {}).get("value")
        known = contender.result["error"] is None and value is not None
        return not known, -(value or 0.0)

    names = [contender.name for contender in sorted(run.contenders, key=rank)]
    _, _, scores = report.read_text(encoding="utf-8").partition("\n## Scores\n")
    table = re.findall(r"^\| (.*)$", scores.partition("\n\n![")[0].partition("\n## ")[0], re.M)
    first = [re.sub(r"\\(.)", r"\1", row.split(" | ")[0]).strip("* |") for row in table]
    findings.hold("ranks", "report.md", [name for name in first if name in names], names)


def choose(run):
    """The name of the cheapest contender that is not behind the best by more than chance, and how
    many points it may give away; None where it is the best."""
    metric, pairs = run.metric, run.results["comparisons"]
    scored = [c for c in run.contenders if c.result["error"] is None and value_of(c, metric)[0]]
    in_pairs = {name for pair in pairs for name in (pair["a"], pair["b"])}
    measured = [c for c in scored if c.settings["id"] != "recorded" or c.name in in_pairs]
    fit = [c for c in measured or scored if may_be_chosen(run, c)]
    if not any(value_of(c, metric)[1] for c in fit):
        return None, None
    best = max(fit, key=lambda c: value_of(c, metric)[1])
    scores = {c.name: c.scores(metric) for c in fit}
    near, lost = [best], {}
    for contender in fit:
        pair = next((p for p in pairs if {p["a"], p["b"]} == {best.name, contender.name}), None)
        if contender is best or pair is None or pair["verdict"] != "tie":
            continue
        allowed = inference.allowance(contender.name, best.name, scores, run.clusters)
        behind = abs(pair["difference"])
        if behind <= allowed + 1e-9:
            near.append(contender)
            lost[contender.name] = behind + allowed
    choice = find_cheapest(near, metric)
    return choice.name, lost.get(choice.name)


def value_of(contender, metric):
    value = contender.result["scores"].get(metric, {}).get("value")
    return value is not None, value or 0.0


def may_be_chosen(run, contender):
    """Whether it meets the requirements, has not ended on the run's day, and is not being left."""
    required, result = run.results["requirements"], contender.result
    ends, most = result["ends"], required["max_latency_seconds"]
    seconds = result["serving"]["seconds_p95"]
    seconds = result["serving"]["seconds_p50"] if seconds is None else seconds
    return not (
        run.settings.get("migrating_from") == contender.name
        or (ends is not None and ends <= run.day)
        or (required["data_stays_here"] and result["place"] != "own")
        or (required["managed"] and result["place"] != "provider")
        or (most is not None and seconds is not None and seconds > most)
    )


def find_cheapest(contenders, metric):
    """The first rule that tells contenders apart decides, then the next among those it keeps; a
    rule counts where all of them have its figure. Figures within 2% are equal."""

    def trained(contender, key):
        if contender.result["training"] is None and contender.settings["id"] == "prompted":
            return 0.0
        count = (contender.result["training"] or {}).get(key)
        return math.inf if count is None else float(count)

    def training_usd(contender):
        free = contender.result["training"] is None and contender.settings["id"] == "prompted"
        return 0.0 if free else contender.result["cost"]["training_usd"]

    rules = (
        lambda c: float(c.result["ends"] is not None),
        lambda c: c.result["cost"]["serving_usd_per_1k_requests"],
        training_usd,
        lambda c: trained(c, "trainable_parameters"),
        lambda c: trained(c, "tokens_templated"),
        lambda c: -value_of(c, metric)[1],
    )
    left = contenders
    for rule in rules:
        figures = {c.name: rule(c) for c in contenders}
        if None in figures.values():
            continue
        least = min(figures[c.name] for c in left)
        most = least * SAME_COST if least > 0 else least
        left = [c for c in left if figures[c.name] <= most]
    return left[0]
