"""Writes the bake-off file of a migration: the model that is being left, and three exits from it.

The exits: an open model of one's own; the same base tuned again on Azure, as long as Azure tunes
it; and the successor that the provider names, prompted, without and with examples. A comment above
each says what it costs and until when it lasts, by the price book on that day. An exit that a run
could not use as it is (Azure needs the address of a resource, another a price) is written as a
comment, ready to be used.
"""

from __future__ import annotations

import datetime
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tuneoff import environment
from tuneoff.bakeoff.budget import REASONING_MODELS
from tuneoff.bakeoff.migration.listing import ProviderAccount
from tuneoff.config.contenders import SHIPPED_BASE
from tuneoff.config.schema import JudgeConfig
from tuneoff.costs.monthly import HOURS_PER_MONTH
from tuneoff.costs.price_book import Price, PriceBook, build_price_book, find_model_price, get_base
from tuneoff.costs.price_file import ModelEnd
from tuneoff.errors import ConfigError, explain_unknown
from tuneoff.providers.http_errors import is_loopback
from tuneoff.report import format as f
from tuneoff.scoring.added_metrics import build_added_scorer, is_metric_file
from tuneoff.scoring.text import METRICS
from tuneoff.tasks import chat

# The open models to tune, unless others are named.
DEFAULT_BASES = ("Qwen/Qwen3-8B",)
CAPTURED_NAME = "hosted"
AZURE = "azure"
AZURE_URL = "https://YOURS.openai.azure.com/openai/v1/"
AZURE_PATH = "/openai/v1/"
SHOTS = 8
# Models that always reason and accept no `reasoning_effort: none` (OpenAI's model pages).
ALWAYS_REASONS = re.compile(r"o\d(-|$)|gpt-5(-|$)")
# Below this number of examples, batches are of this size: batches of 32 would make too few steps to
# learn in, at any rate.
FEW_EXAMPLES, SMALL_BATCH = 2000, 8
TOKEN_PRICES = ("training", "input", "output")
NO_PRICE = "no price known"
COMMENT_WIDTH = 96


@dataclass(frozen=True, slots=True)
class ExitOptions:
    """The user's choices for the bake-off file of a migration.

    Raises:
        ConfigError: the address is not one.
    """

    bases: Sequence[str] = DEFAULT_BASES
    """The open models to tune."""
    azure_url: str | None = None
    """The address of an Azure resource."""
    azure_key_variable: str | None = None
    """The environment variable that holds its key."""
    successor: str | None = None
    """The successor, instead of the one that the price book names."""
    has_successor: bool = True
    """Whether there is a successor at all."""
    metrics: Sequence[str] = ()
    """Ids or Python files; the first one decides."""
    judge: Path | None = None
    """A file with the keys of a judge; it comes after `metrics`."""
    requests_per_month: int | None = None
    """The load that monthly costs are for."""

    def __post_init__(self) -> None:
        url = self.azure_url
        if url is not None and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", url):
            raise ConfigError(
                f"--azure-url is {url!r}; give the address of your resource, as {AZURE_URL}."
            )

    def read_metrics(self, folder: Path) -> list[str | dict[str, Any]]:
        """Return `task.metrics` for a bake-off file in a folder; empty for the task's own.

        Raises:
            ConfigError: a metric is unknown; a file is not there, or holds no metric or judge.
        """
        metrics: list[str | dict[str, Any]] = []
        for metric in self.metrics:
            if is_metric_file(metric):
                metrics.append(_locate_metric(Path(metric).expanduser(), folder))
            elif metric in METRICS:
                metrics.append(metric)
            else:
                raise ConfigError(
                    f"--metric: {explain_unknown('metric', metric, METRICS)}, or a file: Python "
                    "(.py) or a "
                    "grader (.json, .yaml)."
                )
        return metrics + ([_read_judge(self.judge)] if self.judge else [])


