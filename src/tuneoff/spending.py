"""What a run may spend, settled before anything is paid: prices, models that have ended, the
most that all steps together can cost.

A run pays today's prices, whatever `as_of` says. A server on this machine has no price.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypedDict, cast

from tuneoff import machine
from tuneoff.config import BakeOff, JudgeSettings
from tuneoff.contender_settings import HostedSettings, PromptedSettings
from tuneoff.contenders import Contender, Work, load_contender
from tuneoff.contenders.samples import is_answered
from tuneoff.costs.arithmetic import max_usd
from tuneoff.costs.ledger import Ledger, Purse
from tuneoff.costs.pricebook import Price, PriceBook, base_of, no_price, price_of
from tuneoff.costs.pricefile import Method
from tuneoff.errors import ConfigError
from tuneoff.prepare import Parts, load_model_graders, price_book
from tuneoff.providers.sdk import is_here
from tuneoff.records import Example, Prediction
from tuneoff.rundir import NOWHERE, RunDir
from tuneoff.scoring.judge import most_tokens
from tuneoff.scoring.model_grader import ModelGrader
from tuneoff.scoring.questions import AskedModel
from tuneoff.scoring.rows import Row
from tuneoff.settings import REASONING_TOKENS

TOKEN_BYTES = 16
BATCH_PRICES = ("batch_input_usd_per_million_tokens", "batch_output_usd_per_million_tokens")
# OpenAI's models whose reasoning effort is not `none` where nothing is said (its model pages).
REASONS = re.compile(r"o\d(-|$)|gpt-5(-(mini|nano))?(-\d{4}|$)|gpt-5\.6|gpt-6")
Paid = HostedSettings | PromptedSettings


class _Kind(TypedDict):
    tuned: bool
    method: Method


def paid(settings: Any) -> bool:
    """Whether a contender's work is done by a provider."""
    return isinstance(settings, HostedSettings) or (
        isinstance(settings, PromptedSettings) and settings.model is not None
    )


def with_guards(
    bakeoff: BakeOff,
    chosen: Iterable[Any],
    work: Mapping[str, Work],
    ledger: Ledger,
    yes: bool,
    forgotten: str | None = None,
    kind_of: Callable[[Any], Contender] | None = None,
) -> dict[str, Work]:
    """The same work, where a provider is paid with a guard that knows the money.

    Args:
        yes: a model without a price may be used all the same; it is not counted.
        forgotten: the contender that begins anew.
        kind_of: who does a contender's work, if not this process.

    Raises:
        ConfigError: a key is missing, a model has no price, or has ended.
        BudgetError: all that is left to do could pass the budget.
    """
    prices, found, most = price_book(bakeoff), dict(work), Decimal(0)
    for settings in chosen:
        mine = work[settings.name]
        if settings.name == forgotten:
            mine = replace(mine, directory=NOWHERE)
        kind = kind_of(settings) if kind_of else load_contender(settings.id)
        kind.ready(settings, mine)
        if not paid(settings) or is_answered(settings, mine):
            continue
        if mine.replay is not None:
            ledger.adopt(RunDir(mine.replay.path.parent.parent).events, settings.name)
            continue
        today, tuned = machine.today(), bool(mine.directory.job().get("job_id"))
        refuse_ended(settings, prices, today, tuned)
        unpriced = without_full_price(settings, prices, today)
        if unpriced is not None and not yes:
            raise ConfigError(unpriced)
        for doubt in explain_doubts(settings, prices, today, mine.max_new_tokens):
            mine.progress.say(f"warning: {doubt}")
        purse = ledger.purse(settings.name, _counted(settings, prices, today))
        found[settings.name] = replace(work[settings.name], guard=purse)
        most += most_usd(kind, settings, mine, prices)
    if most:
        ledger.refuse_over(most, "what is left to do")
    return found


def most_usd(kind: Contender, settings: Any, work: Work, prices: PriceBook) -> Decimal:
    """The most, in USD at today's prices, that a provider can bill for what is left to do of one
    contender; what has no price is not counted."""
    price = _counted(settings, prices, machine.today())
    if price is None:
        return Decimal()
    bound: Any = kind
    training, asked, answered = bound.most_tokens(settings, work)
    return max_usd(price, training, asked, answered, batch=settings.batch)


@dataclass(frozen=True, slots=True)
class Again:
    """What asking and judging again can bill, for a number of answers; `unpriced` are the models
    whose price is not known."""

    answers: int = 0
    judged: int = 0
    usd: Decimal = Decimal()
    unpriced: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.answers or self.judged)

    def words(self) -> str:
        """Say what will be paid for, and how much that can be, as sentences."""
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


