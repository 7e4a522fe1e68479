"""Costs and times, from what a run paid and measured (docs/money.md says how).

Prices are facts: those of the day stand beside the cost (`cost.unit_prices` in results.json), those
that were paid in the ledger (`events.jsonl`). USD are exact fractions until they are compared.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from fractions import Fraction

HOURS_A_MONTH, MILLION = 730, 1_000_000
TIMED_ENOUGH = 20
PER_TOKEN = "{}_usd_per_million_tokens"
MAX_MACHINES = 100_000


def exact(value):
    return Fraction(str(value))


# --- times --------------------------------------------------------------------------------------


def percentiles(seconds):
    """(requests, median, the least value that 95% do not exceed); the latter from 20 on."""
    ordered = sorted(seconds)
    if not ordered:
        return None, None, None
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1] if len(ordered) >= TIMED_ENOUGH else None
    return len(ordered), statistics.median(ordered), p95


def without_first(seconds):
    """The first answer prepares kernels or a connection; it counts where there is no other."""
    return seconds[1:] or seconds


def mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def times_of_own(serving, answers):
    """Speed of an own model; serving: its serving.json, or None; answers: of its first training."""
    seconds = [a["seconds"] for a in answers if a.get("seconds") is not None]
    rate = len(seconds) / math.fsum(seconds) if seconds and math.fsum(seconds) else None
    if serving is None:
        return {"requests_per_second": rate}
    found = {"requests_per_second": rate}
    if not serving["alone"]:
        found |= dict.fromkeys(("requests", "concurrency", "seconds_p50", "seconds_p95"))
    elif serving.get("alone_seconds"):
        count, p50, p95 = percentiles(without_first(list(serving["alone_seconds"].values())))
        found |= {"requests": count, "concurrency": 1, "seconds_p50": p50, "seconds_p95": p95}
    return found


def times_of_provider(answers, concurrency):
    """A provider's latency, one request at a time and under the run's load."""
    timed = [a for a in answers if a.get("seconds") is not None]
    at = [a.get("concurrency") or concurrency for a in timed]
    alone = [a["seconds"] for a, c in zip(timed, at, strict=True) if c == 1]
    loaded = [a["seconds"] for a, c in zip(timed, at, strict=True) if c > 1]
    most = max((c for c in at if c > 1), default=None)
    count, p50, p95 = percentiles(loaded)
    found = {
        "loaded_requests": count, "loaded_seconds_p50": p50, "loaded_seconds_p95": p95,
        "loaded_concurrency": most,
    }  # fmt: skip
    if len(alone) > 1 or not loaded:
        count, p50, p95, most = *percentiles(without_first(alone)), 1 if alone else None
    return found | {
        "requests": count, "seconds_p50": p50, "seconds_p95": p95, "concurrency": most,
    }  # fmt: skip


# --- the ledger ---------------------------------------------------------------------------------


class Ledger:
    """What was settled, by contender and kind of step; and bills that tokens and price disprove."""

    def __init__(self, events):
        self.settled, self.prices = defaultdict(Fraction), {}
        self.bills = []  # (contender, USD by tokens and price, USD settled)
        steps = {}
        for row in events:
            kind = row["event"]
            if kind == "priced":
                self.prices[row["contender"]] = row["price"]
            elif kind == "authorized":
                steps[row["key"]] = row["contender"], row["what"]
            elif kind == "settled" and row["key"] in steps:
                contender, what = steps.pop(row["key"])
                if not row.get("given_back"):
                    self.settled[contender, what] += exact(row["usd"])
                    self._check_bill(contender, what, row)
            elif kind == "forgotten":
                self._forget(row["contender"], steps)

    def _check_bill(self, contender, what, row):
        """Single answers at the plain price: of a cache, a batch or a job the provider decides."""
        price = self.prices.get(contender)
        if price is None or what == "training" or row.get("cached") or row.get("written"):
            return
        used = [(row.get(kind, 0), price[kind]) for kind in ("input", "output")]
        if all(usd is not None for _, usd in used):
            usd = sum(count * exact(each) / MILLION for count, each in used)
            self.bills.append((contender, float(usd), row["usd"]))

    def _forget(self, contender, steps):
        """A contender that begins anew: what it cost before is nobody's."""
        for key, (of, what) in list(steps.items()):
            if of == contender:
                steps[key] = "", what
        for of, what in list(self.settled):
            if of == contender:
                self.settled["", what] += self.settled.pop((of, what))


