"""From a hosted fine-tune that is ending to an open model, with proof that it is as good.

Three steps, each of which can be repeated without paying twice. `tuned_models` lists what an
account has and when it ends. `migrate` fetches the examples that a model was tuned on, has it
answer a test set while it still can (kept for good as a `recorded` contender), and writes a
bake-off file that tunes open models on the same examples. `parity` says, when that has run,
whether they match: by non-inferiority, for "no difference was found" proves nothing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuneoff import bakeoff
from tuneoff.bakeoff_file import load
from tuneoff.compare import ScoredRun, read_scored_run
from tuneoff.costs.pricebook import book
from tuneoff.errors import ConfigError, DataError, RefusedError, unknown
from tuneoff.files import write_lines, write_text
from tuneoff.progress import Progress, Silent
from tuneoff.providers import Provider, TunedModel, connect
from tuneoff.providers.calls import repeated
from tuneoff.records import to_row
from tuneoff.report import format as f
from tuneoff.results import Comparison, Results
from tuneoff.rundir import RunDir
from tuneoff.scoring.equivalence import MARGIN, adjust_not_worse
from tuneoff.scoring.intervals import SIGNIFICANT
from tuneoff.scoring.paired import Pair
from tuneoff.scoring.pairs import compare_all
from tuneoff.scoring.power import describe_floor
from tuneoff.tasks import chat

# What is tuned instead, unless others are named.
USUAL_BASES = ("Qwen/Qwen3-8B",)
HOSTED = "hosted"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tuned models are."""

    provider: str = "openai"
    base_url: str | None = None
    key_variable: str | None = None

    def connect(self) -> Provider:
        """The provider; raises ConfigError without a key."""
        return connect(self.provider, self.base_url, self.key_variable)

    def written(self) -> dict[str, str]:
        """As a contender's keys."""
        found = {"provider": self.provider, "base_url": self.base_url}
        found["key_variable"] = self.key_variable
        return {key: value for key, value in found.items() if value is not None}


def tuned_models(source: Source) -> list[dict[str, Any]]:
    """An account's tuned models, those that end first at the top: `model`, `base`, `ends`,
    `replacement`, `training_file`, `validation_file` (ids; None: not known)."""
    prices, found = book(), []
    with closing(source.connect()) as provider:
        models = repeated(provider.tuned_models)
    for each in models:
        end = None
        if source.base_url is None or source.provider == "azure":
            end = prices.end_of(source.provider, each.base, tuned=True)
        found.append(
            {
                "model": each.model,
                "base": each.base,
                "ends": end.ends.isoformat() if end and end.ends else None,
                "replacement": end.replacement if end else None,
                "training_file": each.training_file,
                "validation_file": each.validation_file,
            }
        )
    return sorted(found, key=lambda row: row["ends"] or datetime.date.max.isoformat())


