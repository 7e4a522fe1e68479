"""The ledger of a run: a reservation before each paid step, and its settlement after.

It is stored in `events.jsonl`. `authorized` holds the maximum cost of a step. `settled` holds what
was billed for it, 0 when it was certainly not carried out. A step that is authorized and not
settled (its answer was lost, the process was killed) may have been billed. It counts in full
against the budget and is shown as uncertain. So always known ≤ billed ≤ known + uncertain, as far
as a provider says what it bills.
"""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tuneoff import environment
from tuneoff.costs.price_book import Price
from tuneoff.costs.token_costs import price_known_tokens, price_max_tokens, price_tokens
from tuneoff.errors import BudgetError
from tuneoff.results import Cost
from tuneoff.storage.files import append_lines, read_lines

AUTHORIZED, SETTLED, PRICED, FORGOTTEN = "authorized", "settled", "priced", "forgotten"
# Owner of the steps of forgotten contenders: they count against the budget, and for no contender.
NOBODY = ""
TRAINING, ANSWERING = "training", "answering"
ZERO, CENT = Decimal(0), Decimal("0.01")


SpendingListener = Callable[[float, float, float | None], None]


@dataclass(frozen=True, slots=True)
class Spending:
    """USD of a contender's steps of one kind."""

    known: Decimal = ZERO
    """Billed."""
    uncertain: Decimal = ZERO
    """Perhaps billed."""


