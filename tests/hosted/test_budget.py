"""`budget_usd` holds: nothing is paid for that could pass it, a run that reaches it stops within
one window of requests, and goes on for what is missing when more is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import PRICE, Trainer, bakeoff_file, hosted, prompted, rows
from world import run as carry_out

import tuneoff
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import BudgetError, ConfigError

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")
CHAT = "/v1/chat/completions"
TESTS, CONCURRENCY = 60, 4
BUDGET = 0.0046  # all of them can cost at most 0.00454, as far as is known before


def run_again(file: Path, **changed: Any) -> Any:
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changed))
    return carry_out(file)


def spent(file: Path) -> tuple[float, float]:
    """Known, and known + uncertain."""
    found = Ledger(file.parent / "run" / "events.jsonl").spent()
    return float(found.known), float(found.known + found.uncertain)


@pytest.mark.parametrize("kind", ["hosted", "prompted", "both"])
def test_over_budget_is_refused_before_anything_is_paid(
    fake: Trainer, tmp_path: Path, cli: Any, kind: str
) -> None:
    one = hosted(fake.url, price=PRICE), prompted(fake.url, price=PRICE)
    contenders = {"hosted": one[:1], "prompted": one[1:], "both": one}[kind]
    file = bakeoff_file(tmp_path / "b", *contenders, test=TESTS, budget_usd=0.001)
    code, out, err = cli("run", file, "--run-dir", tmp_path / "run")
    assert (code, out) == (3, "")
    assert "budget_usd 0.001" in err
    assert "what is left to do can cost up to $0." in err
    assert fake.saw()["log"] == []


def test_a_plan_is_over_the_budget_where_a_run_is_refused(
    fake: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit; the plan needs no key and sends nothing."""
    batch = {"batch_input_usd_per_million_tokens": 0.1, "batch_output_usd_per_million_tokens": 0.7}
    contenders = (
        hosted(fake.url, price=PRICE, epochs=2),
        prompted(fake.url, price=PRICE, shots=2, samples=2),
        prompted(fake.url, "later", price=PRICE | batch, batch=True, samples=3),
    )
    file = bakeoff_file(tmp_path / "b", *contenders, test=TESTS)

    def plan_of(budget: float | None) -> Any:
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"budget_usd": budget}))
        with monkeypatch.context() as patch:
            patch.delenv("OPENAI_API_KEY")
            return tuneoff.plan(tuneoff.load(file))

    most = plan_of(None).most_usd
    under = plan_of(most - 1e-9)
    assert (under.is_over_budget, under.total_usd < under.budget_usd) == (True, True)
    with pytest.raises(BudgetError, match="what is left to do"):
        carry_out(file)
    assert fake.saw()["log"] == []
    assert not plan_of(most).is_over_budget
    assert [each.error for each in carry_out(file).contenders] == [None] * 3


DEARER = PRICE | {
    "cached_input_usd_per_million_tokens": 0.03,
    "cache_write_usd_per_million_tokens": 0.375,
    "batch_input_usd_per_million_tokens": 0.15,
    "batch_output_usd_per_million_tokens": 0.6,
}


def test_the_cache_and_reasoning_are_billed_and_within_every_leave(
    fake: Trainer, tmp_path: Path
) -> None:
    """As the provider counts them; a model that reasons is asked in its own words at once."""
    fake.set(cached=True, reasoning=40, newer_model=True)
    settings = {"price": DEARER, "reasoning_effort": "low", "reasoning_tokens": 64}
    contenders = prompted(fake.url, **settings), prompted(fake.url, "later", batch=True, **settings)
    file = bakeoff_file(tmp_path / "b", *contenders)
    most = tuneoff.plan(tuneoff.load(file)).most_usd
    results = carry_out(file)
    assert [each.error for each in results.contenders] == [None, None]
    assert fake.completions() == len(rows(file, "asked")) == 8
    saw = fake.saw()
    assert {(b["reasoning_effort"], b["max_completion_tokens"]) for b in saw["chat_bodies"]} == {
        ("low", 16 + 64)
    }
    assert min(row["tokens_out"] for name in ("asked", "later") for row in rows(file, name)) > 40
    assert min(saw["billed"]["written"], saw["billed"]["batch_written"]) > 0
    assert spent(file) == pytest.approx((fake.billed_usd(DEARER),) * 2, abs=1e-12)
    leaves: dict[str, float] = {}
    for event in map(json.loads, (file.parent / "run/events.jsonl").read_text().splitlines()):
        if event["event"] == "authorized":
            leaves[event["key"]] = event["usd"]
        elif event["event"] == "settled":
            assert event["usd"] <= leaves[event["key"]]
    assert len(leaves) == 8 + 1
    assert sum(leaves.values()) == pytest.approx(most)
    assert results.contenders[0].model == "fake-1, zero-shot, reasoning low"
    basis = results.contenders[0].cost.serving_basis or ""
    assert "cache writes ($0.375 per million) and reads are not counted" in basis