def migrate(
    model: str,
    out: Path | str,
    source: Source | None = None,
    *,
    train: Path | None = None,
    test: Path | None = None,
    bases: Sequence[str] = USUAL_BASES,
    limit: int | None = None,
    budget_usd: float | None = None,
    yes: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Saves what can be saved of a tuned model into a folder and writes its bake-off file.

    Args:
        model: the tuned model's name, `ft:…`.
        out: the folder; the same call with it goes on where an earlier one stopped.
        train: your copy of the training file, where the provider no longer has it.
        test: examples that the model has not seen; left out, its validation file.
        bases: open models to tune on the same examples.
        limit: at most so many test examples.
        yes: the model may be asked although it has no price in the book.

    Returns:
        `file` (the bake-off file), `train`, `test`, `answered` (numbers of examples), `score`.

    Raises:
        ConfigError, DataError: the model is not there, or there is no test set it has not seen.
        ProviderError: the provider does not answer.
        BudgetError: asking it could pass the budget.
    """
    source, out, progress = source or Source(), Path(out), progress or Silent()
    with closing(source.connect()) as provider:
        provider.reach.tell_to(progress.say, False)
        known = {each.model: each for each in repeated(provider.tuned_models)}
        if model not in known:
            raise ConfigError(f"{provider.url}: {unknown('tuned model', model, known)}.")
        examples = _Examples(out, provider, known[model], progress)
        files = {"train": examples.of("train", train), "test": examples.test(test)}
    task = {"id": "chat", **files, "max_new_tokens": _longest(out / files["train"])}
    if limit is not None:
        task["limit"] = {"test": limit}
    answers = _captured(model, out, source, task, budget_usd, yes, progress)
    file = out / "bakeoff.yaml"
    if file.exists():
        progress.say(f"{file} is there already, and stays as it is")
    else:
        write_text(file, _bakeoff(model, out.resolve().name, task, bases))
    return {
        "file": str(file),
        "train": _count(out / files["train"]),
        "test": answers.split_sizes["test"],
        "answered": answers.contenders[0].scores[answers.primary_metric].n,
        "score": answers.contenders[0].scores[answers.primary_metric].value,
    }


class _Examples:
    """The files that a model was tuned on, fetched once."""

    def __init__(
        self, out: Path, provider: Provider, model: TunedModel, progress: Progress
    ) -> None:
        self._out, self._provider, self._model, self._progress = out, provider, model, progress

    def of(self, split: str, given: Path | None) -> str:
        """The name of a split's file in the folder: a copy of the given one, or fetched."""
        if given is not None:
            chat.read_examples(given)
            return os.path.relpath(given.resolve(), self._out.resolve())
        path = self._out / f"{split}.jsonl"
        if not path.exists():
            write_text(path, self._fetched(split))
        chat.read_examples(path)
        return path.name

    def test(self, given: Path | None) -> str:
        """The test set: the given one, or the validation file, which nobody was trained on."""
        if given is None and self._model.validation_file is None:
            raise ConfigError(
                f"{self._model.model} was tuned without a validation file, so all that the "
                "provider has are examples it has seen; give examples it has not seen as --test."
            )
        return self.of("test", given)

    def _fetched(self, split: str) -> str:
        validation = split == "test"
        id = self._model.validation_file if validation else self._model.training_file
        option = "--test" if validation else "--train"
        if id is None:
            raise ConfigError(
                f"{self._model.model}: the provider does not say what it was tuned on; give your "
                f"copy as {option}."
            )
        try:
            content = repeated(lambda: self._provider.download(id))
        except RefusedError as error:
            raise ConfigError(
                f"{self._model.model}: its file {id} cannot be fetched any more ({error}); give "
                f"your copy as {option}."
            ) from None
        self._progress.say(f"fetched {id} ({len(content)} bytes)")
        return content.decode()


def _captured(
    model: str,
    out: Path,
    source: Source,
    task: dict[str, Any],
    budget_usd: float | None,
    yes: bool,
    progress: Progress,
) -> Results:
    """The model's answers, in a run of its own (which may be cut and goes on), and as a file."""
    contender = {"name": HOSTED, "id": "prompted", "model": model, "record": True}
    value = {
        "name": "capture",
        "task": task,
        "contenders": [{**contender, **source.written()}],
        "budget_usd": budget_usd,
    }
    file, run_dir = out / "capture.yaml", out / "capture"
    if file.exists() and (run_dir / "bakeoff.yaml").exists():
        _refuse_another(file, value)
    else:  # nothing was captured by it yet
        write_text(file, yaml.safe_dump(value, sort_keys=False))
    settings = load(file).model_copy(update={"budget_usd": budget_usd})
    results = bakeoff.run(
        settings, run_dir, yes=yes, progress=progress, command=f"tuneoff migrate {model}"
    )
    failed = results.contenders[0].error
    if failed is not None:
        raise DataError(f"{model} could not be asked: {failed}")
    predictions = RunDir(run_dir).contender(HOSTED).predictions()
    write_lines(out / "answers.jsonl", map(to_row, predictions.values()))
    return results


def _refuse_another(file: Path, value: dict[str, Any]) -> None:
    """What was captured is kept for good; another model or test set wants a folder of its own."""
    before = yaml.safe_load(file.read_text(encoding="utf-8"))
    was, now = before["contenders"][0]["model"], value["contenders"][0]["model"]
    keys = {**before["task"], **value["task"]}
    changed = sorted(k for k in keys if before["task"].get(k) != value["task"].get(k))
    if was != now:
        changed = [f"the model was {was}"]
    if changed:
        raise ConfigError(
            f"{file.parent}: another capture was begun here (changed: {', '.join(changed)}); "
            "undo the change, or give another --out."
        )


def _bakeoff(model: str, name: str, task: dict[str, Any], bases: Sequence[str]) -> str:
    contenders: list[dict[str, Any]] = [
        {"name": HOSTED, "id": "recorded", "model": model, "predictions": "answers.jsonl",
         "source": f"captured {datetime.date.today()} by tuneoff migrate"},
    ]  # fmt: skip
    for base in bases:
        own = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in base)
        contenders.append(
            {
                "name": own.strip("._-")[-60:].lower() + "-lora",
                "id": "local",
                "base": base if not Path(base).exists() else str(Path(base).resolve()),
                "lora": {"r": 16, "alpha": 32, "target_modules": "all-linear"},
                "train": {"until": "converged", "epochs": 5},
            }
        )
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    value = {
        "name": kept.strip("._-")[:60] or "migration",
        "task": task,
        "migrating_from": HOSTED,
        "contenders": contenders,
    }
    head = (
        f"# Written by `tuneoff migrate`. Do open models match {model}?\n"
        "# Its answers are in answers.jsonl for good, whether it is still there or not.\n"
    )
    return head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _longest(path: Path) -> int:
    """Room for the longest answer: no usual tokenizer makes more than a token of two bytes."""
    longest = max(len(each.completion.encode()) for each in chat.read_examples(path))
    return max(16, min(4096, longest // 2 + 16))


def _count(path: Path) -> int:
    return len(chat.read_examples(path))


def parity_of(run_dir: Path | str, margin: float = MARGIN) -> list[dict[str, Any]]:
    """Say of each other contender of a finished run whether it matches the model that is being left
    (`migrating_from`; of an earlier file, `hosted`): `name`, `difference`, `low`, `high` (own minus
    hosted, 90%), `p_value` (of "it is worse by the margin or more", one-sided, adjusted over the
    contenders), `verdict` (`better`, `matches`, `worse`, `not shown`) and a `sentence`.

    It matches when that p-value is under 5%; whether it is better, or worse, is what the run says.

    Raises:
        DataError: there are no answers of the model that is being left in this run.
    """
    run = read_scored_run(Path(run_dir))
    results = run.results
    names = [each.name for each in results.contenders]
    left = results.settings.get("migrating_from") or HOSTED
    if left not in names:
        raise DataError(
            f"{results.name}: there is no contender {left!r} in this run (there are: "
            f"{', '.join(names)}); give a run of the file that `tuneoff migrate` wrote."
        )
    captured = next(each for each in results.contenders if each.name == left)
    if captured.error:
        raise DataError(f"{results.name}: {left} failed: {captured.error}")
    score = captured.scores.get(results.primary_metric)
    nothing = score is None or not score.value
    scores = {each.name: run.values[each.name] for each in results.contenders if not each.error}
    tested = compare_all(
        {name: found for name, found in scores.items() if found},
        results.primary_metric, run.clusters, run.cluster, run.seeds,
    )  # fmt: skip
    own = [pair for pair in tested if left in (pair.a, pair.b)]
    pairs = [_own_first(pair, run, left) for pair in own]
    p_values = adjust_not_worse(pairs, run.clusters, margin)
    return [_judged(pair, left, p, margin, nothing) for pair, p in zip(own, p_values, strict=True)]


def _own_first(pair: Comparison, run: ScoredRun, left: str) -> Pair:
    own = pair.a if pair.b == left else pair.b
    return Pair(own, left, run.values[own], run.values[left], run.seeds[own], run.seeds[left])


def _judged(
    pair: Comparison, left: str, p_value: float, margin: float, nothing: bool
) -> dict[str, Any]:
    """`nothing`: none of the captured answers is right, so there is nothing to match."""
    sign, own = (1, pair.a) if pair.b == left else (-1, pair.b)
    bounds = sorted(sign * x for x in (pair.low_90, pair.high_90) if x is not None)
    shown, *limits = (
        f"{round(100 * value, 1) + 0.0:+.1f}" for value in (sign * pair.difference, *bounds)
    )
    points = f"{shown} points" + (f" [{', '.join(limits)}], 90%" if limits else "")
    allowed, hosted = f.points(margin), "the hosted model" if left == HOSTED else left
    better = "a better" if sign > 0 else "b better"
    if pair.verdict == better:
        verdict, said = "better", f"is better than {hosted}"
    elif nothing:
        verdict, said = "not shown", f"cannot match: none of {hosted}'s answers is right"
    elif p_value < SIGNIFICANT:
        verdict, said = "matches", f"matches {hosted}: it loses less than {allowed}"
    elif pair.verdict != "tie":
        verdict, said = "worse", f"is worse than {hosted}"
    else:
        more = (
            describe_floor(pair.units or 0, pair.cluster)
            if pair.low is None
            else ("this test set cannot tell; more test examples would")
        )
        verdict, said = "not shown", f"may lose more than {allowed}: {more}"
    low, high = bounds or (None, None)
    return {
        "name": own,
        "difference": sign * pair.difference,
        "low": low,
        "high": high,
        "p_value": p_value,
        "verdict": verdict,
        "sentence": f"{own} {said} ({points}).",
    }
