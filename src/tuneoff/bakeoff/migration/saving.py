"""Saves one tuned model, or all of an account: files first, then answers."""

from __future__ import annotations

import datetime
import os
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from tuneoff import environment
from tuneoff.bakeoff import run
from tuneoff.bakeoff.migration import artifacts
from tuneoff.bakeoff.migration.artifacts import TEST_FILE, TRAIN_FILE, ArtifactSaver, Manifest
from tuneoff.bakeoff.migration.capture import capture_answers, sum_spent
from tuneoff.bakeoff.migration.exits import (
    ExitOptions,
    LeftModel,
    compute_max_new_tokens,
    render_bakeoff,
)
from tuneoff.bakeoff.migration.listing import ProviderAccount, find_end, find_models
from tuneoff.errors import BudgetError, ConfigError, TuneoffError, UnreachableError, explain_unknown
from tuneoff.progress import Progress, SilentProgress
from tuneoff.providers.base import TunedModel
from tuneoff.providers.retries import retry
from tuneoff.storage.files import write_text
from tuneoff.tasks import chat

BAKEOFF_FILE = "bakeoff.yaml"
# The states of a model, best first.
SAVED, FILES_ONLY, OVER_BUDGET, FAILED = "saved", "files alone", "over budget", "failed"
# The facts of a finished capture that are shown.
SHOWN_FACTS = ("test", "answered", "metric", "score")


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """How models are to be saved."""

    train: Path | None = None
    """Your copy of the training file."""
    test: Path | None = None
    """Examples that the model has not seen. Default: its validation file."""
    choices: ExitOptions = field(default_factory=ExitOptions)
    """How answers are scored, and the contents of the bake-off file."""
    limit: int | None = None
    """Max test examples."""
    yes: bool = False
    """Whether to ask a model that has no price in the book."""
    answers: bool = True
    """Whether models are asked at all."""


