"""Intervals, tests and the choice's allowance, from the definitions in docs/scoring.md.

Single scores: Wilson (1927) or Student, on the effective sample size of Korn and Graubard (1998),
with the CR2 variance and degrees of freedom of Bell and McCaffrey (2002). Pairs: exact McNemar with
Tango's interval (1998); joint sign flips with step-down p-values (Westfall and Young 1993) and
intervals by inversion; Student's t with Satterthwaite's degrees of freedom over seeds, with Holm
(1979). Two one-sided tests (Schuirmann 1987). Dunnett's bound (1955) by flips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from scipy import optimize, stats

LEVEL, LEVEL_EQUIVALENCE, LEVEL_CHOICE = 0.05, 0.10, 0.10
ENUMERATED_UNITS, DRAWN_FLIPS, SEED = 16, 10_000, 0
FEWEST_UNITS = 6
NUMBERS_AT_ONCE = 2_000_000


def t_quantile(level, freedom):
    return float(stats.t.ppf(1 - level / 2, freedom))


# --- single scores ------------------------------------------------------------------------------


def wilson(share, n):
    """Wilson's 95% interval of a share of n, which need not be whole."""
    if n <= 0:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.975))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if share == 0 else max(0.0, centre - half)), (
        1.0 if share == 1 else min(1.0, centre + half)
    )