@dataclass(frozen=True, slots=True)
class LeftModel:
    """The model that is being left."""

    model: str
    """The tuned model's name."""
    base: str
    """The model that it was tuned on."""
    source: ProviderAccount
    """Where it is."""
    name: str
    """The name of its folder."""
    task: Mapping[str, Any]
    """The task that it was captured on."""
    examples: int
    """The number of training examples."""
    ends: datetime.date | None = None
    """The day it ends; None where that is not known."""


@dataclass(frozen=True, slots=True)
class ContenderBlock:
    """A contender of the file below its comment."""

    comment: str
    """The text of the comment."""
    settings: Mapping[str, Any] | None = None
    """The contender's keys; None for a comment alone."""
    live: bool = True
    """Whether the contender is active; otherwise it is commented out."""
    more: tuple[str, ...] = ()
    """Lines, as comments, that a user may want in it."""

    def render(self) -> str:
        """Return its lines, indented like those of a list."""
        hint = " To use it, take the first # of each line away." * (not self.live)
        lines = [f"# {line}" for line in _wrap_comment(self.comment + hint * bool(self.comment))]
        if self.settings is not None:
            item = _dump_yaml([dict(self.settings)]).rstrip("\n").split("\n")
            item += [f"  # {line}" for line in self.more]
            lines += item if self.live else [f"# {line}" for line in item]
        return "".join(f"  {line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class ExitPrices:
    """What the price book says on a day about the exits from a source."""

    source: ProviderAccount
    base: str
    day: datetime.date
    prices: PriceBook

    def find_end(self, provider: str, model: str, tuned: bool) -> ModelEnd | None:
        """Return when a model ends; None if no end is known."""
        return self.prices.find_model_end(provider, model, tuned)

    def find_price(self, provider: str, model: str, tuned: bool) -> Price | None:
        """Return a model's price; None if it is not known."""
        return find_model_price(provider, model, self.day, tuned=tuned, prices=self.prices)


def render_bakeoff(left: LeftModel, choices: ExitOptions, day: datetime.date | None = None) -> str:
    """Return the text of a bake-off file with the captured model and the exits from it.

    Args:
        day: the day whose prices and ends are written; default: today.
    """
    market = ExitPrices(left.source, left.base, day or environment.today(), build_price_book())
    taken = {CAPTURED_NAME}
    blocks = [
        _build_captured(left, market.day),
        *_build_open(choices.bases, left.examples, taken),
        *_build_azure(choices, market, taken),
        *_build_successor(choices, market, taken),
    ]
    head = {"name": _keep_name_letters(left.name)[:60] or "migration", "task": dict(left.task)}
    comment = (
        f"Written by `tuneoff migrate` on {market.day}: what may follow {left.model}? Its answers "
        "are in answers.jsonl for good, whether it is still there or not. Prices and ends are the "
        "price book's on that day; `tuneoff plan` has today's."
    )
    lines = [f"# {line}\n" for line in _wrap_comment(comment)]
    lines += [
        _dump_yaml(head | {"migrating_from": CAPTURED_NAME}),
        _render_traffic(choices.requests_per_month),
    ]
    return "".join(lines) + "contenders:\n" + "".join(block.render() for block in blocks)


def compute_max_new_tokens(path: Path) -> int:
    """Return a token limit for the longest answer: usual tokenizers make at most a token per two
    bytes."""
    longest = max(len(each.completion.encode()) for each in chat.read_examples(path))
    return max(16, min(4096, longest // 2 + 16))


def choose_training(examples: int) -> dict[str, Any]:
    """Return the training settings of an open model for this number of examples.

    A short search finds the rate: one that fits a large base would leave a small one untrained.
    """
    train: dict[str, Any] = {"until": "converged", "learning_rate": "search"}
    if examples < FEW_EXAMPLES:
        return train | {"batch_size": SMALL_BATCH, "epochs": 10}
    return train | {"epochs": 5}


def _locate_metric(file: Path, folder: Path) -> str:
    """Return the path of a metric's file relative to a folder; raise ConfigError if unusable."""
    if not file.is_file():
        raise ConfigError(f"--metric: there is no file {file}; check the path.")
    inside = os.path.relpath(file.resolve(), folder.resolve())
    build_added_scorer(inside, folder)
    return inside


def _read_judge(file: Path) -> dict[str, Any]:
    """Return the keys of a judge, as its file has them.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
        judge = JudgeConfig.model_validate({"id": "judge", **value})
    except FileNotFoundError:
        raise ConfigError(f"--judge: there is no file {file}; check the path.") from None
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"--judge: {file} holds no judge ({_describe_problem(error)}); it takes model and "
            "rubric, "
            "as a judge in task.metrics does (docs/scoring.md)."
        ) from None
    return judge.model_dump(mode="json", exclude_unset=True)


def _describe_problem(error: Exception) -> str:
    """Return the first line of an error, for a message."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return str(error).split("\n", 1)[0]


def _render_traffic(requests: int | None) -> str:
    """Return the lines of the load, as a comment if it is not known."""
    if requests is not None:
        return _dump_yaml({"serving": {"requests_per_month": requests}})
    return "# serving: {requests_per_month: 100000}  # your traffic: costs a month are of that\n"


def _build_captured(left: LeftModel, day: datetime.date) -> ContenderBlock:
    """Return the block of the model that is being left."""
    until = f"It ends on {left.ends}." if left.ends else "When it ends is not known here."
    return ContenderBlock(
        f"The model that is being left. {until}",
        {
            "name": CAPTURED_NAME,
            "id": "recorded",
            "model": left.model,
            "predictions": "answers.jsonl",
            "source": f"captured {day} by tuneoff migrate",
        },
    )


def _build_open(bases: Sequence[str], examples: int, taken: set[str]) -> list[ContenderBlock]:
    """Return a block per open model."""
    comment = (
        "Exit: an open model of your own, tuned on the same examples. It has no end. It costs the "
        "hours of what it is trained and served on: name that as its hardware."
    )
    blocks = []
    for base in bases:
        folder = base != SHIPPED_BASE and Path(base).expanduser().is_dir()
        own = Path(base).expanduser().resolve() if folder else None
        name = _choose_name(f"{own.name if own else base}-lora", taken)
        settings = {
            "name": name,
            "id": "local",
            "base": str(own) if own else base,
            "lora": {"r": 16, "alpha": 32, "target_modules": "all-linear"},
            "train": choose_training(examples),
        }
        more = ("hardware: {accelerator: H100}  # its price is in the book: tuneoff prices",)
        blocks.append(ContenderBlock(comment, settings, more=more))
    return blocks


def _build_azure(choices: ExitOptions, market: ExitPrices, taken: set[str]) -> list[ContenderBlock]:
    """Return the block of the base tuned on Azure; empty if Azure is no exit."""
    if market.source.provider == AZURE:
        return []  # the model is being left on Azure itself
    base, url = market.base, choices.azure_url
    end = market.find_end(AZURE, base, tuned=True)
    if end is None and url is None:
        return []
    closes = min(end.training_ends or end.ends, end.ends) if end else None
    if closes is not None and closes <= market.day:
        return [ContenderBlock(f"Azure takes no new training jobs for {base} since {closes}.")]
    settings = {"name": _choose_name(AZURE, taken), "id": "hosted", "provider": AZURE}
    settings |= {"model": base, "base_url": _complete_url(url or AZURE_URL)}
    if choices.azure_key_variable is not None:
        settings["key_variable"] = choices.azure_key_variable
    comment = (
        f"Exit: {base} tuned again on Azure, from the saved files. {_describe_azure(end)} Price: "
        f"{_describe_price(market.find_price(AZURE, base, tuned=True))}; token prices differ "
        "there by "
        "region and contract, so give yours as price:, or run with --yes. Deploy the tuned model "
        "when its job is done, add deployment: NAME here, and give the same command again. A "
        "developer deployment has no fee by the hour, and lasts 24 hours: enough for the run."
    )
    if url is None:
        comment += " Its base_url is your resource's (or give --azure-url with a new --out)."
    figures = ", ".join(f"{each}_usd_per_million_tokens: N" for each in TOKEN_PRICES)
    return [ContenderBlock(comment, settings, url is not None, (f"price: {{{figures}}}",))]


def _describe_azure(end: ModelEnd | None) -> str:
    """Return until when Azure tunes a base, in words."""
    if end is None:
        return "Until when Azure tunes it is not known here."
    read = f" (read {end.retrieved})" if end.retrieved else ""
    last = ""
    if end.training_ends is not None:
        safe = end.training_ends - datetime.timedelta(days=1)
        last = f"Last safe day for a training: {safe}, for existing customers. "
    return f"{last}What is tuned there ends on {end.ends}{read}."


def _build_successor(
    choices: ExitOptions, market: ExitPrices, taken: set[str]
) -> list[ContenderBlock]:
    """Return the blocks of the successor; empty without one."""
    if not choices.has_successor:
        return []
    source = market.source
    known = market.find_end(source.provider, market.base, tuned=True)
    model = choices.successor or (known.replacement if known else None)
    if model is None:
        return []
    end = market.find_end(source.provider, model, tuned=False)
    in_book = source.is_in_book()
    price = market.find_price(source.provider, model, tuned=False) if in_book else None
    # Commented out if a run would refuse it, or if the price book is about another address.
    ended = in_book and end is not None and end.ends <= market.day
    is_sure = choices.successor is not None or price is not None
    settings: dict[str, Any] = {"id": "prompted", **source.written(), "model": model}
    if REASONING_MODELS.match(get_base(model)) and not ALWAYS_REASONS.match(get_base(model)):
        settings["reasoning_effort"] = "none"  # it reasons by default, and answers would be cut
    until = f"It ends on {end.ends}." if end else "No end date is known."
    named = "" if choices.successor else f" It is what {source.provider} names instead."
    need = "" if price or _is_own(source) else ": give one as price:, or run with --yes"
    comment = (
        f"Exit: {model}, prompted, without examples and with {SHOTS} of them.{named} {until} "
        f"Price: {_describe_price(price)}{need}."
    )
    name, shown = _choose_name(model, taken), _choose_name(f"{model}-{SHOTS}-shots", taken)
    return [
        ContenderBlock(comment, {"name": name, **settings}, is_sure and not ended),
        ContenderBlock("", {"name": shown, **settings, "shots": SHOTS}, is_sure and not ended),
    ]


def _is_own(source: ProviderAccount) -> bool:
    """Return whether a source is a server on this machine, which needs no price."""
    return source.base_url is not None and is_loopback(source.base_url)


def _describe_price(price: Price | None) -> str:
    """Return a price in words, with the day it was read on."""
    if price is None:
        return NO_PRICE
    figures = []
    for what in TOKEN_PRICES:
        usd = getattr(price, f"{what}_usd_per_million_tokens")
        figures += [] if usd is None else [f"{f.usd(float(usd))} {what}"]
    parts = [f"{', '.join(figures)} per million tokens"] if figures else []
    hour = price.hosting_usd_per_hour
    if hour is not None:
        month = f.usd(float(hour * HOURS_PER_MONTH))
        parts.append(f"hosting {f.usd(float(hour))} an hour, used or not: {month} a month")
    read = f" (read {price.retrieved})" if price.retrieved else ""
    return (", ".join(parts) or NO_PRICE) + read


def _complete_url(url: str) -> str:
    """Return a resource's address with the path of its API, if only the host was given."""
    host = url.rstrip("/")
    return host + AZURE_PATH if host.endswith(".azure.com") else url


def _choose_name(wanted: str, taken: set[str]) -> str:
    """Return a contender's name that is free, and add it to the taken ones."""
    name = _keep_name_letters(wanted)[-60:].lstrip("._-").lower() or "exit"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free)
    return free


def _keep_name_letters(text: str) -> str:
    """Return a text in the letters that a name may have."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text).strip(
        "._-"
    )


def _wrap_comment(text: str) -> list[str]:
    """Return a comment's lines; nothing in them can end the comment."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return textwrap.wrap(printable, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False)


def _dump_yaml(value: Any) -> str:
    """Return a value as YAML."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000))