def migrate(
    model: str,
    out: Path | str,
    source: ProviderAccount | None = None,
    wishes: MigrationOptions | None = None,
    *,
    budget_usd: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Save a tuned model into a folder, and write its bake-off file.

    Args:
        model: the tuned model's name, `ft:…`.
        out: the folder; the same call again resumes.
        budget_usd: the most that asking it may cost.

    Returns:
        `model`, `folder`, `missing` (why files could not be downloaded, by name), `usd`; and with
            answers `file` (the bake-off file), `run_dir` (where its run will lie), `train`, `test`,
            `answered` (numbers of examples), `metric`, `score`.

    Raises:
        ConfigError, DataError: the model does not exist, or there is no test set it has not seen.
        ProviderError: the provider does not answer.
        BudgetError: asking it could exceed the budget.
    """
    source, wishes = source or ProviderAccount(), wishes or MigrationOptions()
    out, progress = Path(out), progress or SilentProgress()
    _check_folder_owner(out, model)
    with closing(source.connect()) as provider:
        provider.reach.set_listener(progress.say, False)
        known = {each.model: each for each in retry(provider.tuned_models)}
        if model not in known:
            raise ConfigError(f"{provider.url}: {explain_unknown('tuned model', model, known)}.")
        keeper = ArtifactSaver(provider, known[model], out, progress)
        _save_files(keeper, known[model], wishes)
    facts = {"model": model, "folder": str(out), "missing": Manifest(out).missing}
    if wishes.answers:
        facts |= _save_answers(known[model], out, source, wishes, budget_usd, progress)
    return facts | {"usd": float(sum_spent([out]))}


def migrate_all(
    out: Path | str,
    source: ProviderAccount | None = None,
    wishes: MigrationOptions | None = None,
    *,
    budget_usd: float | None = None,
    progress: Progress | None = None,
    today: datetime.date | None = None,
) -> dict[str, Any]:
    """Save every tuned model of an account, each into a folder of its own.

    The files of all come first, for they cost nothing. Then come answers, those of the models that
    end first before the others.

    Args:
        out: where the folders are; the same call again resumes.
        budget_usd: the most that asking all of them may cost, earlier calls included.

    Returns:
        `usd`, and `models`: of each what `migrate` returns, `state` (`saved`, `files alone`, `over
            budget`, `failed`) and `why` it has no answers.

    Raises:
        ConfigError: `out` cannot be used, or there is a `train` file for one model.
        ProviderError: the provider does not answer.
    """
    source, wishes = source or ProviderAccount(), wishes or MigrationOptions()
    out, progress, today = Path(out), progress or SilentProgress(), today or environment.today()
    _check_folder(out, wishes)
    saved = artifacts.find_saved(out)
    fetched = artifacts.find_fetched(saved)
    failed: dict[str, str] = {}
    with closing(source.connect()) as provider:
        provider.reach.set_listener(progress.say, False)
        models = [model for model, _ in find_models(provider, source, today)]
        folders = {
            each.model: saved.get(each.model, out / artifacts.name_folder(each.model))
            for each in models
        }
        for each in models:
            try:
                keeper = ArtifactSaver(provider, each, folders[each.model], progress, fetched)
                _save_files(keeper, each, wishes)
            except UnreachableError:
                raise  # it would be the same for every model; the same command resumes
            except TuneoffError as error:
                failed[each.model] = str(error).removeprefix(f"{each.model}: ").removesuffix(".")
    every = {*saved.values(), *folders.values()}
    rows = []
    for each in models:
        remaining_usd = None
        if budget_usd is not None:
            others = sum_spent(every - {folders[each.model]})
            remaining_usd = float(max(Decimal(0), Decimal(str(budget_usd)) - others))
        row = _save_one(each, folders[each.model], source, wishes, remaining_usd, progress, today)
        if each.model in failed:
            row |= {"state": FAILED, "why": failed[each.model]}
        rows.append(row)
    return {"folder": str(out), "models": rows, "usd": float(sum_spent(every))}


def _check_folder_owner(out: Path, model: str) -> None:
    """Raise ConfigError if a folder belongs to another model, or holds folders of models."""
    owner, inside = artifacts.read_owner(out), artifacts.find_saved(out)
    if model in inside:
        raise ConfigError(f"{out}: {model} is saved in {inside[model]}; give that as --out.")
    if owner not in (None, model):
        raise ConfigError(
            f"{out}: this folder holds what was saved of {owner}; give another --out."
        )
    if inside and owner is None:
        raise ConfigError(
            f"{out}: this folder holds the folders of other models; give one of its own as --out, "
            f"for instance {out / artifacts.name_folder(model)}."
        )


def _check_folder(out: Path, wishes: MigrationOptions) -> None:
    """Raise ConfigError if the folder belongs to one model, or there is a `train` file."""
    owner = artifacts.read_owner(out)
    if owner is not None:
        raise ConfigError(
            f"{out}: this folder holds what was saved of {owner} alone; give another --out, or the "
            "folder above it."
        )
    if wishes.train is not None:
        raise ConfigError(
            "--train is one model's file, and --all saves many; put your copy into the model's "
            f"folder as {TRAIN_FILE}."
        )


def _save_files(keeper: ArtifactSaver, model: TunedModel, wishes: MigrationOptions) -> None:
    """Save the files of a model."""
    if wishes.train is None:
        keeper.save_examples(TRAIN_FILE, model.training_file)
    if model.validation_file is not None or (keeper.folder / TEST_FILE).exists():
        keeper.save_examples(TEST_FILE, model.validation_file)
    keeper.save_job()


def _save_one(
    model: TunedModel,
    folder: Path,
    source: ProviderAccount,
    wishes: MigrationOptions,
    budget_usd: float | None,
    progress: Progress,
    today: datetime.date,
) -> dict[str, Any]:
    """Return the state of one of many models after asking it; failures are states too."""
    missing = Manifest(folder).missing
    row: dict[str, Any] = {"model": model.model, "folder": str(folder), "missing": missing}
    noted = Manifest(folder).answers()
    row |= {"state": SAVED if noted else FILES_ONLY, "why": None}
    if noted:
        row |= {name: noted[name] for name in SHOWN_FACTS}
    lost = [f"{name}: {why}" for name, why in missing.items() if name in (TRAIN_FILE, TEST_FILE)]
    has_test = wishes.test is not None or (folder / TEST_FILE).exists() or TEST_FILE in missing
    try:
        if not wishes.answers:
            row |= {"state": FAILED, "why": "; ".join(lost)} if lost else {}
        elif not has_test and not noted:
            row["why"] = (
                "it was tuned without a validation file, so there are no examples that it has not "
                "seen; give some as --test"
            )
        elif has_test:
            if not model.listed and not noted:
                raise ConfigError(
                    f"it ended on {find_end(model, source).day}, so it can be asked no more"
                )
            row |= _save_answers(model, folder, source, wishes, budget_usd, progress)
            row["state"] = SAVED
    except BudgetError as error:
        row |= {"state": OVER_BUDGET, "why": str(error)}
    except TuneoffError as error:
        row |= {"state": FAILED, "why": str(error)}
    if row["why"] is not None:
        row["why"] = row["why"].removeprefix(f"{model.model}: ").removesuffix(".")
    return row | {"usd": float(sum_spent([folder]))}


def _save_answers(
    model: TunedModel,
    folder: Path,
    source: ProviderAccount,
    wishes: MigrationOptions,
    budget_usd: float | None,
    progress: Progress,
) -> dict[str, Any]:
    """Have a model answer examples that it has not seen, and write the bake-off file."""
    missing = Manifest(folder).missing
    train = _choose_file(model, folder, TRAIN_FILE, wishes.train, "--train", missing)
    if wishes.test is None and not (folder / TEST_FILE).exists() and TEST_FILE not in missing:
        raise ConfigError(
            f"{model.model} was tuned without a validation file, so all that the provider has are "
            "examples it has seen; give examples it has not seen as --test (or save its files "
            "alone: --no-answers)."
        )
    test = _choose_file(model, folder, TEST_FILE, wishes.test, "--test", missing)
    task: dict[str, Any] = {"id": "chat", "train": train, "test": test}
    task["max_new_tokens"] = compute_max_new_tokens(folder / train)
    metrics = wishes.choices.read_metrics(folder)
    if metrics:
        task["metrics"] = metrics
    if wishes.limit is not None:
        task["limit"] = {"test": wishes.limit}
    answers = capture_answers(model.model, folder, source, task, budget_usd, wishes.yes, progress)
    file = folder / BAKEOFF_FILE
    if file.exists():
        progress.say(f"{file} is there already, and stays as it is")
    else:
        name, examples = folder.resolve().name, len(chat.read_examples(folder / train))
        ends = find_end(model, source).day
        left = LeftModel(model.model, model.base, source, name, task, examples, ends)
        write_text(file, render_bakeoff(left, wishes.choices))
    return {
        "file": str(file),
        "run_dir": str(find_run_dir(file)),
        "train": len(chat.read_examples(folder / train)),
        **{name: answers[name] for name in SHOWN_FACTS},
    }


def _choose_file(
    model: TunedModel,
    folder: Path,
    name: str,
    given: Path | None,
    option: str,
    missing: dict[str, str],
) -> str:
    """Return the name of a file of examples, as the folder's bake-off files name it."""
    if given is not None:
        chat.read_examples(given)
        return os.path.relpath(given.resolve(), folder.resolve())
    path = folder / name
    if not path.exists():
        raise ConfigError(
            f"{model.model}: {missing.get(name, 'its file is not there')}; give your copy as "
            f"{option}, or put it there as {path}."
        )
    chat.read_examples(path)
    return name


def find_run_dir(file: Path) -> Path:
    """Return the run directory of `tuneoff run FILE`."""
    return run.DEFAULT_FOLDER / str(yaml.safe_load(file.read_text(encoding="utf-8"))["name"])