def most_again(
    parts: Parts,
    answers: Mapping[str, Sequence[Mapping[str, Prediction]]],
    asked: Work,
    judged: Sequence[Example],
    kept: Mapping[str, str],
) -> Again:
    """Return the most that providers and a judge can bill, at today's prices, where some examples
    are asked, and some answers judged, again.

    Args:
        answers: those of each contender's trainings and samples, by id; who has none has nothing
            again.
        asked: its test examples are asked of each contender that is paid.
        judged: the examples whose answers a judge has to see.
        kept: under which id the answer of a judged example is; others have none yet.
    """
    prices, today = price_book(parts.bakeoff), machine.today()
    count, times, usd, unpriced = 0, 0, Decimal(), list[str]()
    contenders: Sequence[Any] = parts.bakeoff.contenders
    for settings in contenders:
        if not paid(settings) or asks_nothing(settings) or not answers[settings.name]:
            continue
        if asked.test:
            price, bound = price_for(settings, prices, today), load_contender(settings.id)
            _, tokens_in, tokens_out = cast("Any", bound).most_tokens(settings, asked)
            usd += max_usd(price, 0, tokens_in, tokens_out, batch=settings.batch)
            unpriced += [str(settings.model)] if price is None else []
            count += len(asked.test) * settings.samples
    for judge in asked_models(parts.bakeoff):
        if asks_nothing(judge):
            continue
        price, _ = judge_price(judge, prices)
        for rows in (each for found in answers.values() for each in found):
            for example in judged:
                said = rows.get(kept.get(example.id, ""))
                text = said.prediction if said is not None else ""
                row = Row(example.id, example.completion, text, example.meta, inputs=example.inputs)
                # A token is seldom more than so many bytes.
                most = None if said is not None else TOKEN_BYTES * parts.max_new_tokens
                usd += max_usd(price, 0, *_most_of_question(judge, row, most))
                times += 1
        unpriced += [judge.model] if price is None and judged else []
    return Again(count, times, usd, tuple(dict.fromkeys(unpriced)))


def refused_today(settings: Any, prices: PriceBook) -> str | None:
    """The sentence with which a run that begins today refuses a contender; None where it does
    not. One about a price can be answered with --yes."""
    if not paid(settings):
        return None
    today = machine.today()
    return ended(settings, prices, today) or without_full_price(settings, prices, today)


def judges(bakeoff: BakeOff) -> list[JudgeSettings]:
    """The judges among a file's metrics."""
    return [each for each in bakeoff.task.metrics or () if isinstance(each, JudgeSettings)]


def asked_models(bakeoff: BakeOff) -> list[JudgeSettings | ModelGrader]:
    """Return the judges, and the graders that ask a model, among a file's metrics."""
    return [*judges(bakeoff), *load_model_graders(bakeoff)]


def _most_of_question(
    asked: JudgeSettings | ModelGrader, row: Row, answer_bytes: int | None
) -> tuple[int, int]:
    if isinstance(asked, ModelGrader):
        return asked.most_tokens(row, answer_bytes)
    return most_tokens(asked, row, answer_bytes)


def judge_name(settings: AskedModel) -> str:
    """Return the name of a judge's or grader's spending in the ledger; no contender can have it."""
    return f"judge:{settings.model}"


def judge_purse(bakeoff: BakeOff, ledger: Ledger) -> tuple[Purse | None, str | None]:
    """What a file's judge is paid from, at today's prices; None where there is none, or it has no
    price, which a sentence then says."""
    for settings in judges(bakeoff):
        price, unpriced = judge_price(settings, price_book(bakeoff))
        return None if price is None else ledger.purse(judge_name(settings), price), unpriced
    return None, None


def grader_purses(bakeoff: BakeOff, ledger: Ledger) -> tuple[dict[str, Purse], list[str]]:
    """Return what a file's graders that ask a model are paid from, by metric, at today's prices,
    and a sentence about each that has no price."""
    purses, unpriced = dict[str, Purse](), list[str]()
    for grader in load_model_graders(bakeoff):
        price, sentence = judge_price(grader, price_book(bakeoff))
        if price is not None:
            purses[grader.PRIMARY] = ledger.purse(judge_name(grader), price)
        unpriced += [sentence] if sentence else []
    return purses, unpriced


def judge_price(settings: AskedModel, prices: PriceBook) -> tuple[Price | None, str | None]:
    """A judge's price of today; None where it has none, which a sentence then says unless it needs
    none."""
    if asks_nothing(settings):
        return None, None
    price = price_of(settings.provider, settings.model, override=settings.price, prices=prices)
    if price is not None and price.input_usd_per_million_tokens is not None:
        return price, None
    return None, (
        f"the judge {settings.model} has no price in the book, so what it costs is not "
        "counted; give it a `price:`."
    )