# --- costs --------------------------------------------------------------------------------------


class Own:
    """Machines reserved by the month: USD and requests of one."""

    def __init__(self, hour, count, per_second, utilization):
        self.machine_usd = exact(hour) * count * HOURS_A_MONTH
        self.machine_requests = exact(per_second) * exact(utilization) * HOURS_A_MONTH * 3600

    def usd(self, requests):
        return max(1, math.ceil(requests / self.machine_requests)) * self.machine_usd

    def per_request(self):
        return self.machine_usd / self.machine_requests

    def fixed(self, requests):
        return self.usd(requests or 0)


class Hosted:
    """A provider's model: USD by the request, and a month whatever is asked."""

    def __init__(self, prices, tokens_in, tokens_out, batch, tuning_again):
        given, made = (find_rate(prices, kind, batch) for kind in ("input", "output"))
        self.request_usd = Fraction(0)
        if given is not None and made is not None:
            # Mean tokens are taken to the millionth.
            usd = exact(given) * round(exact(tokens_in) * MILLION)
            usd += exact(made) * round(exact(tokens_out) * MILLION)
            self.request_usd = usd / MILLION / MILLION
        hosting = prices.get("hosting_usd_per_hour")
        self.fixed_usd = tuning_again + (exact(hosting) * HOURS_A_MONTH if hosting else 0)

    def usd(self, requests):
        return self.fixed_usd + requests * self.request_usd

    def per_request(self):
        return self.request_usd

    def fixed(self, requests):
        return self.fixed_usd


def find_rate(prices, kind, batch):
    single = prices.get(PER_TOKEN.format(kind))
    return prices.get(PER_TOKEN.format(f"batch_{kind}"), single) if batch else single


def serving_costs(monthly, requests_per_month, correct):
    """USD of 1,000 requests, due a month, and of a right answer."""
    if requests_per_month is None:
        each = monthly.per_request()
    else:
        each = monthly.usd(Fraction(requests_per_month)) / requests_per_month
    right = None
    if correct is not None and 0 < correct <= 1:
        right = float(each / exact(correct))
    return {
        "serving_usd_per_1k_requests": float(each * 1000),
        "fixed_usd_per_month": float(monthly.fixed(requests_per_month)),
        "usd_per_correct_answer": right,
    }


def hours_usd(seconds, hardware, hour):
    """USD of so many seconds on a contender's hardware."""
    if seconds is None:
        return None
    return float(exact(seconds) / 3600 * exact(hour) * hardware["count"])


# --- break-even ---------------------------------------------------------------------------------