def test_two_that_fit_alone_may_not_fit_together(fake: Trainer, tmp_path: Path) -> None:
    pair = prompted(fake.url, price=PRICE), prompted(fake.url, "again", price=PRICE)
    alone = bakeoff_file(tmp_path / "alone", pair[0], test=TESTS, budget_usd=BUDGET)
    carry_out(alone)
    asked = fake.completions()
    assert asked == TESTS
    with pytest.raises(BudgetError):
        carry_out(bakeoff_file(tmp_path / "both", *pair, test=TESTS, budget_usd=BUDGET))
    assert fake.completions() == asked


def test_a_budget_that_is_reached_midway_stops_within_a_window(
    fake: Trainer, tmp_path: Path
) -> None:
    """The server bills more than anybody could know before."""
    fake.set(bills=30.0, latency=0.02)
    settings = {"price": PRICE, "concurrency": CONCURRENCY}
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, **settings), test=TESTS,
                        budget_usd=BUDGET)  # fmt: skip
    with pytest.raises(BudgetError, match="everything done so far is kept"):
        carry_out(file)
    saw = fake.saw()
    answered = saw["billed"]["completions"]
    assert 0 < answered < TESTS
    reached = BUDGET / (fake.billed_usd() / answered)  # answers until there
    assert reached - CONCURRENCY <= answered <= reached + CONCURRENCY
    assert fake.completions() == answered
    found = rows(file, "asked")
    assert len(found) == answered
    assert all(row["prediction"] for row in found)
    assert spent(file) == pytest.approx((fake.billed_usd(),) * 2, abs=1e-9)
    results = run_again(file, budget_usd=1.0)
    assert results.contenders[0].error is None
    assert len(rows(file, "asked")) == TESTS
    assert set(fake.saw()["asked"].values()) == {1}


def test_answers_that_were_lost_count_against_the_budget(fake: Trainer, tmp_path: Path) -> None:
    """What may have been billed is not spent a second time, and the bill stays below."""
    fake.set(faults=[{"method": "POST", "path": CHAT, "kinds": ["forwarded", "mid-body"],
                      "rate": 0.6, "seed": 1}])  # fmt: skip
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, price=PRICE, concurrency=CONCURRENCY),
                        test=TESTS, budget_usd=BUDGET, measure=False)  # fmt: skip
    with pytest.raises(BudgetError, match="answers that were lost"):
        carry_out(file)
    known, most = spent(file)
    assert known <= fake.billed_usd() <= most <= BUDGET
    kept = len(rows(file, "asked"))
    assert 0 < kept < TESTS
    lost = fake.completions() - kept
    fake.set(faults=[])
    run_again(file, budget_usd=1.0)
    assert len(rows(file, "asked")) == TESTS
    assert fake.completions() == TESTS + lost


def test_a_budget_that_is_lowered_holds_at_once(fake: Trainer, tmp_path: Path) -> None:
    """What was done before is kept and costs nothing more."""
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, price=PRICE), budget_usd=1.0)
    carry_out(file)
    asked = fake.completions()
    assert run_again(file, budget_usd=1e-7).contenders[0].error is None
    assert fake.completions() == asked


@pytest.fixture
def elsewhere(fake: Trainer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fake trainer under an address that is not known to be this machine's: it wants a price.
    On Linux, connecting to 0.0.0.0 reaches loopback."""
    monkeypatch.setenv("NO_PROXY", "*")
    return f"http://0.0.0.0:{fake.port}/v1"


def test_a_model_without_a_price_is_not_asked(
    fake: Trainer, elsewhere: str, tmp_path: Path, cli: Any
) -> None:
    file = bakeoff_file(tmp_path / "b", hosted(elsewhere))
    command = ("run", file, "--run-dir", file.parent / "run")
    code, _, err = cli(*command)
    assert code == 2
    assert "price" in err
    assert "--yes" in err
    assert fake.saw()["log"] == []
    code, _, err = cli(*command, "--yes")
    assert code == 0, err
    assert len(rows(file)) == 8
    assert spent(file) == (0.0, 0.0)


def test_a_price_in_the_file_is_enough(fake: Trainer, elsewhere: str, tmp_path: Path) -> None:
    file = bakeoff_file(tmp_path / "b", hosted(elsewhere, price=PRICE))
    cost = carry_out(file).contenders[0].cost
    assert cost.training_usd + cost.answering_usd == pytest.approx(fake.billed_usd(), abs=1e-9)
    assert cost.price_sources == ("the bake-off file",)


def test_half_a_price_is_none(fake: Trainer, elsewhere: str, tmp_path: Path) -> None:
    half = {"training_usd_per_million_tokens": 3.0}
    file = bakeoff_file(tmp_path / "b", hosted(elsewhere, price=half))
    with pytest.raises(ConfigError, match="lacks input_usd_per_million_tokens, output_usd"):
        carry_out(file)
    assert fake.saw()["log"] == []
