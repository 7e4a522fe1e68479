"""The ledger holds what it says, whatever comes in which order and wherever it is cut:
known ≤ billed ≤ known + uncertain, and never more than the budget."""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tuneoff.costs.ledger import Ledger, LedgerReservation, Spending
from tuneoff.costs.price_book import Price
from tuneoff.costs.token_costs import price_known_tokens, price_max_tokens
from tuneoff.errors import BudgetError
from tuneoff.storage.files import read_lines

PRICE = Price(
    source="a test",
    training_usd_per_million_tokens=Decimal("3.1"),
    input_usd_per_million_tokens=Decimal("0.37"),
    output_usd_per_million_tokens=Decimal("1.23"),
    cache_write_usd_per_million_tokens=Decimal("0.46"),
)
BUDGET = 4.0
TOKENS = st.integers(0, 400_000)
NAMES = st.sampled_from(["a", "b"])


class Paying(RuleBasedStateMachine):
    """Steps are taken, billed, lost and refused; the process is killed between any two lines, or
    inside of one, and goes on. `billed` is what the provider knows: by key."""

    tickets: Bundle[LedgerReservation] = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.events = Path(self._folder.name) / "events.jsonl"
        self.ledger = Ledger(self.events, BUDGET)
        self.billed: dict[str, Decimal] = {}
        self.count = 0

    def teardown(self) -> None:
        self._folder.cleanup()

    @rule(target=tickets, name=NAMES, what=st.sampled_from(["training", "answering"]),
          most=TOKENS, share=st.floats(0, 1), carried_out=st.booleans())  # fmt: skip
    def step(
        self, name: str, what: str, most: int, share: float, carried_out: bool
    ) -> LedgerReservation | None:
        """Leave is asked for; then the provider bills at most so much, whoever hears of it."""
        self.count += 1
        tokens = {"training": most} if what == "training" else {"input": most, "output": most // 9}
        purse = self.ledger.open_budget(name, PRICE)
        try:
            ticket = purse.authorize(what, f"key {self.count}", **tokens)
        except BudgetError:
            spent = self.ledger.spent()
            counts = (tokens.get(kind, 0) for kind in ("training", "input", "output"))
            bound = price_max_tokens(PRICE, *counts)
            assert spent.known + spent.uncertain + bound > Decimal(str(BUDGET))
            return None
        if carried_out:
            used = int(share * most)
            counts = (used, 0) if what == "training" else (0, used)
            self.billed[ticket.key] = price_known_tokens(
                PRICE, *counts, 0, written_tokens_in=counts[1]
            )
        return ticket

    @rule(ticket=consumes(tickets))
    def heard(self, ticket: LedgerReservation | None) -> None:
        """The answer came, with its bill, or the word that nothing was done."""
        ticket = self._now(ticket)
        if ticket is None:
            return
        if ticket.key in self.billed:
            ticket.settle(usd=float(self.billed[ticket.key]))
            ticket.settle(usd=99.0)  # a second bill for one step is none
        else:
            ticket.release()

    @rule(ticket=consumes(tickets))
    def lost(self, ticket: LedgerReservation | None) -> None:
        """Nobody hears of it any more."""

    @rule(ticket=tickets)
    def asked_for_again(self, ticket: LedgerReservation | None) -> None:
        """Leave for a step that is known costs nothing more."""
        ticket = self._now(ticket)
        if ticket is not None and ticket.key in self._open():
            before = self.ledger.spent()
            ticket.budget.authorize("training", ticket.key, training=10**12)
            assert self.ledger.spent() == before

    @rule()
    def killed(self) -> None:
        before = self.ledger.spent(), self.ledger.spent("a"), self.ledger.spent("b", "training")
        self.ledger = Ledger(self.events, BUDGET)
        after = self.ledger.spent(), self.ledger.spent("a"), self.ledger.spent("b", "training")
        assert after == before

    @rule(share=st.floats(0, 0.999))
    def killed_inside_a_line(self, share: float) -> None:
        """Only part of the last line was written. Leave that was not written down was not had:
        what it was for did not begin."""
        lines = self.events.read_bytes().splitlines(keepends=True) if self.events.exists() else []
        if not lines or not lines[-1].endswith(b"\n"):
            return
        last = json.loads(lines[-1])
        torn = lines[-1][: int(share * len(lines[-1]))]
        self.events.write_bytes(b"".join(lines[:-1]) + torn)
        if last["event"] == "authorized":
            self.billed.pop(last["key"], None)
        self.ledger = Ledger(self.events, BUDGET)

    @rule(name=NAMES)
    def begun_anew(self, name: str) -> None:
        """What a contender cost is spent all the same when it is forgotten."""
        before = self.ledger.spent()
        self.ledger.forget(name)
        assert self.ledger.spent() == before
        assert self.ledger.spent(name) == Spending()

    @invariant()
    def holds(self) -> None:
        spent, billed = self.ledger.spent(), sum(self.billed.values(), Decimal(0))
        assert spent.known <= billed <= spent.known + spent.uncertain
        assert spent.known + spent.uncertain <= Decimal(str(BUDGET))

    def _open(self) -> set[str]:
        rows = list(read_lines(self.events))
        begun = {row["key"] for row in rows if row["event"] == "authorized"}
        return begun - {row["key"] for row in rows if row["event"] == "settled"}

    def _now(self, ticket: LedgerReservation | None) -> LedgerReservation | None:
        """A ticket of the process that lives now; None for leave that was never had."""
        if ticket is None or not self.events.exists() or ticket.key not in self._open():
            return None
        return LedgerReservation(ticket.budget, self.ledger, ticket.key)


Paying.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPaying = Paying.TestCase


def test_many_threads_stay_below_the_budget(tmp_path: Path) -> None:
    """Of many that ask at once only as many get leave as there is money for."""
    ledger = Ledger(tmp_path / "events.jsonl", 1.0)

    def ask(number: int) -> bool:
        try:
            ledger.authorize(f"{number}", "a", "answering", Decimal("0.1"))
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(100))) == 10
    assert Ledger(tmp_path / "events.jsonl").spent().uncertain == 1


