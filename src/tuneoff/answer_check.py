"""Whether a run's tuned contenders answer elsewhere as they did when they were scored.

`tuned_contenders` finds them with what they need to be asked again; `compare` holds answers
that were made elsewhere (by the server, by an exported model) against the scored ones. In
float32 texts must be equal, but where the two best tokens were within 1e-3 of each other
(`NEAR_TIE`); in other precisions, and on quantized bases, the task's primary metric must be the
same for 99% of the answers. Two different wrong answers show nothing, so these may be half of the
answers at most. At least one text must be the very same, whatever the precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneoff import prepare
from tuneoff.contender_settings import LocalSettings
from tuneoff.contenders import Work
from tuneoff.contenders.trainings import trainings
from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.models.loading import resolve_base
from tuneoff.opening import stored_bakeoff
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction
from tuneoff.rundir import ContenderDir, RunDir
from tuneoff.scoring import Options, Row, Scorer, primary_metric
from tuneoff.scoring.rows import find_reason_left_out

# Where one answer in a hundred may be another, so many are asked for.
SAMPLE, ROUNDED_SAMPLE = 32, 100
NEAR_TIE = 1e-3
LEAST_AGREEMENT = 0.99
# Of the answers, those that are other texts and were wrong both times.
MAX_UNTOLD = 0.5

# (which answer, which of its tokens) → how far apart the two best tokens were there, in
# log-probability; the number behind the last token is that of the end.
Gap = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class Judge:
    """What judged a run's answers: its scorer, by the metric that decides."""

    scorer: Scorer
    options: Options

    def values(self, examples: Sequence[Example], answers: Sequence[str]) -> list[bool | float]:
        """Return the metric's value for each answer."""
        rows = (
            Row(example.id, example.completion, answer, example.meta, inputs=example.inputs)
            for example, answer in zip(examples, answers, strict=True)
        )
        metric = primary_metric(self.scorer, self.options)
        return [row.scores.get(metric, False) for row in self.scorer.score_rows(rows, self.options)]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A contender that was tuned here. `base` is what transformers loads, `weights` the folder of
    its adapter or model, `predictions` its test answers by example id, `judge` what scored them;
    `was` is what was done when they were made."""

    settings: LocalSettings
    base: str
    weights: Path
    work: Work
    predictions: dict[str, Prediction]
    judge: Judge
    was: str = "scored"

    def sample(self, size: int = SAMPLE) -> list[Example]:
        """Return answered test examples, spread evenly over the test set."""
        answered = [
            example
            for example in self.work.test
            if (found := self.predictions.get(example.id)) and found.error is None
        ]
        return answered[:: max(1, len(answered) // size)][:size]


@dataclass(frozen=True, slots=True)
class Parity:
    """How answers made elsewhere compare with the scored ones. `different` holds (id, scored,
    made elsewhere) of those that are not the same; `was` and `verb` say what was done then and is
    done elsewhere; of those that are not `exact`, `as_good` are other texts with the same value of
    the primary metric, and `untold` of these were wrong both times, which shows nothing."""

    name: str
    asked: int
    near_ties: int
    exact: bool
    different: tuple[tuple[str, str, str], ...]
    verb: str = "served"
    as_good: int = 0
    was: str = "scored"
    untold: int = 0

    @property
    def same_texts(self) -> int:
        """Counts the answers that are the very same texts."""
        return self.asked - len(self.different) - self.as_good - self.near_ties

    @property
    def passed(self) -> bool:
        """Say whether what answers there is what was scored."""
        agreed = self.asked - len(self.different)
        return (
            self.same_texts > 0
            and agreed >= (1 if self.exact else LEAST_AGREEMENT) * self.asked
            and self.untold <= MAX_UNTOLD * self.asked
        )

    def lines(self) -> list[str]:
        """Return the lines that say how it answers."""
        same = self.asked - len(self.different)
        ties = f", {self.near_ties} of them near-ties" if self.near_ties else ""
        found = [
            f"{self.name}: {same} of {self.asked} answers are those that were {self.was}{ties}."
        ]
        if self.as_good:
            found = [
                f"{self.name}: {same} of {self.asked} answers are as right or wrong as those that "
                f"were {self.was}, {same - self.as_good} of them the same{ties}."
            ]
        found += [
            f"  {id}: {self.was} {scored!r:.80}, {self.verb} {other!r:.80}"
            for id, scored, other in self.different[:3]
        ]
        return found

    def warnings(self) -> list[str]:
        """Lists what a user must not overlook."""
        if self.asked and not self.same_texts:
            return [
                f"warning: {self.name}: NONE of the {self.asked} answers is the text that was "
                f"{self.was}: what is {self.verb} is hardly the model that was {self.was}; do not "
                "use it before you know why."
            ]
        if self.untold > MAX_UNTOLD * self.asked:
            return [
                f"warning: {self.name}: {self.untold} of {self.asked} answers are other texts and "
                f"were wrong both times, which shows nothing: only {self.same_texts} are the text "
                f"that was {self.was}."
            ]
        return []


def tuned_contenders(
    run_dir: Path, only: str | None = None, argument: str = "--contender"
) -> list[Tuned]:
    """Return the tuned contenders of a run; of several seeds the first.

    Args:
        only: the one that is wanted; None: all of them.
        argument: where `only` was given, for the message.

    Raises:
        ConfigError: the folder is no run, or none of them was tuned here.
    """
    bakeoff = stored_bakeoff(run_dir)
    run = RunDir(run_dir)
    names = [contender.name for contender in bakeoff.contenders]
    if only is not None and only not in names:
        raise ConfigError(f"{argument}: {unknown('contender', only, names)}.")
    chosen = tuple(
        c for c in bakeoff.contenders if only in (None, c.name) and isinstance(c, LocalSettings)
    )
    found = []
    if chosen:
        # Files that only scoring, money or others need may be gone.
        task = bakeoff.task.model_copy(update={"metrics": None})
        kept: dict[str, Any] = {"contenders": chosen, "task": task, "prices": None}
        if bakeoff.data_dir is not None and not bakeoff.path(bakeoff.data_dir).is_dir():
            kept["data_dir"] = None
        parts = prepare.parts(bakeoff.model_copy(update=kept))
        for settings in chosen:
            directory = trainings(settings)[0].directory(run.contender(settings.name))
            weights = directory.weights()
            if weights is not None:
                found.append(_tuned(parts, run, settings, directory, weights))
    if not found:
        raise ConfigError(
            f"{run_dir}: no contender of it was tuned here{f' as {only}' if only else ''}; "
            "run the bake-off first."
        )
    return found


def _tuned(
    parts: prepare.Parts,
    run: RunDir,
    settings: LocalSettings,
    directory: ContenderDir,
    weights: Path,
) -> Tuned:
    work = Work(
        folder=parts.bakeoff.folder,
        train=run.examples("train"),
        validation=[],
        test=run.examples("test"),
        template=replace(parts.template, today=run.today()),
        prompt=parts.settings.prompt,
        max_new_tokens=parts.max_new_tokens,
        directory=directory,
        progress=Silent(),
    )
    base = resolve_base(settings.base, parts.bakeoff.folder)
    # Rows whose reference cannot be used say nothing about an answer.
    unusable = {id for id, row in directory.scores().items() if find_reason_left_out(row)}
    predictions = {id: p for id, p in directory.predictions().items() if id not in unusable}
    return Tuned(settings, base, weights, work, predictions, _judge(parts, run))


def _judge(parts: prepare.Parts, run: RunDir) -> Judge:
    try:
        databases = parts.task.databases(parts.settings, parts.place, run.data / "databases")
    except DataError:  # they are gone; then texts decide
        databases = None
    return Judge(parts.scorer, prepare.build_options(parts, databases))


def compare(
    tuned: Tuned,
    examples: Sequence[Example],
    answers: Sequence[tuple[Sequence[int], str]],
    decode: Callable[[Sequence[int]], str],
    gap: Gap,
    exact: bool,
    verb: str = "served",
) -> Parity:
    """Holds answers to examples, as tokens (without an end) and text, against the scored ones.

    Args:
        decode: token ids to text.
        exact: whether texts must be equal, but for near-ties; else the metric's values.
    """
    different: list[tuple[Example, str, str]] = []
    ties = 0
    for place, (example, (tokens, text)) in enumerate(zip(examples, answers, strict=True)):
        scored = tuned.predictions[example.id].prediction
        if text.strip() == scored.strip():
            continue
        if gap(place, _leaves(decode, tokens, scored)) < NEAR_TIE:
            ties += 1
        else:
            different.append((example, scored, text))
    worse, untold = (different, 0) if exact else _otherwise_judged(tuned.judge, different)
    return Parity(
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


def _otherwise_judged(
    judge: Judge, different: Sequence[tuple[Example, str, str]]
) -> tuple[list[tuple[Example, str, str]], int]:
    """Finds those whose two answers the primary metric values differently, and counts those whose
    two answers are wrong."""
    examples = [each[0] for each in different]
    scored = judge.values(examples, [each[1] for each in different])
    others = judge.values(examples, [each[2] for each in different])
    worse = [each for each, a, b in zip(different, scored, others, strict=True) if a != b]
    return worse, sum(not a and not b for a, b in zip(scored, others, strict=True))


def _leaves(decode: Callable[[Sequence[int]], str], tokens: Sequence[int], scored: str) -> int:
    """Return the number of the token at which an answer leaves the scored one; where the answer
    only ends too early, the number behind its last token."""
    for count in range(1, len(tokens) + 1):
        text = decode(tokens[:count]).lstrip()
        if not scored.lstrip().startswith(text.rstrip("\ufffd")):
            return count - 1
    return len(tokens)
