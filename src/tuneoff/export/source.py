"""Finds the tuned model to export: a contender of a run, or a model that a server tuned."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tuneoff.bakeoff.answer_check import (
    ROUNDED_SAMPLE_SIZE,
    MetricEvaluator,
    TunedContender,
    load_tuned_contenders,
)
from tuneoff.config.contenders import LocalConfig, TrainConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import ConfigError, DataError, explain_unknown
from tuneoff.models.loading import choose_dtype, load_model, load_tokenizer
from tuneoff.progress import SilentProgress
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.scoring.base import Options, load_scorer
from tuneoff.storage.resume import load_stored_bakeoff
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import chat
from tuneoff.tokenization.chat_template import find_job_date

# Maximum length in tokens of an answer that is compared.
MAX_TOKENS = 128


def find_tuned(run: Path, name: str) -> TunedContender:
    """Return the tuned model of a run directory, or of a server's data directory.

    Raises:
        ConfigError: the folder is neither, or no model of this name was tuned there.
    """
    if (run / "server.sqlite").is_file():
        return _load_served(run, name)
    if not (run / "bakeoff.yaml").is_file():
        raise ConfigError(
            f"{run}: there is no bakeoff.yaml and no server.sqlite in it; give a run directory, or "
            "the data directory of `tuneoff serve`."
        )
    for contender in load_stored_bakeoff(run).contenders:
        if contender.name == name and not isinstance(contender, LocalConfig):
            raise ConfigError(
                f"contender {name} is {contender.id}: nothing of it was tuned here that could be "
                "exported; name a local contender."
            )
    return load_tuned_contenders(run, name, "CONTENDER")[0]


def _load_served(data_dir: Path, name: str) -> TunedContender:
    """Return a model that a server tuned, or a checkpoint of one.

    Its answers must equal those of the server: its base with its adapter, asked the prompts of the
    job's validation file (or training file, without a validation file).
    """
    models = _query(data_dir, "SELECT name, base, job_id, step FROM tuned ORDER BY created_at")
    rows_by_name = {row["name"]: row for row in models}
    if name not in rows_by_name:
        raise ConfigError(f"CONTENDER: {explain_unknown('model', name, rows_by_name)}.")
    row = rows_by_name[name]
    directory = ContenderDir(data_dir / "jobs" / row["job_id"])
    weights = directory.adapter if row["step"] is None else directory.epoch(row["step"])
    if not (weights / "adapter_config.json").is_file():
        raise ConfigError(f"{name}: its adapter is not in {weights} any more; tune it again.")
    job = _query(data_dir, "SELECT created_at, facts FROM jobs WHERE id = ?", row["job_id"])[0]
    facts = json.loads(job["facts"])
    adapter_config = json.loads((weights / "adapter_config.json").read_bytes())
    record = directory.training()
    numbers = facts["resolved"]
    train = TrainConfig(
        epochs=numbers["n_epochs"],
        batch_size=numbers["batch_size"],
        learning_rate=record.learning_rate if record else None,
    )
    # A model's name may hold characters that a contender's may not.
    settings = LocalConfig(
        name=row["job_id"], id="local", base=row["base"], train=train, seed=facts["seed"]
    ).model_copy(update={"name": name})
    file = facts["validation_file"] or facts["training_file"]
    try:
        path = data_dir / "files" / f"{file}.jsonl"
        test = list(islice(chat.read_stored_examples(path), ROUNDED_SAMPLE_SIZE))
    except DataError:  # the file was deleted
        test = []
    work = ContenderContext(
        folder=Path(),
        train=[],
        validation=[],
        test=test,
        template=replace(CHAT_PASS_THROUGH, today=find_job_date(facts, job["created_at"])),
        prompt="full",
        max_new_tokens=MAX_TOKENS,
        directory=directory,
        progress=SilentProgress(),
    )
    base = str(adapter_config["base_model_name_or_path"])
    judge = MetricEvaluator(load_scorer(chat.SCORER), Options())
    return TunedContender(settings, base, weights, work, {}, judge, was="served")


def add_served_answers(tuned: TunedContender) -> TunedContender:
    """Return a served model with the server's answers."""
    import peft

    from tuneoff.contenders.local_inference import generate_answers

    if tuned.was != "served" or not tuned.work.test:
        return tuned
    base = load_model(tuned.base, "none", choose_dtype(tuned.settings.train.precision))
    model: Any = peft.PeftModel.from_pretrained(base, str(tuned.weights))
    tokenizer = load_tokenizer(tuned.base)
    batches = generate_answers(tuned.settings, tuned.work, model, tokenizer, tuned.work.test)
    return replace(
        tuned, predictions={prediction.id: prediction for batch in batches for prediction in batch}
    )


def _query(data_dir: Path, sql: str, *values: str) -> list[dict[str, Any]]:
    """Return the rows of a query on a server's database, opened read-only."""
    address = f"{(data_dir / 'server.sqlite').resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, values)]