def test_an_estimate_raises_what_a_step_may_cost(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.jsonl", 1.0)
    ticket = ledger.open_budget("a", PRICE).authorize("training", training=100_000)
    ticket.increase_to(0.2)  # less than was thought
    assert ledger.spent().uncertain == Decimal("0.31")
    ticket.increase_to(0.9)
    assert ledger.spent().uncertain == Decimal("0.9")
    with pytest.raises(BudgetError, match=r"\$1\.10.* of budget_usd 1"):
        ticket.increase_to(1.1)
    assert Ledger(tmp_path / "events.jsonl").spent().uncertain == Decimal("0.9")
    ticket.settle(training=100_000)
    assert Ledger(tmp_path / "events.jsonl").spent().known == Decimal("0.31")


def test_a_bill_above_the_bound_counts_in_full(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.jsonl", 1.0)
    purse = ledger.open_budget("a", PRICE)
    purse.authorize("answering", input=10).settle(input=2_600_000)
    assert ledger.spent().known == Decimal("0.962")
    with pytest.raises(BudgetError):
        purse.authorize("answering", input=200_000)


def test_what_was_given_back_may_be_had_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.jsonl", 1.0)
    purse = ledger.open_budget("a", PRICE)
    for _ in range(2):
        purse.authorize("training", "key", training=200_000).release()
        assert ledger.spent() == Spending()
    purse.authorize("training", "key", training=200_000).settle(training=150_000)
    again = Ledger(tmp_path / "events.jsonl", 1.0)
    assert again.spent() == ledger.spent() == Spending(known=Decimal("0.465"))


def test_what_has_no_price_costs_nothing_that_is_known(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "events.jsonl", 0.0)
    ledger.open_budget("a", None).authorize("training", training=10**9).settle(training=10**9)
    assert ledger.spent() == Spending()
