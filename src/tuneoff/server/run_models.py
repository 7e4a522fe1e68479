"""The tuned contenders of a run that can be served, checked against their scored answers.

Before the server opens, the engine that will answer clients answers a sample of the test set, with
the same bases and adapters. The answers are compared with the scored predictions
(`bakeoff/answer_check.py`).
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.bakeoff.answer_check import (
    ROUNDED_SAMPLE_SIZE,
    SAMPLE_SIZE,
    Agreement,
    TunedContender,
    compare_answers,
    load_tuned_contenders,
)
from tuneoff.contenders.local_inference import encode_prompts
from tuneoff.errors import ConfigError
from tuneoff.inference.backend import InferenceBackend
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.inference.requests import Delta, GenerationRequest, TokenLogprob
from tuneoff.tokenization.decode import decode


@dataclass(frozen=True, slots=True)
class ServableContender:
    """A contender that can be served."""

    served: ServedModel
    tuned: TunedContender


def start_run_backend(
    run_dir: Path,
    only: str | None,
    strict: bool,
    say: Callable[[str], None],
    start: Callable[[Sequence[ServedModel]], InferenceBackend],
) -> tuple[InferenceBackend, tuple[ServedModel, ...]]:
    """Start a backend for a run's contenders, check them, and return both.

    Args:
        start: starts a backend for some models.

    Raises:
        ConfigError: there is nothing to serve, or answers differ and `strict` is set.
    """
    contenders = load_servable(run_dir, only)
    host = start([contender.served for contender in contenders])
    for contender in contenders:
        parity = check_agreement(host, contender)
        for line in [*parity.lines(), *parity.warnings()]:
            say(line)
        if strict and not parity.passed:
            raise ConfigError(
                f"--strict: {parity.name} does not answer here as it did when it was scored; it "
                "is not served."
            )
    return host, tuple(contender.served for contender in contenders)


def load_servable(run_dir: Path, only: str | None = None) -> list[ServableContender]:
    """Return the tuned contenders of a run; of several seeds the first.

    Raises:
        ConfigError: the folder is not a run, or holds nothing that can be served.
    """
    return [_build_servable(tuned) for tuned in load_tuned_contenders(run_dir, only)]


def _build_servable(tuned: TunedContender) -> ServableContender:
    """Return a tuned contender with the model that serves it."""
    settings = tuned.settings
    base, adapter = (
        (str(tuned.weights), None) if settings.method == "full" else (tuned.base, tuned.weights)
    )
    precision, quantization = settings.train.precision, settings.quantization
    today = tuned.work.template.today
    return ServableContender(
        ServedModel(settings.name, base, adapter, precision, quantization, today), tuned
    )


def check_agreement(host: InferenceBackend, ready: ServableContender) -> Agreement:
    """Answer a sample of the test set and compare the answers with the scored ones."""
    base, tuned = host.base(ready.served), ready.tuned
    tokenizer: Any = base.tokenizer
    examples = tuned.sample(SAMPLE_SIZE if base.exact else ROUNDED_SAMPLE_SIZE)
    prompts = encode_prompts(tuned.settings, tuned.work, tokenizer, examples)
    answers = _collect_answers(host, ready, prompts)

    def gap(place: int, number: int) -> float:
        """Return the log-probability gap between the two best tokens at one place."""
        chances = answers[place][0]
        if number == len(chances):  # log-probabilities of the end token are not reported
            return math.inf
        best, second = chances[number].likeliest
        return best[1] - second[1]

    return compare_answers(
        tuned,
        examples,
        [([chance.token for chance in chances], text) for chances, text in answers],
        lambda tokens: decode(tokenizer, tokens),
        gap,
        base.exact,
    )


def _collect_answers(
    host: InferenceBackend, ready: ServableContender, prompts: Sequence[tuple[str, list[int]]]
) -> list[tuple[list[TokenLogprob], str]]:
    """Submit all prompts at once; return each answer's tokens with log-probabilities, and text."""
    pieces: queue.Queue[tuple[int, Delta]] = queue.Queue()
    answers: list[tuple[list[TokenLogprob], str]] = [([], "") for _ in prompts]

    def teller(place: int) -> GenerationRequest:
        """Return the request for one prompt."""
        return GenerationRequest(
            ids=prompts[place][1],
            max_tokens=ready.tuned.work.max_new_tokens,
            tell=lambda piece: pieces.put((place, piece)),
            temperature=0,
            logprobs=2,
        )

    for place in range(len(prompts)):
        host.submit(ready.served, teller(place))
    left = len(prompts)
    while left:
        place, piece = pieces.get()
        if piece.error is not None:
            raise ConfigError(f"contender {ready.served.name}: {piece.error}.")
        chances, text = answers[place]
        answers[place] = [*chances, *piece.chances], text + piece.text
        left -= piece.finish_reason is not None
    return answers
