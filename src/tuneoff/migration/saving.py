"""What can be saved of a tuned model: its examples, and its answers on a test set."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tuneoff import bakeoff
from tuneoff.bakeoff_file import load
from tuneoff.errors import ConfigError, DataError, RefusedError, unknown
from tuneoff.files import write_lines, write_text
from tuneoff.migration.exits import HOSTED, Choices, Left, find_longest, render_bakeoff
from tuneoff.migration.listing import Source
from tuneoff.progress import Progress, Silent
from tuneoff.providers import Provider, TunedModel
from tuneoff.providers.calls import repeated
from tuneoff.records import to_row
from tuneoff.results import Results
from tuneoff.rundir import RunDir
from tuneoff.tasks import chat


def migrate(
    model: str,
    out: Path | str,
    source: Source | None = None,
    *,
    train: Path | None = None,
    test: Path | None = None,
    choices: Choices | None = None,
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
        choices: what the bake-off file is to hold.
        limit: at most so many test examples.
        yes: the model may be asked although it has no price in the book.

    Returns:
        `file` (the bake-off file), `train`, `test`, `answered` (numbers of examples), `metric`,
        `score`, `run_dir` (where a run of the file will lie).

    Raises:
        ConfigError, DataError: the model is not there, or there is no test set it has not seen.
        ProviderError: the provider does not answer.
        BudgetError: asking it could pass the budget.
    """
    source, out, progress = source or Source(), Path(out), progress or Silent()
    choices = choices or Choices()
    metrics = choices.read_metrics(out)
    with closing(source.connect()) as provider:
        provider.reach.tell_to(progress.say, False)
        known = {each.model: each for each in repeated(provider.tuned_models)}
        if model not in known:
            raise ConfigError(f"{provider.url}: {unknown('tuned model', model, known)}.")
        examples = _Examples(out, provider, known[model], progress)
        files = {"train": examples.of("train", train), "test": examples.test(test)}
    task = {"id": "chat", **files, "max_new_tokens": find_longest(out / files["train"])}
    if metrics:
        task["metrics"] = metrics
    if limit is not None:
        task["limit"] = {"test": limit}
    answers = _captured(model, out, source, task, budget_usd, yes, progress)
    file = out / "bakeoff.yaml"
    if file.exists():
        progress.say(f"{file} is there already, and stays as it is")
    else:
        name, examples = out.resolve().name, _count(out / files["train"])
        left = Left(model, known[model].base, source, name, task, examples)
        write_text(file, render_bakeoff(left, choices))
    return {
        "file": str(file),
        "run_dir": str(bakeoff.DEFAULT_FOLDER / load(file).name),
        "train": _count(out / files["train"]),
        "test": answers.split_sizes["test"],
        "answered": answers.contenders[0].scores[answers.primary_metric].n,
        "metric": answers.primary_metric,
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
    # Nothing was captured by it yet, or it is to be scored otherwise.
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
    keys.pop("metrics", None)  # how answers are scored may change
    changed = sorted(k for k in keys if before["task"].get(k) != value["task"].get(k))
    if was != now:
        changed = [f"the model was {was}"]
    if changed:
        raise ConfigError(
            f"{file.parent}: another capture was begun here (changed: {', '.join(changed)}); "
            "undo the change, or give another --out."
        )


def _count(path: Path) -> int:
    return len(chat.read_examples(path))
