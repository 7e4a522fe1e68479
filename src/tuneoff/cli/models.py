"""Commands of tuned models: serve, export and publish them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from tuneoff.cli.console import Json, print_json, silence_libraries

TunedIn = Annotated[
    Path, typer.Argument(help="A run directory, or the data directory of `tuneoff serve`.")
]
Tuned = Annotated[str, typer.Argument(help="The tuned contender, or the model ft:….")]


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
        from tuneoff.server.app import serve as run_server
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "tuneoff serve") from None
    silence_libraries()
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
    from tuneoff.export.export import export_contender

    silence_libraries()
    say = functools.partial(typer.echo, err=True)
    exported = export_contender(
        run, contender, format, out, dtype=dtype, outtype=outtype, strict=strict, say=say
    )
    if as_json:
        print_json(exported)
        return
    for name, size in exported.files.items():
        typer.echo(f"{exported.out}/{name} ({size} bytes)")


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
    from tuneoff.export.hub import publish as send

    silence_libraries()
    say = functools.partial(typer.echo, err=True)
    published = send(run, contender, repo, format=format, public=public, strict=strict, say=say)
    if as_json:
        print_json(published)
    else:
        typer.echo(published.url)