def crossings(own, hosted, usd_per_hour=1, hosted_usd=1, used=1):
    """(first, for good, until): requests a month at which owning becomes the cheaper one.

    Machines come whole. With k of them owning costs kM and answers kC requests; the provider costs
    F + hn. `usd_per_hour`, `hosted_usd` and `used` are factors of M, h and C.
    """
    machine, capacity = own.machine_usd * usd_per_hour, own.machine_requests * used
    each, fixed = hosted.request_usd * hosted_usd, hosted.fixed_usd
    gain = each * capacity - machine  # of one full machine more
    if machine <= fixed:
        first = Fraction(0)
    elif fixed + each * capacity >= machine:
        first = (machine - fixed) / each
    else:
        return None, None, None
    if gain >= 0 and machine <= fixed:
        return first, Fraction(0), None
    if gain == 0:
        return first, None, None
    if gain < 0:
        return first, None, capacity * (fixed // -gain)
    machines = math.ceil((machine - fixed) / gain)
    if machine - fixed > gain * MAX_MACHINES:
        return first, None, None
    return first, (machines * machine - fixed) / each, None


def as_floats(found):
    names = ("first_requests_per_month", "requests_per_month", "until_requests_per_month")
    return {name: None if n is None else float(n) for name, n in zip(names, found, strict=True)}


# --- a run's figures ----------------------------------------------------------------------------


def hold_money(run, findings):
    """Times, trainings, costs and break-evens of every contender."""
    in_batches = {c.name for c in run.contenders if c.settings.get("batch")}
    for name, usd, settled in run.ledger.bills:
        if name in in_batches:
            continue  # the ledger does not keep the prices of batches
        findings.hold("bills", f"events.jsonl {name}", settled, usd)
    monthly = {}
    for contender in run.contenders:
        hold_times(contender, findings)
        hold_training(contender, findings)
        if contender.settings["id"] == "recorded":
            hold_reported_cost(contender, findings)
            continue
        own, cost = find_costs(run, contender)
        if contender.result["error"] is None and own is not None:
            monthly[contender.name] = own
        if own is None and contender.result["cost"]["serving_usd_per_1k_requests"] is not None:
            findings.not_made["contenders whose prices are not in results.json"] += 1
        else:
            findings.hold("costs", f"{contender.name}.cost", contender.result["cost"], cost)
    judges = [run.ledger.settled[each] for each in run.ledger.settled if each[0][:6] == "judge:"]
    priced = any(name.startswith("judge:") for name in run.ledger.prices)
    usd = float(sum(judges)) if priced else None
    findings.hold("costs", "judge_usd", run.results["judge_usd"], usd)
    hold_break_evens(run, monthly, findings)


def hold_times(contender, findings):
    answered = [row for training in contender.whole for row in training.answered()]
    found = {
        "tokens_in_mean": mean([row.get("tokens_in") for row in answered]),
        "tokens_out_mean": mean([row.get("tokens_out") for row in answered]),
    }
    first = contender.whole[0]
    if contender.is_paid:
        # Prompts of later answers may be in the provider's cache.
        timed = [row for row in answered if not row.get("sample")]
        found |= times_of_provider(timed, contender.settings["concurrency"])
    else:
        found |= times_of_own(first.serving, first.answered())
        if first.serving and first.serving["alone"] and not first.serving.get("alone_seconds"):
            findings.not_made["percentiles of a run that kept no single times"] += 2
    findings.hold("times", f"{contender.name}.serving", contender.result["serving"], found)


def hold_training(contender, findings):
    """What training took, as its files have it: the first seed's facts, the mean time of one."""
    result, where = contender.result, f"{contender.name}.training"
    records = [training.record for training in contender.trainings if training.record]
    first = contender.whole[0].record
    if first is None:
        findings.hold("trainings", where, result["training"], None)
        return
    seconds = mean([t.record["seconds"] for t in contender.whole if t.record])
    findings.hold("trainings", where, result["training"], first | {"seconds": seconds})
    losses = contender.whole[0].losses()
    findings.hold("trainings", f"{contender.name}.loss", result["loss"], losses)
    if len(contender.trainings) > 1:
        training = [r["seconds"] for r in records if r["seconds"] is not None]
        answering = [s for t in contender.trainings if (s := t.answering_seconds()) is not None]
        hours = sum(training) if training else None, sum(answering) if answering else None
        own = {"trainings": len(records), "training_seconds": hours[0],
               "answering_seconds": hours[1]}  # fmt: skip
        hour, hardware = find_hour(contender)
        if hour is not None:
            usd = [usd for s in hours if (usd := hours_usd(s, hardware, hour)) is not None]
            own["usd"] = sum(usd)
        findings.hold("trainings", f"{contender.name}.all", result["all_trainings"], own)


def find_hour(contender):
    """The price of an hour of a contender's hardware, and the hardware."""
    hardware = contender.settings.get("hardware") or {"count": 1}
    prices = contender.result["cost"].get("unit_prices", {})
    return hardware.get("usd_per_hour") or prices.get("usd_per_hour"), hardware


def find_costs(run, contender):
    """A contender's costs a month (None: answering has no price), and the figures of its cost."""
    planned = contender.planned()
    cost = {"training_usd_planned": planned}
    decisive = contender.result["scores"].get(run.metric, {}).get("value")
    load, monthly = run.settings["serving"]["requests_per_month"], None
    if contender.is_paid:
        cost |= find_paid(run, contender)
        prices = contender.result["cost"].get("unit_prices", {})
        tokens = [contender.result["serving"][f"tokens_{way}_mean"] for way in ("in", "out")]
        if prices and None not in tokens:
            again, ends = Fraction(0), contender.result["ends"]
            training = cost["training_usd"] if cost["training_usd"] is not None else planned
            if ends is not None and training is not None:
                again = exact(training) / run.settings["serving"]["tune_again_months"]
            monthly = Hosted(prices, *tokens, contender.settings["batch"], again)
            if not (monthly.request_usd or prices.get("hosting_usd_per_hour")):
                monthly = None
    else:
        hour, hardware = find_hour(contender)
        if hour is not None:
            seconds = mean([t.record["seconds"] for t in contender.whole if t.record])
            answering = mean([t.answering_seconds() for t in contender.whole])
            cost["training_usd"] = hours_usd(seconds, hardware, hour)
            cost["answering_usd"] = hours_usd(answering, hardware, hour)
            serving = contender.whole[0].serving or {}
            if serving.get("requests_per_second"):
                used = run.settings["serving"]["utilization"]
                monthly = Own(hour, hardware["count"], serving["requests_per_second"], used)
    if monthly is not None:
        cost |= serving_costs(monthly, load, decisive)
    return monthly, cost


def find_paid(run, contender):
    """What the ledger has of a contender; nothing where it knows no price."""
    price = run.ledger.prices.get(contender.name)
    if price is None:
        return {"training_usd": None, "answering_usd": None}
    record = contender.whole[0].record or {}
    training, answering = (
        run.ledger.settled[contender.name, what] for what in ("training", "answering")
    )
    known = training or (record.get("tokens_billed") is not None and price["training"] is not None)
    times = contender.whole[0].times_answered()
    return {
        "training_usd": float(training) if known else None,
        "answering_usd": float(answering) / times if times > 1 else float(answering),
        "all_answers_usd": float(answering) if times > 1 else None,
    }


def hold_reported_cost(contender, findings):
    """Money that was reported elsewhere, or what reported hours or tokens come to."""
    given = contender.settings.get("training") or {}
    prices = contender.result["cost"].get("unit_prices", {})
    hour, hardware = find_hour(contender)
    usd = given.get("usd")
    if usd is None and given.get("hours") is not None and hour is not None:
        usd = hours_usd(given["hours"] * 3600, hardware, hour)
    per_million = prices.get(PER_TOKEN.format("training"))
    if usd is None and given.get("tokens_billed") is not None and per_million is not None:
        usd = float(exact(per_million) * given["tokens_billed"] / MILLION)
    reported = contender.result["cost"]
    findings.hold("costs", f"{contender.name}.cost", reported, {"training_usd": usd})


def hold_break_evens(run, monthly, findings):
    """Where owning begins to pay, and what moves that; curves at the points that they have."""
    places = {c.name: c.result["place"] for c in run.contenders}
    owns = [name for name, each in monthly.items() if isinstance(each, Own)]
    others = [n for n, m in monthly.items() if isinstance(m, Hosted) and places[n] == "provider"]
    pairs = [(own, other) for own in owns for other in others]
    reported = {(each["own"], each["hosted"]): each for each in run.results["break_even"]}
    unpriced = set(reported) - set(pairs)
    if any(not run.priced(name) for pair in unpriced for name in pair):
        findings.not_made["break-evens whose prices are not in results.json"] += len(unpriced)
        unpriced = set()
    findings.hold("break-evens", "pairs", sorted(unpriced), [])
    used = run.settings["serving"]["utilization"]
    for pair in pairs:
        own, other = (monthly[name] for name in pair)
        where, there = f"{pair[0]} against {pair[1]}", reported.get(pair)
        found = as_floats(crossings(own, other)) | {"utilization": used}
        findings.hold("break-evens", where, there, found)
        for each in (there or {}).get("sensitivity", ()):
            factors = {each["what"]: exact(each["value"])}
            if each["what"] == "utilization":
                factors = {"used": exact(each["value"]) / exact(used)}
            if each["what"] == "hosted_usd_per_request":
                factors = {"hosted_usd": exact(each["value"])}
            found = as_floats(crossings(own, other, **factors))
            findings.hold("break-evens", f"{where} at {each['what']}", each, found)
        for point in (there or {}).get("curve", ()):
            n = exact(point["requests_per_month"])
            found = {"own_usd": float(own.usd(n)), "hosted_usd": float(other.usd(n))}
            findings.hold("break-evens", f"{where} at {float(n):g}", point, found)
