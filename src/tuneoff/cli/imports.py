"""The command that imports files of other tools."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tuneoff.cli.console import Json, print_json


def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="JSONL (.gz too) or JSON files, or folders."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    test_share: Annotated[
        float, typer.Option(help="Logs: the newest share of the rows, kept for the test.")
    ] = 0.1,
    test_from: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Logs: rows from this time on (UTC) are for the test.",
        ),
    ] = None,
    repeats: Annotated[
        str, typer.Option(help="Logs: of different answers to one prompt keep latest or all.")
    ] = "latest",
    model: Annotated[str | None, typer.Option(help="Logs: keep this model's answers only.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Logs: keep this many rows, the newest ones.")
    ] = None,
    redact: Annotated[
        str | None,
        typer.Option(metavar="KIND,...", help="Logs: replace key, email, phone, card, iban."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Evals: the field of an item that is its reference."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make training and test rows of a request log, or of another tool's export."""
    from tuneoff.imports import import_files
    from tuneoff.imports.options import read_options

    options = read_options(test_share, test_from, repeats, model, limit, redact, reference)
    summary, lines = import_files(sources, out, options)
    if as_json:
        print_json(summary)
    else:
        typer.echo("\n".join(lines))
