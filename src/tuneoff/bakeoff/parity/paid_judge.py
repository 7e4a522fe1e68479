"""Pays a judge outside a run: its answers and its cost are kept beside its file.

`FOLDER/judge.yaml` has `FOLDER/judge.kept/` with `judgements.jsonl` and `events.jsonl`, as in a run
directory. The same question is paid once, whichever command asks it. The budget is for all money
ever spent with this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tuneoff.config.load import load_judge
from tuneoff.config.schema import JudgeConfig
from tuneoff.costs.contender_prices import build_judge_name, find_judge_price
from tuneoff.costs.ledger import Ledger
from tuneoff.costs.price_book import build_price_book
from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.progress import Progress
from tuneoff.scoring import llm_judge
from tuneoff.scoring.base import Options
from tuneoff.storage.run_dir import lock_run_dir

KEPT_SUFFIX = ".kept"


def open_judge(file: Path) -> llm_judge.Judge:
    """Return the judge of a file.

    Raises:
        ConfigError: the file cannot be used, or the judge cannot be asked: no SDK, or no key.
    """
    settings = load_judge(file)
    llm_judge.check_ready(settings)
    return llm_judge.Judge(settings)


@contextmanager
def pay_judge(
    file: Path, options: Options, budget_usd: float | None, yes: bool, progress: Progress
) -> Iterator[Options]:
    """Give the options with the judge's earlier answers and its budget.

    Raises:
        ConfigError: the judge has no price, and there is a budget or no `yes`; or another command
            is asking it.
    """
    settings = load_judge(file)
    folder = file.with_name(file.stem + KEPT_SUFFIX)
    price, unpriced = find_judge_price(settings, build_price_book(None))
    if unpriced is not None and budget_usd is not None:
        raise ConfigError(f"{file}: {unpriced.removesuffix('.')}, which --budget-usd needs.")
    if unpriced is not None and not yes:
        raise ConfigError(f"{file}: {unpriced.removesuffix('.')}, or ask it all the same: --yes.")
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_run_dir(folder))
        except RunDirectoryError:
            raise ConfigError(
                f"{folder}: another command is asking this judge; wait for its end."
            ) from None
        ledger = Ledger(folder / "events.jsonl", budget_usd, progress.spent)
        budget = None if price is None else ledger.open_budget(build_judge_name(settings), price)
        yield replace(options, judgements=folder / "judgements.jsonl", budget=budget)
        progress.say(_describe_spent(settings, ledger, folder))


def _describe_spent(settings: JudgeConfig, ledger: Ledger, folder: Path) -> str:
    """Return what a judge has cost so far, as a sentence."""
    spent = ledger.spent()
    cost = f"${spent.known:.2f}" + (
        f", ${spent.uncertain:.2f} more perhaps" * bool(spent.uncertain)
    )
    return f"what {settings.model} said is kept in {folder}; it has cost {cost} so far."
