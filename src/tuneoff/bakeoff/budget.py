"""The budget of a run, checked before anything is paid.

`compute_max_run_usd` is the maximum that all steps of a new run can cost: all answers are missing,
and no job was sent. It needs neither a run directory nor a key. `attach_budgets` gives each
contender its share of the ledger. Amounts are USD at today's prices, whatever `as_of` says, because
those are paid. A server on this machine has no price.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, cast

from tuneoff import environment
from tuneoff.bakeoff.prepare import ResolvedBakeOff
from tuneoff.config.base import DEFAULT_REASONING_TOKENS
from tuneoff.config.contenders import PromptedConfig
from tuneoff.config.schema import BakeOff, JudgeConfig
from tuneoff.contenders.base import Contender, ContenderContext, load_contender
from tuneoff.contenders.samples import is_answered
from tuneoff.costs.contender_prices import (
    _find_counted_price,
    build_judge_name,
    check_not_ended,
    explain_missing_price,
    find_contender_price,
    find_judge_price,
    is_free_local_server,
    is_hosted,
    load_price_book,
)
from tuneoff.costs.ledger import ContenderBudget, Ledger
from tuneoff.costs.price_book import PriceBook, get_base
from tuneoff.costs.token_costs import price_max_tokens
from tuneoff.errors import ConfigError
from tuneoff.records import Example, Prediction
from tuneoff.scoring.added_metrics import list_judges, list_judging_models, load_model_graders
from tuneoff.scoring.base import ScoringInput
from tuneoff.scoring.llm_judge import compute_max_tokens
from tuneoff.scoring.model_grader import ModelGrader
from tuneoff.storage.run_dir import NULL_DIR, RunDir

BYTES_PER_TOKEN = 16
BATCH_PRICE_FIELDS = ("batch_input_usd_per_million_tokens", "batch_output_usd_per_million_tokens")
# OpenAI's models that reason unless told otherwise (its model pages).
REASONING_MODELS = re.compile(r"o\d(-|$)|gpt-5(-(mini|nano))?(-\d{4}|$)|gpt-5\.6|gpt-6")


def attach_budgets(
    bakeoff: BakeOff,
    chosen: Iterable[Any],
    work: Mapping[str, ContenderContext],
    ledger: Ledger,
    yes: bool,
    forgotten: str | None = None,
    kind_of: Callable[[Any], Contender] | None = None,
) -> dict[str, ContenderContext]:
    """Return the same contexts, with a budget for each contender that pays a provider.

    Args:
        yes: a model without a price may be used; its cost is not counted.
        forgotten: the contender that starts anew.
        kind_of: returns who does a contender's work, if not this process.

    Raises:
        ConfigError: a key is missing, a model has no price, or has ended.
        BudgetError: all remaining work could pass the budget.
    """
    prices, contexts, max_bill = load_price_book(bakeoff), dict(work), Decimal(0)
    for settings in chosen:
        contender_work = work[settings.name]
        if settings.name == forgotten:
            contender_work = replace(contender_work, directory=NULL_DIR)
        kind = kind_of(settings) if kind_of else load_contender(settings.id)
        kind.ready(settings, contender_work)
        if not is_hosted(settings) or is_answered(settings, contender_work):
            continue
        if contender_work.replay is not None:
            ledger.adopt(RunDir(contender_work.replay.path.parent.parent).events, settings.name)
            continue
        today, tuned = environment.today(), bool(contender_work.directory.job().get("job_id"))
        check_not_ended(settings, prices, today, tuned)
        unpriced = explain_missing_price(settings, prices, today)
        if unpriced is not None and not yes:
            raise ConfigError(unpriced)
        for doubt in explain_doubts(settings, prices, today, contender_work.max_new_tokens):
            contender_work.progress.say(f"warning: {doubt}")
        purse = ledger.open_budget(settings.name, _find_counted_price(settings, prices, today))
        contexts[settings.name] = replace(work[settings.name], guard=purse)
        max_bill += compute_max_usd(kind, settings, contender_work, prices)
    if max_bill:
        ledger.check_budget(max_bill, "what is left to do")
    return contexts


def compute_max_usd(
    kind: Contender, settings: Any, work: ContenderContext, prices: PriceBook
) -> Decimal:
    """Return the maximum USD that a provider can bill for a contender's remaining work.

    At today's prices; tokens without a price are not counted.
    """
    price = _find_counted_price(settings, prices, environment.today())
    if price is None:
        return Decimal()
    bound: Any = kind
    training, tokens_in, tokens_out = bound.most_tokens(settings, work)
    return price_max_tokens(price, training, tokens_in, tokens_out, batch=settings.batch)


@dataclass(frozen=True, slots=True)
class RepeatCost:
    """The cost of asking and judging some answers again."""

    answers: int = 0
    """Answers that are requested again."""
    judged: int = 0
    """Answers that are judged again."""
    usd: Decimal = Decimal()
    """The maximum bill."""
    unpriced: tuple[str, ...] = ()
    """Models whose price is not known."""

    def __bool__(self) -> bool:
        """Return whether anything is paid for again."""
        return bool(self.answers or self.judged)

    def describe(self) -> str:
        """Explain in sentences what will be paid for, and how much that can be."""
        counts = ((self.answers, "asked for again"), (self.judged, "judged again"))
        what = " and ".join(
            f"{n} paid {'answer' if n == 1 else 'answers'} will be {done}"
            for n, done in counts
            if n
        )
        price = f"at most ${self.usd:.4f}"
        if self.unpriced:
            price += f", and what {', '.join(self.unpriced)} costs, which has no price in the book"
        return f"{what}: {price}."


def compute_max_repeat_cost(
    parts: ResolvedBakeOff,
    answers: Mapping[str, Sequence[Mapping[str, Prediction]]],
    asked: ContenderContext,
    judged: Sequence[Example],
    kept: Mapping[str, str],
) -> RepeatCost:
    """Return the maximum bill for making or judging some answers again.

    At today's prices.

    Args:
        answers: the answers of each contender's variants and samples, by id; a contender without
            answers is not asked again.
        asked: its test examples are asked of each contender that pays a provider.
        judged: the examples whose answers a judge has to see.
        kept: the id under which a judged example's answer is stored; others have no answer yet.
    """
    prices, today = load_price_book(parts.bakeoff), environment.today()
    count, times, usd, unpriced = 0, 0, Decimal(), list[str]()
    contenders: Sequence[Any] = parts.bakeoff.contenders
    for settings in contenders:
        if not is_hosted(settings) or is_free_local_server(settings) or not answers[settings.name]:
            continue
        if asked.test:
            price, bound = (
                find_contender_price(settings, prices, today),
                load_contender(settings.id),
            )
            _, tokens_in, tokens_out = cast("Any", bound).most_tokens(settings, asked)
            usd += price_max_tokens(price, 0, tokens_in, tokens_out, batch=settings.batch)
            unpriced += [str(settings.model)] if price is None else []
            count += len(asked.test) * settings.samples
    for judge in list_judging_models(parts.bakeoff):
        if is_free_local_server(judge):
            continue
        price, _ = find_judge_price(judge, prices)
        for rows in (sample_rows for samples in answers.values() for sample_rows in samples):
            for example in judged:
                answer = rows.get(kept.get(example.id, ""))
                text = answer.prediction if answer is not None else ""
                row = ScoringInput(
                    example.id, example.completion, text, example.meta, inputs=example.inputs
                )
                # A token is seldom longer than this many bytes.
                most = None if answer is not None else BYTES_PER_TOKEN * parts.max_new_tokens
                usd += price_max_tokens(price, 0, *_count_max_question_tokens(judge, row, most))
                times += 1
        unpriced += [judge.model] if price is None and judged else []
    return RepeatCost(count, times, usd, tuple(dict.fromkeys(unpriced)))


def _count_max_question_tokens(
    grader: JudgeConfig | ModelGrader, row: ScoringInput, answer_bytes: int | None
) -> tuple[int, int]:
    """Return the maximum tokens, in and out, of one question to a judge or grader."""
    if isinstance(grader, ModelGrader):
        return grader.most_tokens(row, answer_bytes)
    return compute_max_tokens(grader, row, answer_bytes)


def build_judge_budget(
    bakeoff: BakeOff, ledger: Ledger
) -> tuple[ContenderBudget | None, str | None]:
    """Return the budget of a file's judge at today's prices, and a sentence if it has no price.

    None where there is no judge, or it has no price.
    """
    for settings in list_judges(bakeoff):
        price, unpriced = find_judge_price(settings, load_price_book(bakeoff))
        return None if price is None else ledger.open_budget(
            build_judge_name(settings), price
        ), unpriced
    return None, None


def build_grader_budgets(
    bakeoff: BakeOff, ledger: Ledger
) -> tuple[dict[str, ContenderBudget], list[str]]:
    """Return the budgets of a file's graders that ask a model, and sentences about missing prices.

    Budgets are by metric, at today's prices.
    """
    purses, unpriced = dict[str, ContenderBudget](), list[str]()
    for grader in load_model_graders(bakeoff):
        price, sentence = find_judge_price(grader, load_price_book(bakeoff))
        if price is not None:
            purses[grader.PRIMARY] = ledger.open_budget(build_judge_name(grader), price)
        unpriced += [sentence] if sentence else []
    return purses, unpriced


def explain_doubts(
    settings: Any, prices: PriceBook, day: datetime.date, max_new_tokens: int
) -> list[str]:
    """Explain where a provider's model may cost, or do, something unexpected.

    Its batches have no price, or it reasons though the file does not say so.
    """
    if not is_hosted(settings):
        return []
    doubts, name, model = list[str](), settings.name, settings.model
    price = None if is_free_local_server(settings) else find_contender_price(settings, prices, day)
    if settings.batch and price is not None:
        lacking = [field for field in BATCH_PRICE_FIELDS if getattr(price, field) is None]
        if lacking and price.input_usd_per_million_tokens is not None:
            doubts.append(
                f"contender {name}: {model} has no {' and no '.join(lacking)} (from "
                f"{price.source}), so its batches are counted at the price of single answers, and "
                "may cost less; add it to `price:` in the file."
            )
    if isinstance(settings, PromptedConfig) and _is_reasoning_unasked(settings):
        doubts.append(
            f"contender {name}: {model} reasons before it answers, and has the {max_new_tokens} "
            "tokens of task.max_new_tokens for both, so answers may be cut or empty; give it "
            f"reasoning_effort (then reasoning_tokens, {DEFAULT_REASONING_TOKENS}, are added; "
            "`none` turns "
            "reasoning off where the model can)."
        )
    return doubts


def _is_reasoning_unasked(settings: PromptedConfig) -> bool:
    """Return whether an OpenAI model will reason although the file does not say so."""
    unsaid = settings.reasoning_effort is None and settings.reasoning_tokens is None
    own = settings.provider == "azure" or settings.base_url is None
    openai = settings.provider in (None, "openai", "azure")
    return (
        unsaid
        and own
        and openai
        and REASONING_MODELS.match(get_base(str(settings.model))) is not None
    )


def compute_max_run_usd(bakeoff: BakeOff, work: ContenderContext, prices: PriceBook) -> Decimal:
    """Return the maximum, in USD, that providers can bill for all contenders together.

    Args:
        work: all examples; `directory` is that of a run which was not begun.
    """
    return sum(
        (
            compute_max_usd(load_contender(settings.id), settings, work, prices)
            for settings in bakeoff.contenders
            if is_hosted(settings)
        ),
        Decimal(),
    )


def warn_about_judges(bakeoff: BakeOff, prices: PriceBook) -> list[str]:
    """Return warnings about judges: their cost depends on answers that do not exist yet."""
    warnings = []
    for settings in list_judging_models(bakeoff):
        price, unpriced = find_judge_price(settings, prices)
        if price is not None:
            warnings.append(
                f"what the judge {settings.model} will cost is in no figure here; each of its "
                "questions asks leave by itself."
            )
        warnings += [unpriced] if unpriced else []
    return warnings
