"""Checks whether a run's tuned contenders answer elsewhere as they did when they were scored.

`load_tuned_contenders` loads them with everything needed to answer again; `compare_answers`
compares answers made elsewhere (by the server, by an exported model) with the scored ones. In
float32, texts must be equal, except where the two best tokens were within 1e-3 of each other
(`NEAR_TIE`). In other precisions, and on quantized bases, the task's primary metric must be the
same for 99% of the answers. Two different wrong answers show nothing, so they may be at most half
of the answers. In any precision, at least one text must be identical.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneoff.bakeoff import prepare
from tuneoff.config.contenders import LocalConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.variants import list_variants
from tuneoff.errors import ConfigError, DataError, explain_unknown
from tuneoff.models.loading import resolve_base
from tuneoff.progress import SilentProgress
from tuneoff.records import Example, Prediction
from tuneoff.scoring.base import (
    Options,
    Scorer,
    ScoringInput,
    find_reason_left_out,
    get_primary_metric,
)
from tuneoff.storage.resume import load_stored_bakeoff
from tuneoff.storage.run_dir import ContenderDir, RunDir

# Sample sizes: exact, and where one answer in a hundred may differ.
SAMPLE_SIZE, ROUNDED_SAMPLE_SIZE = 32, 100
NEAR_TIE = 1e-3
MIN_AGREEMENT = 0.99
# Maximum share of answers with another text that were wrong both times.
MAX_BOTH_WRONG = 0.5

# (number of the answer, number of its token) → difference in log-probability between the two best
# tokens there. The number after the last token means the end.
TokenGap = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class MetricEvaluator:
    """Computes a run's primary metric with its scorer."""

    scorer: Scorer
    options: Options

    def values(self, examples: Sequence[Example], answers: Sequence[str]) -> list[bool | float]:
        """Return the metric's value for each answer."""
        rows = (
            ScoringInput(
                example.id, example.completion, answer, example.meta, inputs=example.inputs
            )
            for example, answer in zip(examples, answers, strict=True)
        )
        metric = get_primary_metric(self.scorer, self.options)
        return [row.scores.get(metric, False) for row in self.scorer.score_rows(rows, self.options)]


