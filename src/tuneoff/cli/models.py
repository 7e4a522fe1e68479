"""Commands about tuned models: saving, serving and exporting them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tuneoff.cli.options import Json
from tuneoff.terminal import print_json, quieten, shown_progress

TunedIn = Annotated[
    Path, typer.Argument(help="A run directory, or the data directory of `tuneoff serve`.")
]
Tuned = Annotated[str, typer.Argument(help="The tuned contender, or the model ft:….")]


def migrate(
    model: Annotated[
        str | None, typer.Argument(help="The tuned model, ft:…; left out, all are listed.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for what is saved.")] = Path(
        "migration"
    ),
    train: Annotated[Path | None, typer.Option(help="Your copy of its training file.")] = None,
    test: Annotated[Path | None, typer.Option(help="Examples that it has not seen.")] = None,
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
    no_successor: Annotated[bool, typer.Option(help="Prompt no other model.")] = False,
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
        float | None, typer.Option(min=0, help="The most that asking it may cost.")
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
    import shlex

    from tuneoff import migration
    from tuneoff.report import format
    from tuneoff.summary import migration_table

    found: Any
    if parity is not None:
        found = migration.parity_of(parity, margin)
        lines = [migration.summarize_exits(found), *(row["sentence"] for row in found)]
    elif model is None:
        found = migration.tuned_models(migration.Source(provider, base_url, key_variable))
        lines = [migration_table(found)]
    else:
        with shown_progress() as progress:
            found = migration.migrate(
                model,
                out,
                migration.Source(provider, base_url, key_variable),
                train=train,
                test=test,
                choices=migration.Choices(
                    bases=tuple(base) if base else migration.Choices().bases,
                    azure_url=azure_url,
                    azure_key_variable=azure_key_variable,
                    successor=successor,
                    has_successor=not no_successor,
                    metrics=tuple(metric or ()),
                    judge=judge,
                    requests_per_month=requests_per_month,
                ),
                limit=limit,
                budget_usd=budget_usd,
                yes=yes,
                progress=progress,
            )
        lines = [
            f"{found['answered']} answers of {model} are kept in {out / 'answers.jsonl'} "
            f"({format.words(found['metric'])} "
            f"{format.score(found['score'], format.is_share(found['score']))}).",
            f"Wrote {found['file']}. Next: tuneoff run {shlex.quote(found['file'])}; then "
            f"tuneoff migrate --parity {shlex.quote(found['run_dir'])}",
        ]
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(lines))
    if fail_if_worse and parity is not None and not any(row["holds"] for row in found):
        raise typer.Exit(1)


def serve(
    run_dir: Annotated[
        Path | None, typer.Argument(help="A run directory: serve its tuned contenders.")
    ] = None,
    contender: Annotated[str | None, typer.Option(help="Serve this one of the run.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Do not open if answers differ from the scored ones.")
    ] = False,
    base: Annotated[
        list[str] | None, typer.Option(help="A base to tune: a folder or hub id (repeatable).")
    ] = None,
    backend: Annotated[
        Literal["auto", "transformers", "vllm"],
        typer.Option(help="What answers; auto: vllm where it is installed and a GPU is there."),
    ] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Where files and jobs lie.")] = Path(
        "tuneoff-data"
    ),
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Jobs trained at once (default: one a device)."),
    ] = None,
) -> None:
    """Serve the OpenAI-shaped fine-tuning API over open models, or a run's contenders."""
    from tuneoff.errors import MissingExtraError

    try:
        from tuneoff.server.starting import serve as run_server
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "tuneoff serve") from None
    quieten()
    run_server(
        run_dir, contender, base or (), strict=strict, answers_with=backend, address=host,
        port=port, data_dir=data_dir, workers=workers,
        say=functools.partial(typer.echo, err=True),
    )  # fmt: skip


def export(
    run: TunedIn,
    contender: Tuned,
    format: Annotated[str, typer.Option("--format", help="adapter, merged or gguf.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder [default: in RUN/exports].")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="merged: auto (the base's), float32, bf16, fp16.")
    ] = None,
    outtype: Annotated[
        str | None, typer.Option(help="gguf: f32, f16, bf16, q8_0 [default: f16].")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Keep nothing if answers differ from the scored ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a tuned model in the form that its runtime wants, and check that it answers alike."""
    from tuneoff.export import export_contender

    quieten()
    say = functools.partial(typer.echo, err=True)
    found = export_contender(
        run, contender, format, out, dtype=dtype, outtype=outtype, strict=strict, say=say
    )
    if as_json:
        print_json(found)
        return
    for name, size in found.files.items():
        typer.echo(f"{found.out}/{name} ({size} bytes)")


def publish(
    run: TunedIn,
    contender: Tuned,
    repo: Annotated[str, typer.Option("--repo", help="OWNER/NAME on the hub.")],
    format: Annotated[
        str | None, typer.Option("--format", help="adapter, merged or gguf [default: as tuned].")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Everybody may see it, if it is made now.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Send nothing if answers differ from the scored ones.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Send a tuned model and its card, with its results, to the Hugging Face hub."""
    from tuneoff.publish import publish as send

    quieten()
    say = functools.partial(typer.echo, err=True)
    found = send(run, contender, repo, format=format, public=public, strict=strict, say=say)
    if as_json:
        print_json(found)
    else:
        typer.echo(found.url)