def ended(settings: Any, prices: PriceBook, day: datetime.date, tuned: bool = False) -> str | None:
    """One sentence about a contender whose model its provider no longer offers on a day, or no
    longer tunes, unless it is `tuned` already; None where there is nothing to say."""
    if not paid(settings) or is_elsewhere(settings):
        return None
    provider = settings.provider or "openai"
    end = prices.end_of(provider, settings.model, isinstance(settings, HostedSettings))
    if end is None:
        return None
    instead = f"; its provider names {end.replacement} instead" if end.replacement else ""
    if end.ends is not None and end.ends <= day:
        return (
            f"contender {settings.name}: {provider}'s {settings.model} ended on "
            f"{end.ends}{instead}. Take another model."
        )
    to_tune = isinstance(settings, HostedSettings) and not tuned
    if to_tune and end.training_ends and end.training_ends <= day:
        return (
            f"contender {settings.name}: {provider} takes no new fine-tuning jobs for "
            f"{settings.model} since {end.training_ends}{instead}. Take another model, or tune an "
            "open one (id: local)."
        )
    return None


def refuse_ended(settings: Any, prices: PriceBook, day: datetime.date, tuned: bool = False) -> None:
    """Raises ConfigError for a model that has `ended`."""
    sentence = ended(settings, prices, day, tuned)
    if sentence is not None:
        raise ConfigError(sentence)


def is_elsewhere(settings: Any) -> bool:
    """Say whether a server answers of which the price book's end dates say nothing. On Azure each
    resource has an address of its own; a prompted model is named there as its owner likes."""
    url = getattr(settings, "base_url", None)
    if url is None:
        return False
    return settings.provider != "azure" or settings.id != "hosted" or is_here(url)


def asks_nothing(settings: Paid | AskedModel) -> bool:
    """Whether it is a server of one's own, on this machine, that no price was given for."""
    own = settings.base_url is not None and is_here(settings.base_url)
    return own and settings.price is None


def price_for(settings: Paid, prices: PriceBook, day: datetime.date) -> Price | None:
    """The price of a contender's model on a day; None where there is none."""
    provider, model, kind = _identity(settings)
    return price_of(provider, model, day, settings.price, **kind, prices=prices)


def without_full_price(settings: Paid, prices: PriceBook, day: datetime.date) -> str | None:
    """One sentence about a contender whose model has no price on a day, or not one for all that is
    billed, and what to do; None where it has one, or needs none."""
    if asks_nothing(settings):
        return None
    price = price_for(settings, prices, day)
    if price is None:
        provider, model, kind = _identity(settings)
        return no_price(settings.name, provider, model, day, **kind, prices=prices)
    # A deployment may be billed by its hours, and nothing else.
    answering = () if price.hosting_usd_per_hour is not None else ("input", "output")
    needed = (("training",) if isinstance(settings, HostedSettings) else ()) + answering
    names = [f"{what}_usd_per_million_tokens" for what in needed]
    lacking = [name for name in names if getattr(price, name) is None]
    if not lacking:
        return None
    return (
        f"contender {settings.name}: its price lacks {', '.join(lacking)} (from {price.source}); "
        "add it to `price:` in the file, or run with --yes."
    )


def explain_doubts(
    settings: Any, prices: PriceBook, day: datetime.date, max_new_tokens: int
) -> list[str]:
    """Return sentences about what a provider's model may cost, or do, otherwise than is thought:
    its batches have no price, or it reasons though the file does not say so."""
    if not paid(settings):
        return []
    found, name, model = list[str](), settings.name, settings.model
    price = None if asks_nothing(settings) else price_for(settings, prices, day)
    if settings.batch and price is not None:
        lacking = [each for each in BATCH_PRICES if getattr(price, each) is None]
        if lacking and price.input_usd_per_million_tokens is not None:
            found.append(
                f"contender {name}: {model} has no {' and no '.join(lacking)} (from "
                f"{price.source}), so its batches are counted at the price of single answers, and "
                "may cost less; add it to `price:` in the file."
            )
    if isinstance(settings, PromptedSettings) and _reasons_unasked(settings):
        found.append(
            f"contender {name}: {model} reasons before it answers, and has the {max_new_tokens} "
            "tokens of task.max_new_tokens for both, so answers may be cut or empty; give it "
            f"reasoning_effort (then reasoning_tokens, {REASONING_TOKENS}, are added; `none` turns "
            "reasoning off where the model can)."
        )
    return found


def _reasons_unasked(settings: PromptedSettings) -> bool:
    """Say whether the file leaves it to a model of OpenAI to reason, and it does."""
    unsaid = settings.reasoning_effort is None and settings.reasoning_tokens is None
    own = settings.provider == "azure" or settings.base_url is None
    openai = settings.provider in (None, "openai", "azure")
    return unsaid and own and openai and REASONS.match(base_of(str(settings.model))) is not None


def _identity(settings: Paid) -> tuple[str, str, _Kind]:
    """Provider and model, and which of the model's prices is meant."""
    tuned = isinstance(settings, HostedSettings)
    method: Method = "lora"
    if isinstance(settings, HostedSettings) and settings.method == "full":
        method = "full"
    return settings.provider or "openai", str(settings.model), {"tuned": tuned, "method": method}


def _counted(settings: Paid, prices: PriceBook, day: datetime.date) -> Price | None:
    """The price that a contender's steps are counted at; None where they are not."""
    return None if asks_nothing(settings) else price_for(settings, prices, day)
