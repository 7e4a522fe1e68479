"""The command for hosted fine-tunes that end: list them, save them, and test what may follow."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneoff.cli.console import Json, print_json, show_quiet_progress


def migrate(
    model: Annotated[
        str | None, typer.Argument(help="The tuned model, ft:…; left out, all are listed.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Save every tuned model, each in a folder of its own.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is saved.")] = Path(
        "migration"
    ),
    train: Annotated[Path | None, typer.Option(help="Your copy of its training file.")] = None,
    test: Annotated[
        Path | None, typer.Option(help="Examples not seen [default: the validation file].")
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers/--no-answers", help="Ask it, or save files alone.")
    ] = True,
    base: Annotated[
        list[str] | None, typer.Option(help="An open model to tune instead (repeatable).")
    ] = None,
    azure_url: Annotated[
        str | None, typer.Option(help="Address of your Azure resource: tune the base there again.")
    ] = None,
    azure_key_variable: Annotated[
        str | None, typer.Option(help="Environment variable with its key, unless the usual.")
    ] = None,
    successor: Annotated[
        str | None, typer.Option(help="A model to prompt instead, unless the one that is named.")
    ] = None,
    no_successor: Annotated[
        bool, typer.Option("--no-successor", help="Prompt no other model.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="An id or a file of task.metrics (repeatable); the first decides."),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(help="YAML file with the model and rubric of a judge.")
    ] = None,
    requests_per_month: Annotated[
        int | None, typer.Option(min=1, help="Your traffic, for costs a month.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many test examples.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, help="The most that asking may cost in all.")
    ] = None,
    parity: Annotated[
        Path | None, typer.Option(help="Say of this finished run which exits hold.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="With --parity: what may be lost [default: the run's, else 0.03]."
        ),
    ] = None,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="With --parity: exit code 1 if none holds.")
    ] = False,
    provider: Annotated[str, typer.Option(help="Where the tuned models are.")] = "openai",
    base_url: Annotated[str | None, typer.Option(help="Its address, unless the usual.")] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the key, unless the usual.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask it even without a price.")] = False,
    as_json: Json = False,
) -> None:
    """Move from a hosted fine-tune that is ending to what is as good, with proof of it."""
    from tuneoff.bakeoff import migration
    from tuneoff.cli.tables import render_tuned_models
    from tuneoff.errors import ConfigError

    result: Any
    source = migration.ProviderAccount(provider, base_url, key_variable)
    choices = migration.ExitOptions(
        bases=tuple(base) if base else migration.ExitOptions().bases,
        azure_url=azure_url,
        azure_key_variable=azure_key_variable,
        successor=successor,
        has_successor=not no_successor,
        metrics=tuple(metric or ()),
        judge=judge,
        requests_per_month=requests_per_month,
    )
    if parity is None and (fail_if_worse or margin is not None):
        raise ConfigError("--fail-if-worse and --margin go with --parity and a finished run.")
    if parity is not None and (model is not None or every or choices.metrics or judge):
        raise ConfigError(
            "--parity says what a finished run found, by its own metrics; leave out MODEL, --all, "
            "--metric and --judge."
        )
    if every and model is not None:
        raise ConfigError(f"--all saves every tuned model; leave out {model}, or --all.")
    choices.read_metrics(out)
    wishes = migration.MigrationOptions(train, test, choices, limit, yes, answers)
    code = 0
    if parity is not None:
        result = migration.judge_exits(parity, margin)
        lines = [migration.summarize_exits(result), *(row["sentence"] for row in result)]
        code = int(fail_if_worse and not any(row["holds"] for row in result))
    elif every:
        with show_quiet_progress() as progress:
            result = migration.migrate_all(
                out, source, wishes, budget_usd=budget_usd, progress=progress
            )
        lines, code = _describe_all(result), _find_exit_code(result)
    elif model is not None:
        with show_quiet_progress() as progress:
            result = migration.migrate(
                model, out, source, wishes, budget_usd=budget_usd, progress=progress
            )
        lines = _describe_one(result)
    else:
        result = migration.list_models(source)
        lines = [render_tuned_models(result)]
    if as_json:
        print_json(result)
    else:
        typer.echo("\n".join(lines))
    if code:
        raise typer.Exit(code)


def _find_exit_code(result: Mapping[str, Any]) -> int:
    """Return the exit code: 4 where a model failed, else 3 where the budget left one unasked."""
    states = {row["state"] for row in result["models"]}
    return 4 if "failed" in states else 3 if "over budget" in states else 0


def _describe_answers(row: Mapping[str, Any]) -> str:
    """Return how many answers a model gave, with their score."""
    from tuneoff.report import format

    value, share = row["score"], format.is_share(row["score"])
    return f"{row['answered']} answers ({row['metric']} {format.score(value, share)})"


def _describe_next(file: str, run_dir: str) -> str:
    """Return the commands to give next."""
    run, compare = shlex.quote(file), shlex.quote(run_dir)
    return f"Next: tuneoff run {run}; then tuneoff migrate --parity {compare}"


def _describe_one(row: Mapping[str, Any]) -> list[str]:
    """Return the lines about one saved model."""
    lines = [f"{name} is not saved: {why}." for name, why in row["missing"].items()]
    if "answered" not in row:
        return [*lines, f"What the provider has of {row['model']} is in {row['folder']}."]
    kept = Path(row["folder"]) / "answers.jsonl"
    return [
        *lines,
        f"{_describe_answers(row)} of {row['model']} are kept in {kept}.",
        f"What may follow it is in {row['file']}. {_describe_next(row['file'], row['run_dir'])}",
    ]


def _describe_all(result: Mapping[str, Any]) -> list[str]:
    """Return the lines about all saved models."""
    rows = result["models"]
    if not rows:
        return ["This account has no tuned models."]
    lines = []
    for row in rows:
        what = [_describe_answers(row) if "answered" in row else "files alone"]
        what += [f"no {name}" for name in row["missing"]]
        lines.append(f"{row['model']}: {', '.join(what)}, in {row['folder']}")
    for state, words in (("files alone", "not asked"), ("over budget", "not asked"),
                        ("failed", "failed")):  # fmt: skip
        lines += [
            f"{words}: {r['model']}: {r['why']}." for r in rows if r["state"] == state and r["why"]
        ]
    answered = sum("answered" in row for row in rows)
    cost = f"; asking cost ${result['usd']:.4f} so far" if result["usd"] else ""
    lines.append(f"{answered} of {len(rows)} tuned models have answered{cost}.")
    ready = [row for row in rows if "file" in row]
    for row in ready[:1]:
        each = " (so for each)" if len(ready) > 1 else ""
        lines.append(_describe_next(row["file"], row["run_dir"]) + each)
    return lines
