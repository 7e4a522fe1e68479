"""`tuneoff parity`: compares new answers with old ones.

Prints outcomes, scores, flips, and what was left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneoff.cli.console import Json, print_json, show_progress


def parity(
    reference: Annotated[
        str, typer.Argument(help="What is being left: a JSONL file, a run, or RUN:CONTENDER.")
    ],
    candidates: Annotated[
        list[str], typer.Argument(metavar="CANDIDATE", help="What may follow it: the same.")
    ],
    task: Annotated[
        str | None, typer.Option(help="The task's id, of files [default: chat].")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric of the task, a Python file or a grader; the first decides (repeatable)."
        ),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(help="A judge's file (YAML: model, rubric, price, …).")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(help="Data file, or rows of id and reference; it stands for the rows' own."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="The task's source of references.")] = None,
    databases: Annotated[Path | None, typer.Option(help="Folder of DB_ID/*.sqlite.")] = None,
    mode: Annotated[str | None, typer.Option(help="SQL: strict (the default) or official.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="SQL: child processes.")] = None,
    contender: Annotated[
        list[str] | None,
        typer.Option(help="Whose answers of a run: for all runs, or once for each of them."),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="What may be lost and still be as good (a share).")
    ] = 0.03,
    cluster: Annotated[
        str | None, typer.Option(help="Key of meta whose rows belong together [default: task's].")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, help="The most that the judge may cost, ever.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask the judge even without a price.")
    ] = False,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit code 1 if a candidate is shown worse.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Are new answers as good as old ones? Better, worse, the same within a margin, or not told.

    Rows are {"id", "prediction"[, "reference", "meta", "sample"]}, joined by id. A run stands for
    the contender that it recommends. --fail-if-worse ends with 1 where a candidate is shown to be
    worse, by however little; what cannot be told is 0. What a judge says is kept beside its file.
    """
    from tuneoff.bakeoff.parity import ParityOptions, check_parity

    how = ParityOptions(
        task=task,
        source=source,
        metrics=tuple(metric or ()),
        judge=judge,
        budget_usd=budget_usd,
        yes=yes,
        references=references,
        databases=databases,
        mode=mode,
        workers=workers,
        cluster=cluster,
        margin=margin,
        contenders=tuple(contender or ()),
    )
    with show_progress() as progress:
        result = check_parity(reference, candidates, how, progress)
    if as_json:
        print_json(result)
    else:
        from tuneoff.cli.parity_tables import render_parity

        typer.echo(render_parity(result))
    if fail_if_worse and result["worse"]:
        raise typer.Exit(1)