@dataclass(frozen=True, slots=True)
class TunedContender:
    """A contender that was tuned on this machine."""

    settings: LocalConfig
    base: str
    """What transformers loads the base from."""
    weights: Path
    """Folder of its adapter or its model."""
    work: ContenderContext
    predictions: dict[str, Prediction]
    """Its test answers by example id."""
    judge: MetricEvaluator
    """Computes the metric that scored them."""
    was: str = "scored"
    """How its answers were made: `scored` or `served`."""

    def sample(self, size: int = SAMPLE_SIZE) -> list[Example]:
        """Return answered test examples, evenly spread over the test set."""
        answered = [
            example
            for example in self.work.test
            if (found := self.predictions.get(example.id)) and found.error is None
        ]
        return answered[:: max(1, len(answered) // size)][:size]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How answers made elsewhere compare with the scored ones."""

    name: str
    asked: int
    """Number of answers."""
    near_ties: int
    """Answers that differ only from a near-tie on."""
    exact: bool
    """Whether texts must be equal; otherwise values of the primary metric."""
    different: tuple[tuple[str, str, str], ...]
    """(id, scored text, text made elsewhere) of answers that do not agree."""
    verb: str = "served"
    """How the answers were made elsewhere, such as `served`."""
    as_good: int = 0
    """Answers with another text and the same value of the primary metric (not if `exact`)."""
    was: str = "scored"
    """How the original answers were made."""
    untold: int = 0
    """Those of `as_good` that were wrong both times, which shows nothing."""

    @property
    def same_texts(self) -> int:
        """Return the number of answers with identical texts."""
        return self.asked - len(self.different) - self.as_good - self.near_ties

    @property
    def passed(self) -> bool:
        """Return whether the model elsewhere answers as the scored one."""
        agreed = self.asked - len(self.different)
        return (
            self.same_texts > 0
            and agreed >= (1 if self.exact else MIN_AGREEMENT) * self.asked
            and self.untold <= MAX_BOTH_WRONG * self.asked
        )

    def lines(self) -> list[str]:
        """Return the lines that report the comparison."""
        same = self.asked - len(self.different)
        ties = f", {self.near_ties} of them near-ties" if self.near_ties else ""
        lines = [
            f"{self.name}: {same} of {self.asked} answers are those that were {self.was}{ties}."
        ]
        if self.as_good:
            lines = [
                f"{self.name}: {same} of {self.asked} answers are as right or wrong as those that "
                f"were {self.was}, {same - self.as_good} of them the same{ties}."
            ]
        lines += [
            f"  {id}: {self.was} {scored!r:.80}, {self.verb} {other!r:.80}"
            for id, scored, other in self.different[:3]
        ]
        return lines

    def warnings(self) -> list[str]:
        """Return the warnings that a user must not overlook."""
        if self.asked and not self.same_texts:
            return [
                f"warning: {self.name}: NONE of the {self.asked} answers is the text that was "
                f"{self.was}: what is {self.verb} is hardly the model that was {self.was}; do not "
                "use it before you know why."
            ]
        if self.untold > MAX_BOTH_WRONG * self.asked:
            return [
                f"warning: {self.name}: {self.untold} of {self.asked} answers are other texts and "
                f"were wrong both times, which shows nothing: only {self.same_texts} are the text "
                f"that was {self.was}."
            ]
        return []


def load_tuned_contenders(
    run_dir: Path, only: str | None = None, argument: str = "--contender"
) -> list[TunedContender]:
    """Return the tuned contenders of a run; of several seeds the first.

    Args:
        only: the name of the only one wanted; None: all of them.
        argument: the argument that `only` came from, for the message.

    Raises:
        ConfigError: the folder is not a run, or no contender was tuned here.
    """
    bakeoff = load_stored_bakeoff(run_dir)
    run = RunDir(run_dir)
    names = [contender.name for contender in bakeoff.contenders]
    if only is not None and only not in names:
        raise ConfigError(f"{argument}: {explain_unknown('contender', only, names)}.")
    chosen = tuple(
        c for c in bakeoff.contenders if only in (None, c.name) and isinstance(c, LocalConfig)
    )
    contenders = []
    if chosen:
        # Files that only scoring, prices or other contenders need may be gone.
        task = bakeoff.task.model_copy(update={"metrics": None})
        updates: dict[str, Any] = {"contenders": chosen, "task": task, "prices": None}
        if bakeoff.data_dir is not None and not bakeoff.path(bakeoff.data_dir).is_dir():
            updates["data_dir"] = None
        parts = prepare.resolve(bakeoff.model_copy(update=updates))
        for settings in chosen:
            directory = list_variants(settings)[0].get_dir(run.contender(settings.name))
            weights = directory.weights()
            if weights is not None:
                contenders.append(_load_tuned(parts, run, settings, directory, weights))
    if not contenders:
        raise ConfigError(
            f"{run_dir}: no contender of it was tuned here{f' as {only}' if only else ''}; "
            "run the bake-off first."
        )
    return contenders


def _load_tuned(
    parts: prepare.ResolvedBakeOff,
    run: RunDir,
    settings: LocalConfig,
    directory: ContenderDir,
    weights: Path,
) -> TunedContender:
    """Return a tuned contender with its answers."""
    work = ContenderContext(
        folder=parts.bakeoff.folder,
        train=run.examples("train"),
        validation=[],
        test=run.examples("test"),
        template=replace(parts.template, today=run.today()),
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=directory,
        progress=SilentProgress(),
    )
    base = resolve_base(settings.base, parts.bakeoff.folder)
    # Rows with an unusable reference say nothing about an answer.
    unusable = {id for id, row in directory.scores().items() if find_reason_left_out(row)}
    predictions = {id: p for id, p in directory.predictions().items() if id not in unusable}
    return TunedContender(settings, base, weights, work, predictions, _build_evaluator(parts, run))


def _build_evaluator(parts: prepare.ResolvedBakeOff, run: RunDir) -> MetricEvaluator:
    """Return the run's metric evaluator."""
    try:
        databases = parts.task.databases(parts.settings, parts.place, run.data / "databases")
    except DataError:  # the databases are gone; then texts decide
        databases = None
    return MetricEvaluator(parts.scorer, prepare.build_options(parts, databases))


def compare_answers(
    tuned: TunedContender,
    examples: Sequence[Example],
    answers: Sequence[tuple[Sequence[int], str]],
    decode: Callable[[Sequence[int]], str],
    gap: TokenGap,
    exact: bool,
    verb: str = "served",
) -> Agreement:
    """Compare answers, as tokens (without an end token) and text, with the scored ones.

    Args:
        decode: turns token ids into text.
        exact: whether texts must be equal, except for near-ties; otherwise the metric's values.
    """
    different: list[tuple[Example, str, str]] = []
    ties = 0
    for place, (example, (tokens, text)) in enumerate(zip(examples, answers, strict=True)):
        scored = tuned.predictions[example.id].prediction
        if text.strip() == scored.strip():
            continue
        if gap(place, _find_divergence(decode, tokens, scored)) < NEAR_TIE:
            ties += 1
        else:
            different.append((example, scored, text))
    worse, untold = (different, 0) if exact else _split_by_metric(tuned.judge, different)
    return Agreement(
        tuned.settings.name,
        len(examples),
        ties,
        exact,
        tuple((example.id, scored, text) for example, scored, text in worse),
        verb,
        len(different) - len(worse),
        tuned.was,
        untold,
    )


def _split_by_metric(
    judge: MetricEvaluator, different: Sequence[tuple[Example, str, str]]
) -> tuple[list[tuple[Example, str, str]], int]:
    """Return the answers whose metric differs from the scored one, and count those wrong both
    times."""
    examples = [answer[0] for answer in different]
    scored = judge.values(examples, [answer[1] for answer in different])
    others = judge.values(examples, [answer[2] for answer in different])
    worse = [answer for answer, a, b in zip(different, scored, others, strict=True) if a != b]
    return worse, sum(not a and not b for a, b in zip(scored, others, strict=True))


def _find_divergence(
    decode: Callable[[Sequence[int]], str], tokens: Sequence[int], scored: str
) -> int:
    """Return the number of the first token with which an answer differs from the scored one.

    If the answer only ends too early, that is the number after its last token.
    """
    for count in range(1, len(tokens) + 1):
        text = decode(tokens[:count]).lstrip()
        if not scored.lstrip().startswith(text.rstrip("\ufffd")):
            return count - 1
    return len(tokens)
