"""Would a contender be ahead again if it were trained anew? From the definition in docs/scoring.md.

The variance of a pair's difference over examples or clusters, plus for each trained contender the
variance between seeds over the number of its trainings: its own seeds', else pooled over those of
the same way of training. Student's t with Satterthwaite's degrees of freedom, Holm over all pairs.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from scipy import stats

from recomputing import inference


def find_way(settings):
    """What contenders share that vary alike between seeds; empty: nothing is trained; None: it is
    not known."""
    if settings["id"] == "local":
        return "local", settings["base"], settings["method"]
    if settings["id"] == "hosted":
        where = settings.get("base_url") or settings["provider"]
        return "hosted", where, settings["model"], settings.get("method") or ""
    return () if settings["id"] == "prompted" else None


def find_seeds(contenders, metric):
    """{contender: [(name, the scores of its seeds) of each whose seeds say how far apart trainings
    lie]}; an empty list where nothing is trained, None where it is not known."""
    own, pooled = {}, defaultdict(dict)
    for contender in contenders:
        trainings = [
            [float(r["scores"][metric]) for r in t.rows.values() if metric in r["scores"]]
            for t in contender.whole
        ]
        if len(trainings) > 1 and all(trainings):
            scores = tuple(math.fsum(each) / len(each) for each in trainings)
            own[contender.name] = (contender.name, scores)
            way = find_way(contender.settings)
            if way:  # the same scores twice are the same trainings
                pooled[way].setdefault(scores, own[contender.name])
    found = {}
    for contender in contenders:
        way = find_way(contender.settings)
        if contender.name in own:
            found[contender.name] = [own[contender.name]]
        elif not way:
            found[contender.name] = None if way is None else []
        else:
            found[contender.name] = list(pooled[way].values()) if way in pooled else None
    return found


def find_sides(pair, seeds, trainings):
    """((seeds, number of trainings) of a, of b), or None where nothing can be said."""
    of = [seeds[pair.a], seeds[pair.b]]
    if None in of or not any(of) or pair.units < inference.FEWEST_UNITS:
        return None
    own, sides = iter(pair.seeds), []
    for name, known in zip((pair.a, pair.b), of, strict=True):
        if trainings[name] > 1:  # its scores over the examples of this pair
            scores = next(own)
            if len(known) != 1:
                return None
            known = [(name, tuple(scores))]
        if known and not any(statistics.variance(scores) for _, scores in known):
            return None  # seeds that score alike do not say how far apart others lie
        sides.append((known, max(1, trainings[name])))
    return sides


def count_freedom(seeds):
    return float(sum(len(scores) - 1 for _, scores in seeds))


def find_variance(pair, sides):
    """Variance of the difference over units and new trainings, and its degrees of freedom. Seeds
    that count for both sides are one estimate."""
    weights = defaultdict(float)
    for seeds, trainings in sides:
        for name, scores in seeds:
            weights[name] += (len(scores) - 1) / (count_freedom(seeds) * trainings)
    own = [seeds[0] for seeds, trainings in sides if trainings > 1]
    named = {name for name, _ in own}
    pools = [tuple(each for each in seeds if each[0] not in named) for seeds, _ in sides]
    estimates = [(each,) for each in own] + list(dict.fromkeys(pool for pool in pools if pool))
    there = pair.sizes > 0
    parts = [inference.clustered_variance(pair.sums[there], pair.sizes[there], pair.spread)]
    for seeds in estimates:
        variance = math.fsum(weights[name] * statistics.variance(s) for name, s in seeds)
        parts.append((variance, count_freedom(seeds)))
    return inference.add_variances(parts)


def summarize(seeds):
    """How far apart trainings lie: the pooled standard deviation."""
    if not seeds:
        return None
    freedom = count_freedom(seeds)
    squares = math.fsum((len(s) - 1) * statistics.variance(s) for _, s in seeds)
    names = [name for name, _ in seeds]
    return {
        "deviation": math.sqrt(squares / freedom), "freedom": freedom, "contenders": names,
    }  # fmt: skip


def judge_new_trainings(pairs, figures, seeds, trainings):
    """`training` of each pair of results.json's comparisons, from its other figures."""
    told, found = [None] * len(pairs), []
    for place, pair in enumerate(pairs):
        sides = find_sides(pair, seeds, trainings)
        if sides is not None:
            variance, freedom = find_variance(pair, sides)
            t = abs(pair.difference) / math.sqrt(variance)
            p = max(figures[place]["p_value"], 2 * float(stats.t.sf(t, freedom)))
            found.append((place, sides, variance, freedom, p))
    by_holm = inference.holm([each[-1] for each in found])
    for (place, (a, b), variance, freedom, p), (adjusted, level) in zip(
        found, by_holm, strict=True
    ):
        pair, of = pairs[place], figures[place]
        p_adjusted = max(of["p_adjusted"], adjusted)
        bounds = [
            widen(pair, variance, freedom, inference.LEVEL, of["low"], of["high"], p),
            widen(
                pair, variance, freedom, level, of["low_adjusted"], of["high_adjusted"], p_adjusted
            ),
        ]
        outcome = "cannot be told"
        if p_adjusted < inference.LEVEL and pair.difference:
            outcome = "a better" if pair.difference > 0 else "b better"
        told[place] = {
            "outcome": outcome, "p_value": p, "p_adjusted": p_adjusted, "freedom": freedom,
            "low": bounds[0][0], "high": bounds[0][1],
            "low_adjusted": bounds[1][0], "high_adjusted": bounds[1][1],
            "seeds_a": summarize(a[0]), "seeds_b": summarize(b[0]),
        }  # fmt: skip
    return told


def widen(pair, variance, freedom, level, low, high, p):
    """The interval at a level, not narrower than that of the models at hand."""
    half = inference.t_quantile(level, freedom) * math.sqrt(variance)
    found = pair.difference - half, pair.difference + half
    if pair.shares:
        found = max(-1.0, found[0]), min(1.0, found[1])
    if low is not None:
        found = min(found[0], low), max(found[1], high)
    return inference.make_agree(found, pair.difference, p)
