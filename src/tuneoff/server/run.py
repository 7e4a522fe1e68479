"""The contenders of a run, ready to be served, and the check that what is served is what was
scored.

Before the server opens, a sample of the test set is answered by the engine that will answer
clients, on the same bases and adapters, and compared with the predictions that were scored
(`answer_check.py`).
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.answer_check import ROUNDED_SAMPLE, SAMPLE, Parity, Tuned, compare, tuned_contenders
from tuneoff.contenders.answering import prompts_of
from tuneoff.errors import ConfigError
from tuneoff.server.answer import Piece, Request, TokenChance
from tuneoff.server.backend import Answerer
from tuneoff.server.base import Served
from tuneoff.tokenization.decode import decode


@dataclass(frozen=True, slots=True)
class Ready:
    """A contender that can be served."""

    served: Served
    tuned: Tuned


def open_run(
    run_dir: Path,
    only: str | None,
    strict: bool,
    say: Callable[[str], None],
    start: Callable[[Sequence[Served]], Answerer],
) -> tuple[Answerer, tuple[Served, ...]]:
    """What answers for a run's contenders, checked, and which they are.

    Args:
        start: makes what answers for some models.

    Raises:
        ConfigError: there is nothing to serve, or `strict` and answers differ.
    """
    ready = contenders_of(run_dir, only)
    host = start([each.served for each in ready])
    for each in ready:
        parity = check_parity(host, each)
        for line in [*parity.lines(), *parity.warnings()]:
            say(line)
        if strict and not parity.passed:
            raise ConfigError(
                f"--strict: {parity.name} does not answer here as it did when it was scored; it "
                "is not served."
            )
    return host, tuple(each.served for each in ready)


def contenders_of(run_dir: Path, only: str | None = None) -> list[Ready]:
    """The tuned contenders of a run; of several seeds the first.

    Raises:
        ConfigError: the folder is no run, or holds nothing that can be served.
    """
    return [_ready(tuned) for tuned in tuned_contenders(run_dir, only)]


def _ready(tuned: Tuned) -> Ready:
    settings = tuned.settings
    base, adapter = (
        (str(tuned.weights), None) if settings.method == "full" else (tuned.base, tuned.weights)
    )
    precision, quantization = settings.train.precision, settings.quantization
    today = tuned.work.template.today
    return Ready(Served(settings.name, base, adapter, precision, quantization, today), tuned)


def check_parity(host: Answerer, ready: Ready) -> Parity:
    """Answers a sample of the test set and compares."""
    base, tuned = host.base(ready.served), ready.tuned
    tokenizer: Any = base.tokenizer
    examples = tuned.sample(SAMPLE if base.exact else ROUNDED_SAMPLE)
    prompts = prompts_of(tuned.settings, tuned.work, tokenizer, examples)
    told = _answers(host, ready, prompts)

    def gap(place: int, number: int) -> float:
        chances = told[place][0]
        if number == len(chances):  # the end's chances are not told
            return math.inf
        best, second = chances[number].likeliest
        return best[1] - second[1]

    return compare(
        tuned,
        examples,
        [([chance.token for chance in chances], text) for chances, text in told],
        lambda tokens: decode(tokenizer, tokens),
        gap,
        base.exact,
    )


def _answers(
    host: Answerer, ready: Ready, prompts: Sequence[tuple[str, list[int]]]
) -> list[tuple[list[TokenChance], str]]:
    """Tokens with their chances, and text, of each answer; asked all at once."""
    told: queue.Queue[tuple[int, Piece]] = queue.Queue()
    found: list[tuple[list[TokenChance], str]] = [([], "") for _ in prompts]

    def teller(place: int) -> Request:
        return Request(
            ids=prompts[place][1],
            max_tokens=ready.tuned.work.max_new_tokens,
            tell=lambda piece: told.put((place, piece)),
            temperature=0,
            logprobs=2,
        )

    for place in range(len(prompts)):
        host.submit(ready.served, teller(place))
    left = len(prompts)
    while left:
        place, piece = told.get()
        if piece.error is not None:
            raise ConfigError(f"contender {ready.served.name}: {piece.error}.")
        chances, text = found[place]
        found[place] = [*chances, *piece.chances], text + piece.text
        left -= piece.finish_reason is not None
    return found