class Ledger:
    """A run's ledger; many threads may use it."""

    def __init__(
        self,
        events: Path,
        budget_usd: float | None = None,
        listener: SpendingListener | None = None,
    ) -> None:
        """Read the ledger.

        Args:
            events: the run's `events.jsonl`.
            listener: called on every change with the known USD, the uncertain USD and the budget.
        """
        self._events, self._told = events, listener
        self._budget = None if budget_usd is None else Decimal(str(budget_usd))
        self._lock = threading.Lock()
        # Open reservations by key: (contender, kind of step, USD).
        self._open: dict[str, tuple[str, str, Decimal]] = {}
        self._settled: dict[str, Decimal] = {}
        self._known: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self.priced: dict[str, dict[str, Any]] = {}
        for row in read_lines(events):
            self._read(row)
        if self._open or self._known:
            self._tell()

    def _tell(self) -> None:
        """Report what is spent."""
        if self._told is not None:
            spent = self._spent()
            budget = None if self._budget is None else float(self._budget)
            self._told(float(spent.known), float(spent.uncertain), budget)

    def _read(self, row: Mapping[str, Any]) -> None:
        """Apply one event to the sums."""
        kind = row["event"]
        if kind == AUTHORIZED:
            self._open[row["key"]] = (row["contender"], row["what"], Decimal(str(row["usd"])))
        elif kind == SETTLED and row["key"] in self._open:
            contender, what, _ = self._open.pop(row["key"])
            if row.get("given_back"):
                return
            self._settled[row["key"]] = Decimal(str(row["usd"]))
            self._known[contender, what] += self._settled[row["key"]]
        elif kind == PRICED:
            self.priced[row["contender"]] = row["price"]
        elif kind == FORGOTTEN:
            self._forget(row["contender"])

    def adopt(self, events: Path, contender: str) -> None:
        """Copy a contender's payments from a recorded run, once."""
        keys = {key for key, (of, _, _) in self._open.items() if of == contender}
        if keys or any(of == contender for of, _ in self._known):
            return
        rows = []
        for row in read_lines(events):
            if row.get("contender") == contender and row["event"] in (AUTHORIZED, PRICED):
                keys.add(row.get("key", ""))
                rows.append(row)
            elif row["event"] == SETTLED and row["key"] in keys:
                rows.append(row)
        append_lines(self._events, rows)
        for row in rows:
            self._read(row)

    def names(self) -> set[str]:
        """Return the contenders that something was, or may have been, paid for."""
        open_names = {of for of, _, _ in self._open.values()}
        return (open_names | {of for (of, _), usd in self._known.items() if usd}) - {NOBODY}

    def forget(self, contender: str) -> None:
        """Start a contender anew; what it cost before stays spent."""
        with self._lock:
            if contender in self.names():
                self._forget(contender)
                self._write(FORGOTTEN, contender=contender)

    def _forget(self, contender: str) -> None:
        """Move a contender's steps to `NOBODY`."""
        for key, (of, what, usd) in self._open.items():
            if of == contender:
                self._open[key] = (NOBODY, what, usd)
        for of, what in list(self._known):
            if of == contender:
                self._known[NOBODY, what] += self._known.pop((of, what))

    def spent(self, contender: str | None = None, what: str | None = None) -> Spending:
        """Return what was spent: by one contender or all, on one kind of step or all."""
        with self._lock:
            return self._spent(contender, what)

    def _spent(self, contender: str | None = None, what: str | None = None) -> Spending:
        """Return what was spent, without locking."""

        def counts(of: str, kind: str) -> bool:
            return contender in (None, of) and what in (None, kind)

        known = sum((usd for step_kind, usd in self._known.items() if counts(*step_kind)), ZERO)
        reservations = self._open.values()
        uncertain = sum((usd for of, kind, usd in reservations if counts(of, kind)), ZERO)
        return Spending(known, uncertain)

    def check_budget(self, usd: Decimal, what: str) -> None:
        """Raise BudgetError if this many USD more could pass the budget."""
        with self._lock:
            self._check_budget(usd, what)

    def _check_budget(self, usd: Decimal, what: str, reserved: Decimal = ZERO) -> None:
        """Raise BudgetError if this many USD could pass the budget.

        Args:
            reserved: the part of them that is counted already.
        """
        spent = self._spent()
        uncertain = spent.uncertain - reserved
        if self._budget is None or spent.known + uncertain + usd <= self._budget:
            return
        before = f"${spent.known:.2f} are spent"
        # Only a job's reservation is increased after it was made.
        jobs = self._spent(what=TRAINING).uncertain - reserved
        answers = uncertain - jobs
        if jobs:
            before += f", up to ${jobs:.2f} by jobs that are under way or were not seen to end"
        if answers:
            before += f", ${answers:.2f} more perhaps (answers that were lost)"
        raise BudgetError(
            f"{what} can cost up to ${usd:.2f}, and {before}, of budget_usd {self._budget:g}; "
            "everything done so far is kept: raise budget_usd, or leave something out."
        )

    def open_budget(self, contender: str, price: Price | None) -> ContenderBudget:
        """Return a contender's budget; without a price, its steps cost nothing that is known."""
        if price is not None:
            figures = {
                "training": _to_float(price.training_usd_per_million_tokens),
                "input": _to_float(price.input_usd_per_million_tokens),
                "output": _to_float(price.output_usd_per_million_tokens),
                "source": price.source,
                "retrieved": price.retrieved.isoformat() if price.retrieved else None,
                "stale": price.stale,
            }
            if self.priced.get(contender) != figures:
                self.priced[contender] = figures
                self._write(PRICED, contender=contender, price=figures)
        return ContenderBudget(self, contender, price)

    def authorize(self, key: str, contender: str, what: str, usd: Decimal) -> None:
        """Reserve the cost of a step before it is taken; a key is reserved once.

        Raises:
            BudgetError: the step could pass the budget; nothing is reserved.
        """
        with self._lock:
            if key in self._open or key in self._settled:
                return
            self._check_budget(usd, f"{contender}: {what}")
            self._open[key] = (contender, what, usd)
            self._write(AUTHORIZED, key=key, contender=contender, what=what, usd=_to_float(usd))

    def increase_to(self, key: str, usd: Decimal) -> None:
        """Increase a reservation to a larger cost.

        Raises:
            BudgetError: that could pass the budget.
        """
        with self._lock:
            if key not in self._open or usd <= self._open[key][2]:
                return
            contender, what, before = self._open[key]
            self._check_budget(usd, f"{contender}: {what}", before)
            self._open[key] = (contender, what, usd)
            self._write(AUTHORIZED, key=key, contender=contender, what=what, usd=_to_float(usd))

    def settle(self, key: str, usd: Decimal, **tokens: int) -> None:
        """Record what a step was billed, once."""
        with self._lock:
            if key in self._settled:
                return
            contender, what, _ = self._open.pop(key)
            self._settled[key] = usd
            self._known[contender, what] += usd
            self._write(SETTLED, key=key, usd=_to_float(usd), **tokens)

    def release(self, key: str) -> None:
        """Release the reservation of a step that was certainly not executed.

        The step may be authorized again.
        """
        with self._lock:
            if self._open.pop(key, None) is not None:
                self._write(SETTLED, key=key, usd=0.0, given_back=True)

    def _write(self, event: str, **facts: Any) -> None:
        """Append an event and report the new sums."""
        now = environment.now().isoformat(timespec="seconds")
        append_lines(self._events, [{"at": now, "event": event, **facts}])
        self._tell()