def clustered_variance(sums, sizes, spread):
    """CR2 variance of sum(sums) / sum(sizes), and its degrees of freedom.

    With h the clusters' shares of the examples and W = diag(1 / (1 - h)), the variance is
    e'We / n², e = (I - h1')y. Under equally correlated examples y has the covariance
    D = diag(m(1 - rho) + m² rho), so Satterthwaite's degrees of freedom are
    trace(AD)² / trace(ADAD) with A = (I - 1h')W(I - h1').
    """
    n = sizes.sum()
    h = sizes / n
    w = 1 / (1 - h)
    residuals = sums - sizes * (sums.sum() / n)
    variance = float((w * residuals**2).sum() / n**2)
    excess = float((sizes**2).sum() / n - 1)
    rho = 0.0
    if spread > 0 and excess > 0:
        rho = min(1.0, max(0.0, (variance * n / spread - 1) / excess))
    d = sizes * (1 - rho) + sizes**2 * rho
    whole = float((w * h**2).sum())
    trace = float((d * (w - 2 * w * h + whole)).sum())
    trace_of_square = 0.0
    rows = max(1, NUMBERS_AT_ONCE // len(d))
    for start in range(0, len(d), rows):
        part = slice(start, start + rows)
        a = whole - (w * h)[part, None] - (w * h)[None, :]
        a[np.arange(a.shape[0]), np.arange(start, start + a.shape[0])] += w[part]
        trace_of_square += float((a**2 * d[part, None] * d[None, :]).sum())
    return variance, max(1.0, trace**2 / trace_of_square)


def variance_of_seeds(values):
    """Variance of the mean over several trainings, and its degrees of freedom."""
    return float(np.var(values, ddof=1)) / len(values), len(values) - 1.0


def add_variances(parts):
    """Sum of independent variances with Satterthwaite's degrees of freedom (1946)."""
    total = math.fsum(v for v, _ in parts)
    if total <= 0:
        return 0.0, min(f for _, f in parts)
    return total, total**2 / math.fsum(v**2 / f for v, f in parts)


def sum_by_cluster(values, clusters):
    names = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    unit = np.array([names[name] for name in clusters])
    return np.bincount(unit, weights=values), np.bincount(unit).astype(float)


def score_interval(values, yes_no, clusters=None, seeds=(), answers=1):
    """95% interval of a mean, or None where nothing bounds it.

    clusters: what each value belongs to; None, or one for all: the values are independent.
    seeds: the score of each of several trainings, of which the values are the means.
    answers: how many there are to each example, of which its value is the mean.
    """
    y = np.array(values, dtype=float)
    n = len(y)
    mean = math.fsum(values) / n
    squares = math.fsum((value - mean) ** 2 for value in values)
    shares = bool(((y >= 0) & (y <= 1)).all())
    clustered = clusters is not None and len(set(clusters)) > 1
    sums, sizes = sum_by_cluster(y, clusters) if clustered else (y, np.ones(n))

    def effective(ratio, freedom, most=n):
        if n < 2:
            return float(n)
        known = t_quantile(LEVEL, most - 1) / t_quantile(LEVEL, min(freedom, most - 1))
        return min(float(most), n * ratio * known**2)

    if squares <= 1e-18 * n:  # all alike: an intraclass correlation of 0.1 is assumed
        deff = 1 + ((sizes**2).sum() / n - 1) * 0.1
        return wilson(mean, effective(1 / deff, len(sums) - 1)) if shares else None
    if clustered:
        parts = [clustered_variance(sums, sizes, squares / n)]
    else:
        parts = [(squares / (n if yes_no and answers == 1 else n - 1) / n, n - 1.0)]
    if len(seeds) > 1:
        parts.append(variance_of_seeds(seeds))
    variance, freedom = add_variances(parts)
    independent = mean * (1 - mean) / n if yes_no else squares / (n - 1) / n
    ratio = independent / variance if variance > 0 else math.inf
    size = effective(ratio, freedom, n * answers if yes_no else n)
    if yes_no:
        return wilson(mean, size)
    half = t_quantile(LEVEL, n - 1) * math.sqrt(independent * n / size)
    low, high = mean - half, mean + half
    return (max(0.0, low), min(1.0, high)) if shares else (low, high)


# --- pairs: what is compared --------------------------------------------------------------------


@dataclass
class Pair:
    """Two contenders on the examples that both have, by unit (an example, or a cluster)."""

    a: str
    b: str
    sums: np.ndarray
    sizes: np.ndarray
    spread: float
    shares: bool
    counts: dict | None
    clustered: bool
    seeds: list = field(default_factory=list)

    @property
    def n(self):
        return self.sizes.sum()

    @property
    def difference(self):
        return float(self.sums.sum() / self.n)

    @property
    def units(self):
        return int((self.sizes > 0).sum())

    @property
    def by_mcnemar(self):
        return self.counts is not None and not self.clustered and not self.seeds

    @property
    def test(self):
        if self.seeds:
            return f"t over seeds and {'clusters' if self.clustered else 'examples'}"
        return "exact McNemar" if self.by_mcnemar else "cluster sign-flip"

    def variance(self):
        """Variance of the difference over units and seeds, and its degrees of freedom."""
        if self.units < 2:
            return math.inf, 1.0
        there = self.sizes > 0
        parts = [clustered_variance(self.sums[there], self.sizes[there], self.spread)]
        return add_variances(parts + [variance_of_seeds(each) for each in self.seeds])


def make_pairs(scores, clusters=None, seeds=None, names=None):
    """Pairs of contenders, in their order, over the same units.

    scores: {contender: {id: score}}; clusters: {id: cluster} or None; seeds: {contender: [{id:
    score} of each training]}; names: the pairs that are wanted, all of them if left out.
    """
    wanted = names or list(combinations(scores, 2))
    wanted = [(a, b) for a, b in wanted if scores[a].keys() & scores[b].keys()]
    used = dict.fromkeys(name for pair in wanted for name in pair)
    ids = list(dict.fromkeys(id for name in used for id in scores[name]))
    of = [id if clusters is None else clusters[id] for id in ids]
    number = {name: place for place, name in enumerate(dict.fromkeys(of))}
    unit = np.array([number[name] for name in of], dtype=int)
    column = {name: np.array([scores[name].get(id, math.nan) for id in ids]) for name in used}
    found = []
    for a, b in wanted:
        both = ~np.isnan(column[a] - column[b])
        x, y, at = column[a][both], column[b][both], unit[both]
        binary = bool(np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all())
        counts = {
            "only_a": int(((x == 1) & (y == 0)).sum()),
            "only_b": int(((x == 0) & (y == 1)).sum()),
            "both": int(((x == 1) & (y == 1)).sum()),
            "none": int(((x == 0) & (y == 0)).sum()),
        }
        common = [id for id in scores[a] if id in scores[b]]
        trainings = [each for name in (a, b) if len(each := (seeds or {}).get(name, ())) > 1]
        of_seeds = [
            [math.fsum(scores_of[id] for id in common) / len(common) for scores_of in each]
            for each in trainings
        ]
        pair = Pair(
            a=a,
            b=b,
            sums=np.bincount(at, weights=x - y, minlength=len(number)),
            sizes=np.bincount(at, minlength=len(number)).astype(float),
            spread=float(np.var(x - y)),
            shares=bool(((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)).all()),
            counts=counts if binary else None,
            clustered=clusters is not None,
            seeds=of_seeds,
        )
        found.append(pair)
    return found


# --- joint flips --------------------------------------------------------------------------------


class Flips:
    """What each flip makes of each pair (flips × pairs); the first flip swaps nothing."""

    def __init__(self, pairs):
        sums = np.stack([pair.sums for pair in pairs], axis=1)
        sizes = np.stack([pair.sizes for pair in pairs], axis=1)
        blocks = [(s @ sums, s @ sizes) for s, sums, sizes in draw_signs(sums, sizes)]
        flipped = np.concatenate([block[0] for block in blocks])
        counted = np.concatenate([block[1] for block in blocks])
        total, n, scale = flipped[0], counted[0], np.abs(sums).sum(axis=0)
        total = np.where(np.abs(total) <= 1e-9 * scale, 0.0, total)
        for exact in (0.0, total, -total):  # rounding must not tell equal sums apart
            flipped = np.where(np.abs(flipped - exact) <= 1e-9 * scale, exact, flipped)
        root = np.sqrt((sums**2).sum(axis=0))
        t = np.round(np.abs(flipped) / np.where(root > 0, root, 1.0), 10)
        below = np.stack([stats.rankdata(c, method="min") - 1 for c in t.T], axis=1) / len(t)
        self.extremity = np.round(below + 1e-6 * t / (1 + t), 14)
        self.found = self.extremity[0]
        self.means = flipped / n
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (total - flipped) / (n - counted), (total + flipped) / (n + counted)
        alike = np.abs(counted) == n  # nothing, or everything, is swapped
        self.low = np.where(alike, -np.inf, np.minimum(one, other))
        self.high = np.where(alike, np.inf, np.maximum(one, other))

    def own_p(self, pair):
        return float((self.extremity[:, pair] >= self.found[pair]).mean())

    def step_down(self):
        """Adjusted p-values, and the level of a pair's own test that amounts to each."""
        order = sorted(range(len(self.found)), key=lambda pair: -self.found[pair])
        adjusted, levels = [1.0] * len(order), [0.0] * len(order)
        highest, bar = 0.0, None
        for step, pair in enumerate(order):
            largest = self.extremity[:, order[step:]].max(axis=1)
            p = float((largest >= self.found[pair]).mean())
            highest = max(highest, p)
            adjusted[pair] = highest
            if bar is None:
                values = np.unique(largest)
                below = np.searchsorted(np.sort(largest), values)
                reached = (len(largest) - below) / len(largest)
                rare = values[reached < LEVEL]
                critical = rare[0] if len(rare) else math.inf
                bar = critical if p >= LEVEL else None  # the first that is kept sets the bar
            own = self.extremity[:, pair]
            least = min(LEVEL, float((own == own.max()).mean()))
            levels[pair] = max(least, float((own >= critical).mean()))
        return adjusted, levels

    def interval(self, pair, level, rejects_at_level=False):
        """The differences that the pair's own test does not reject."""
        count = len(self.low)
        if rejects_at_level:
            place = math.floor(level * count + 1e-6) + 1
        else:
            place = math.ceil(level * count)
        place = min(max(place, 1), count) - 1
        low = float(np.sort(self.low[:, pair])[place])
        high = float(np.sort(self.high[:, pair])[::-1][place])
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def draw_signs(sums, sizes):
    """Yields (signs, sums, sizes): flips × units, and the units that the signs are of.

    Up to 16 units: all patterns. Above: equal units are one unit of that multiplicity, ascending
    by their sums, then their sizes, from the first pair to the last; a flip's sign of m equal units
    is m - 2 · binomial(m, 1/2), drawn flip by flip, unit by unit.
    """
    if len(sums) <= ENUMERATED_UNITS:
        patterns = np.arange(2 ** len(sums))
        signs = 1.0 - 2.0 * (patterns[:, None] >> np.arange(len(sums)) & 1)
        yield signs, sums, sizes
        return
    pairs = sums.shape[1]
    units, times = np.unique(np.hstack([sums, sizes]) + 0.0, axis=0, return_counts=True)
    sums, sizes = units[:, :pairs], units[:, pairs:]
    yield times[None, :].astype(float), sums, sizes
    rng = np.random.Generator(np.random.PCG64(SEED))
    at_once = max(1, NUMBERS_AT_ONCE // len(times))
    for start in range(0, DRAWN_FLIPS, at_once):
        shape = (min(at_once, DRAWN_FLIPS - start), len(times))
        yield times - 2.0 * rng.binomial(times, 0.5, size=shape), sums, sizes


# --- pairs: p-values, intervals, outcomes -------------------------------------------------------


def mcnemar(counts):
    """Exact two-sided p-value."""
    few, many = sorted((counts["only_a"], counts["only_b"]))
    return min(1.0, 2 * float(stats.binom.cdf(few, few + many, 0.5))) if many else 1.0


def tango(counts, level):
    """Tango's score interval of the difference of two paired shares."""
    n, b, c = sum(counts.values()), counts["only_a"], counts["only_b"]

    def score(delta):
        linear = (2 * n - b + c) * delta - b - c
        only_b = (math.sqrt(max(0.0, linear**2 + 8 * n * c * delta * (1 - delta))) - linear) / (
            4 * n
        )
        variance = n * (2 * only_b + delta * (1 - delta))
        distance = b - c - n * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(1e300, distance)

    z, edge = float(stats.norm.ppf(1 - level / 2)), 1 - 1e-12

    def solve(quantile):
        return float(optimize.brentq(lambda d: score(d) - quantile, -edge, edge, xtol=1e-12))

    return (-1.0 if c == n else solve(z)), (1.0 if b == n else solve(-z))


def pair_interval(pair, flips, place, level, rejects_at_level=False):
    if pair.by_mcnemar:
        return tango(pair.counts, level)
    if pair.units < FEWEST_UNITS:
        return None
    variance, freedom = pair.variance() if pair.seeds else (0.0, 1.0)
    if variance > 0:
        half = t_quantile(level, freedom) * math.sqrt(variance)
        found = pair.difference - half, pair.difference + half
    else:
        found = flips.interval(place, level, rejects_at_level)
    if found is None or not pair.shares:
        return found
    low, high = found
    if high - low < 1e-12:  # all units differ alike; others may not: the rule of three
        unseen, d = 1 - (level / 2) ** (1 / pair.units), pair.difference
        inward = unseen * abs(d) if d else unseen
        low, high = (d - inward, d + unseen) if d >= 0 else (d - unseen, d + inward)
    return max(-1.0, low), min(1.0, high)


def make_agree(interval, difference, p):
    """Bounds that leave out 0 exactly where p is under 0.05."""
    if interval is None:
        return None, None
    low, high = interval
    if p >= LEVEL:
        return min(low, 0.0), max(high, 0.0)
    least = difference / 1000
    return (max(low, least), high) if difference > 0 else (low, min(high, least))


def holm(p_values):
    """Adjusted p-values, and the level that the step-down left to each."""
    found, highest, level = [(0.0, 0.0)] * len(p_values), 0.0, 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        left = len(p_values) - rank
        level = LEVEL / left if highest < LEVEL else level
        highest = max(highest, min(1.0, left * p_values[place]))
        found[place] = highest, level
    return found


def judge_pairs(pairs, margin):
    """Every figure of results.json's `comparisons`, a dict for each pair."""
    if not pairs:
        return []
    needs_flips = len(pairs) > 1 or not pairs[0].by_mcnemar
    flips = Flips(pairs) if needs_flips else None
    p_values, adjusted, levels = [], [0.0], [LEVEL]
    if flips:
        adjusted, levels = flips.step_down()
    for place, pair in enumerate(pairs):
        p = mcnemar(pair.counts) if pair.by_mcnemar else flips.own_p(place)
        if pair.seeds:
            variance, freedom = pair.variance()
            if variance > 0:
                t = abs(pair.difference) / math.sqrt(variance)
                p = max(p, 2 * float(stats.t.sf(t, freedom)))
        p_values.append(p)
    adjusted = [max(both) for both in zip(adjusted, p_values, strict=True)]
    seeded = [place for place, pair in enumerate(pairs) if pair.seeds]
    for place, (p, level) in zip(seeded, holm([p_values[i] for i in seeded]), strict=True):
        adjusted[place], levels[place] = max(adjusted[place], p), level
    found = []
    for place, pair in enumerate(pairs):
        d, p, p_adjusted = pair.difference, p_values[place], adjusted[place]
        low, high = make_agree(pair_interval(pair, flips, place, LEVEL), d, p)
        own = pair_interval(pair, flips, place, levels[place], rejects_at_level=True)
        low_adjusted, high_adjusted = make_agree(own, d, p_adjusted)
        at_90 = pair_interval(pair, flips, place, LEVEL_EQUIVALENCE)
        low_90, high_90 = at_90 or (None, None)
        within = None
        if pair.shares:
            within = at_90 is not None and low_90 > -margin and high_90 < margin
        verdict = "tie"
        if p_adjusted < LEVEL and d:
            verdict = "a better" if d > 0 else "b better"
        outcome = "same" if within else "cannot be told"
        figures = {
            "difference": d, "low": low, "high": high, "p_value": p, "p_adjusted": p_adjusted,
            "low_adjusted": low_adjusted, "high_adjusted": high_adjusted,
            "low_90": low_90, "high_90": high_90, "units": pair.units, "flips": pair.counts,
            "test": pair.test, "verdict": verdict,
            "outcome": outcome if verdict == "tie" else verdict,
            "margin": margin if pair.shares else None, "within_margin": within,
        }  # fmt: skip
        found.append(figures)
    return found


def allowance(name, best, scores, clusters):
    """By how much the best may be ahead of a contender by chance (Dunnett's bound by flips)."""
    others = [(other, name) for other in scores if other != name]
    pairs = make_pairs(scores, clusters, names=others)
    place = next((i for i, pair in enumerate(pairs) if pair.a == best), None)
    if place is None:
        return 0.0
    errors = np.array([math.sqrt(float((pair.sums**2).sum())) / pair.n for pair in pairs])
    leads = Flips(pairs).means / np.where(errors > 0, errors, 1.0)
    bound = np.quantile(leads.max(axis=1), 1 - LEVEL_CHOICE, method="higher")
    return max(0.0, float(bound) * errors[place])
