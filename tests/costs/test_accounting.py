"""What a contender cost and will cost, from what a run left behind: own models by reservation,
providers by their prices, reported figures as they are."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneoff import environment
from tuneoff.config.load import parse
from tuneoff.config.schema import BakeOff
from tuneoff.costs.accounting import (
    Measurements,
    PricedContender,
    RunPricing,
    find_hosting,
    find_price_day,
)
from tuneoff.costs.break_even import compute_break_evens
from tuneoff.errors import ConfigError
from tuneoff.records import ServingRecord, TrainingRecord
from tuneoff.results import LatencyStats
from tuneoff.storage.run_dir import RunDir

HOSTED = {"name": "mini", "id": "hosted", "model": "gpt-4.1-mini-2025-04-14"}
OWN = {"name": "lora", "id": "local", "hardware": {"accelerator": "A40"}}
DAY = "2026-11-24"
CPU = ServingRecord("AMD EPYC, 2 cores", None, 20, 0.2, 0.3, 200, 4.0)
A40 = ServingRecord("Intel Xeon, 8 cores", "NVIDIA A40", 20, 0.2, 0.3, 200, 4.0)
SHAPE = LatencyStats(tokens_in_mean=121.5, tokens_out_mean=20.25)


def bakeoff(*contenders: dict[str, Any], **more: Any) -> BakeOff:
    task = {"id": "functional_representation", "source": "sample"}
    made = {"name": "x", "task": task, "contenders": list(contenders), "as_of": DAY, **more}
    return parse(yaml.safe_dump(made), Path("b.yaml"))


def measured(
    record: ServingRecord | None = None, tokens_billed: int | None = None,
    planned: float | None = None, seconds: float | None = 7200.0,
) -> Measurements:  # fmt: skip
    training = TrainingRecord(
        10, 1.0, 5, None, None, tokens_billed, None, seconds, None, None, None, None
    )
    return Measurements(training, 36.0, SHAPE, record, 0.8, planned)


def priced(made: BakeOff, found: Measurements, folder: Path) -> PricedContender:
    return RunPricing(made, RunDir(folder)).priced(made.contenders[0], found)


def test_an_own_model_is_reserved(tmp_path: Path) -> None:
    """An A40 is $0.44 an hour: $321.20 a month for 4 requests/s, half of which are asked."""
    found = priced(bakeoff(OWN), measured(A40), tmp_path)
    cost = found.cost
    assert cost.training_usd == 0.88
    assert cost.answering_usd == pytest.approx(0.0044)
    assert cost.fixed_usd_per_month == 321.2
    a_month = 4 * 0.5 * 730 * 3600
    assert cost.serving_usd_per_1k_requests == pytest.approx(321.2 / a_month * 1000)
    assert cost.usd_per_correct_answer == pytest.approx(321.2 / a_month / 0.8)
    assert cost.serving_basis == (
        "reserved: $0.44/h × 730 h a month; used to 50% of 4 requests a second, a machine answers "
        "5.26 million a month, measured on NVIDIA A40"
    )
    assert found.elsewhere is None
    assert "RunPod" in cost.price_sources[0]


def test_a_load_reserves_whole_machines(tmp_path: Path) -> None:
    rules = {"utilization": 0.25, "requests_per_month": 6_000_000}
    found = priced(bakeoff(OWN, serving=rules), measured(A40), tmp_path).cost
    # 2,628,000 requests a machine.
    assert found.fixed_usd_per_month == pytest.approx(3 * 321.2)
    assert found.serving_usd_per_1k_requests == pytest.approx(3 * 321.2 / 6000)
    assert "reserved: 3 × $0.44/h × 730 h" in (found.serving_basis or "")


def test_what_was_measured_elsewhere_is_said_so(tmp_path: Path) -> None:
    found = priced(bakeoff(OWN), measured(CPU), tmp_path)
    warning = (
        "Mind: it was measured on AMD EPYC, 2 cores and is priced as A40, where it will be "
        "different"
    )
    assert found.elsewhere == f"{warning}."
    for basis in (found.cost.training_basis, found.cost.serving_basis):
        assert (basis or "").endswith(warning)
    # Hardware without a name is this machine.
    here = {**OWN, "hardware": {"usd_per_hour": 0.05}}
    assert priced(bakeoff(here), measured(CPU), tmp_path).elsewhere is None


@pytest.mark.parametrize(
    ("contender", "record", "said"),
    [
        ({"name": "a", "id": "local"}, A40, "not priced: name hardware"),
        (
            {**OWN, "hardware": {"accelerator": "T4"}},
            A40,
            f"not priced: an hour of T4 has no price on {DAY}; give hardware.usd_per_hour",
        ),
        (OWN, None, "not priced: its throughput was not measured"),
        (
            {**HOSTED, "base_url": "http://127.0.0.1:9/v1"},
            None,
            "not priced: a server on this machine",
        ),
        (
            {**HOSTED, "model": "gpt-4.2"},
            None,
            "not priced: its model has no price in the book; give it a `price:`",
        ),
    ],
)
def test_what_is_not_priced_says_why(
    contender: dict[str, Any], record: ServingRecord | None, said: str, tmp_path: Path
) -> None:
    found = priced(bakeoff(contender), measured(record), tmp_path)
    assert found.cost.serving_basis == said
    assert found.monthly is None
    assert found.cost.serving_usd_per_1k_requests is None
    assert found.cost.fixed_usd_per_month is None


def test_a_providers_model_that_ends_is_tuned_again(tmp_path: Path) -> None:
    """$0.80 and $3.20 a million; what it cost to tune comes again every year."""
    run = RunDir(tmp_path)
    made = bakeoff(HOSTED)
    pricing = RunPricing(made, run)
    purse = pricing.ledger.open_budget("mini", None)
    assert purse is not None
    found = pricing.priced(made.contenders[0], measured(planned=12.0)).cost
    assert found.training_usd is None
    assert found.training_usd_planned == 12.0
    assert found.serving_usd_per_1k_requests == pytest.approx(0.162)
    assert found.fixed_usd_per_month == 1.0
    assert found.serving_basis == (
        "122 tokens in × $0.8 and 20 out × $3.2 per million; prices of 2026-11-24: "
        "https://developers.openai.com/api/docs/pricing, read 2026-09-03; it ends on 2027-01-14: "
        "tuning again every 12 months at $12.00 is $1.00 a month"
    )
    asked = {"name": "old", "id": "prompted", "model": "ft:gpt-4o-mini-2024-07-18:acme::abc"}
    answers = priced(bakeoff(asked), measured(), tmp_path).cost
    assert (answers.serving_basis or "").endswith("; it ends on 2027-01-14")
    assert answers.fixed_usd_per_month == 0
    sooner = bakeoff(HOSTED, serving={"tune_again_months": 3, "requests_per_month": 1000})
    again = priced(sooner, measured(planned=12.0), tmp_path).cost
    assert again.fixed_usd_per_month == 4.0
    assert again.serving_usd_per_1k_requests == pytest.approx(4.162)
    assert pricing.ends(made.contenders[0]) == "2027-01-14"


def test_batches_and_deployments(tmp_path: Path) -> None:
    batch = priced(bakeoff({**HOSTED, "batch": True}), measured(), tmp_path).cost
    live = priced(bakeoff(HOSTED), measured(), tmp_path).cost
    assert (batch.serving_usd_per_1k_requests or 0) < (live.serving_usd_per_1k_requests or 0)
    assert "prices of batches" in (batch.serving_basis or "")
    deployed = {
        "name": "own-deployment", "id": "hosted", "provider": "together",
        "model": "Qwen/Qwen3-8B", "price": {"hosting_usd_per_hour": 2.5},
    }  # fmt: skip
    found = priced(bakeoff(deployed), measured(), tmp_path).cost
    assert found.fixed_usd_per_month == 1825.0
    assert found.serving_usd_per_1k_requests == 0.0
    assert (found.serving_basis or "").startswith("hosting $2.5/h × 730 h a month; prices of")


def test_break_even_of_a_pair(tmp_path: Path) -> None:
    made = bakeoff(OWN, HOSTED)
    pricing = RunPricing(made, RunDir(tmp_path))
    own, mini = made.contenders
    found = {
        "lora": pricing.priced(own, measured(CPU)), "mini": pricing.priced(mini, measured()),
    }  # fmt: skip
    places = {"lora": find_hosting(own), "mini": find_hosting(mini)}
    (pair,) = compute_break_evens(found, places, 0.5)
    assert (pair.own, pair.hosted, pair.utilization) == ("lora", "mini", 0.5)
    expected = 321.2 / 0.000162
    assert pair.requests_per_month == pytest.approx(expected)
    assert pair.first_requests_per_month == pair.requests_per_month
    assert pair.warning == found["lora"].elsewhere
    cheaper = [point.own_usd <= point.hosted_usd for point in pair.curve]
    beyond = [point.requests_per_month >= expected for point in pair.curve]
    assert cheaper == beyond, "the curve crosses where the number says"
    assert {False, True} == set(cheaper)
    moved = {(s.what, s.value): s.first_requests_per_month for s in pair.sensitivity}
    assert moved["usd_per_hour", 2.0] == pytest.approx(2 * expected)
    assert moved["hosted_usd_per_request", 2.0] == pytest.approx(expected / 2)
    assert moved["utilization", 1.0] == pytest.approx(expected)
    assert ("utilization", 0.5) not in moved
    assert moved["utilization", 0.1] is None, "a machine full of requests costs more than they do"
    lasting = {(s.what, s.value): s.requests_per_month for s in pair.sensitivity}
    # At $0.88/h a machine is $642.40, and saves $209 when it is full: the fourth is paid by those.
    assert lasting["usd_per_hour", 2.0] == pytest.approx(4 * 642.4 / 0.000162)
    assert compute_break_evens({"lora": found["lora"]}, places, 0.5) == ()


@pytest.mark.parametrize(
    ("contender", "place"),
    [
        (OWN, "own"),
        (HOSTED, "provider"),
        ({**HOSTED, "base_url": "http://localhost:1/v1"}, "own"),
        (
            {**HOSTED, "base_url": "http://localhost:1/v1",
             "price": {"input_usd_per_million_tokens": 1}},
            "provider",  # something that is paid for stands behind it
        ),
        ({**HOSTED, "base_url": "https://example.org/v1"}, "provider"),
        ({"name": "p", "id": "prompted", "base": "tiny"}, "own"),
        ({"name": "p", "id": "prompted", "model": "gpt-4.1"}, "provider"),
        ({"name": "r", "id": "recorded", "predictions": "p.jsonl"}, None),
        ({"name": "r", "id": "recorded", "predictions": "p.jsonl", "model": "ft:a:b::c"},
         "provider"),
        ({"name": "r", "id": "recorded", "training": {"hours": 1},
          "hardware": {"accelerator": "A40"}}, "own"),
    ],
)  # fmt: skip
def test_who_answers(contender: dict[str, Any], place: str | None) -> None:
    assert find_hosting(bakeoff(contender).contenders[0]) == place


@pytest.mark.parametrize(
    ("training", "more", "usd", "basis"),
    [
        ({"usd": 3.32}, {}, 3.32, "reported"),
        ({"hours": 7}, {"hardware": {"accelerator": "A40", "usd_per_hour": 0.475}}, 3.325,
         "7 h × $0.475/h (A40)"),
        ({"hours": 7, "usd": 3.32}, {"hardware": {"accelerator": "A40"}}, 3.32,
         "reported; 7 h × $0.475/h (A40) = $3.325"),
        ({"tokens_billed": 10**6}, {"provider": "openai", "model": "gpt-3.5-turbo-0613"}, 8.0,
         "1,000,000 tokens × $8 per million"),
        ({"tokens_billed": 10**6, "hours": 2}, {}, None, "2 h, 1,000,000 tokens"),
        ({"tokens_billed": 10**6}, {"provider": "openai", "model": "no-such"}, None,
         "1,000,000 tokens"),
    ],
)  # fmt: skip
def test_reported_money(
    training: dict[str, Any], more: dict[str, Any], usd: float | None, basis: str, tmp_path: Path
) -> None:
    contender = {"name": "r", "id": "recorded", "training": training, "source": "a paper", **more}
    found = priced(bakeoff(contender, as_of="2023-09-12"), measured(), tmp_path).cost
    assert (found.training_usd, found.training_basis) == (usd, basis)
    assert found.price_sources[-1] == "a paper"
    assert found.serving_usd_per_1k_requests is None


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        ({"name": "r", "id": "recorded"}, "give predictions .* or scores or training"),
        ({"name": "r", "id": "recorded", "training": {}}, "give usd, hours or tokens_billed"),
        ({"name": "r", "id": "recorded", "training": {"usd": -1}}, "greater than or equal to 0"),
        ({"name": "r", "id": "recorded", "training": {"usd": 1e6}}, "less than 10000"),
        ({"name": "r", "id": "recorded", "training": {"hours": 0}}, "greater than 0"),
        (
            {"name": "r", "id": "recorded", "training": {"hours": 1}, "provider": "openai",
             "hardware": {"accelerator": "A40"}},
            "not both",
        ),
        ({**OWN, "hardware": {"usd_per_hour": -1}}, "greater than or equal to 0"),
        ({**OWN, "hardware": {"usd_per_hour": 1e5}}, "less than 10000"),
        ({**OWN, "hardware": {"usd_per_hour": float("nan")}}, "usd_per_hour"),
    ],
)  # fmt: skip
def test_absurd_figures_are_one_sentence(contender: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        bakeoff(contender)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "serving",
    [{"utilization": 0}, {"utilization": 1.5}, {"requests_per_month": 0}, {"tune_again_months": 0},
     {"tune_again_months": "often"}],
)  # fmt: skip
def test_absurd_serving_is_refused(serving: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"serving.{next(iter(serving))}"):
        bakeoff(OWN, serving=serving)


def test_prices_are_of_the_day_on_which_the_run_began(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    made = bakeoff(OWN)
    assert find_price_day(made, run) == datetime.date(2026, 11, 24)
    undated = bakeoff(OWN, as_of=None)
    assert find_price_day(undated, run) == environment.today()
    run.path.mkdir(exist_ok=True)
    run.events.write_text('{"at": "2026-10-01T12:00:00+00:00", "event": "tune"}\n')
    run.event("finished")
    assert find_price_day(undated, run) == datetime.date(2026, 10, 1)
    early = undated.model_copy(update={"contenders": bakeoff(OWN | {
        "hardware": {"accelerator": "H200"}}).contenders})  # fmt: skip
    found = RunPricing(early, run).priced(early.contenders[0], measured(A40))
    assert "has no price on 2026-10-01" in (found.cost.serving_basis or "")


def test_sums_of_money_are_decimal(tmp_path: Path) -> None:
    made = bakeoff(OWN)
    found = priced(made, measured(A40), tmp_path)
    assert found.monthly is not None
    assert isinstance(found.monthly.usd(Decimal(10)), Decimal)