class ContenderBudget:
    """The budget of one contender: turns tokens into money."""

    def __init__(self, ledger: Ledger, contender: str, price: Price | None) -> None:
        self._ledger, self._contender, self.price = ledger, contender, price

    def authorize(
        self,
        what: str,
        key: str | None = None,
        *,
        training: int = 0,
        input: int = 0,
        output: int = 0,
        batch: bool = False,
    ) -> LedgerReservation:
        """Reserve the maximum cost of a step and return the reservation.

        Args:
            key: idempotency key of a step that continues after a restart.
            batch: the step is billed at the prices of a batch.

        Raises:
            BudgetError: the step could pass the budget.
        """
        key = key or secrets.token_hex(6)
        usd = price_max_tokens(self.price, training, input, output, batch)
        self._ledger.authorize(key, self._contender, what, usd)
        return LedgerReservation(self, self._ledger, key, batch)


@dataclass(frozen=True, slots=True)
class LedgerReservation:
    """The reservation of one step in the ledger."""

    budget: ContenderBudget
    ledger: Ledger
    key: str
    batch: bool = False

    def increase_to(self, usd: float) -> None:
        """Increase the reservation to the provider's own estimate.

        Raises:
            BudgetError: that could pass the budget.
        """
        self.ledger.increase_to(self.key, Decimal(str(usd)))

    def settle(
        self,
        *,
        training: int = 0,
        input: int = 0,
        output: int = 0,
        cached: int = 0,
        written: int = 0,
        usd: float | None = None,
    ) -> None:
        """Record that the step was carried out, with the tokens that were billed.

        Args:
            cached: tokens of `input` billed at the price of cached input.
            written: tokens of `input` billed at the price of cache writes.
            usd: the amount that the provider says it billed; None where it does not say.
        """
        tokens = {"training": training, "input": input, "output": output, "cached": cached,
                  "written": written}  # fmt: skip
        priced = price_known_tokens(
            self.budget.price, training, input, output, cached, self.batch, written
        )
        billed = priced if usd is None else Decimal(str(usd))
        self.ledger.settle(self.key, billed, **{name: n for name, n in tokens.items() if n})

    def release(self) -> None:
        """Release the reservation: the step was certainly not carried out."""
        self.ledger.release(self.key)


def _to_float(usd: Decimal | None) -> float | None:
    """Return USD as a float; None where not known."""
    return None if usd is None else float(usd)


def build_provider_cost(contender: str, tokens_billed: int | None, ledger: Ledger) -> Cost:
    """Return the cost of a provider's work as the ledger has it; empty where no price was known."""
    price = ledger.priced.get(contender)
    if price is None:
        return Cost()
    training, answering = (ledger.spent(contender, what) for what in (TRAINING, ANSWERING))
    basis = None
    if tokens_billed is not None and price["training"] is not None:
        basis = f"{tokens_billed:,} tokens × ${price['training']:g} per million"
        priced = price_tokens(tokens_billed, Decimal(str(price["training"])))
        if abs(training.known - priced) >= CENT:
            basis = f"{tokens_billed:,} tokens, as the provider billed them"
    stale = f" (read on {price['retrieved']}, more than 90 days before)" if price["stale"] else ""
    known = basis is not None or training.known
    return Cost(
        training_usd=float(training.known) if known else None,
        training_basis=basis,
        answering_usd=float(answering.known),
        price_sources=(f"{price['source']}{stale}",),
    )
