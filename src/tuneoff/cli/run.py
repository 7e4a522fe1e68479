"""Commands of bake-offs: from a data file to the report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneoff.cli.console import (
    Json,
    RunDirectory,
    confirm,
    print_json,
    show_progress,
    show_quiet_progress,
    silence_libraries,
)
from tuneoff.progress import Progress

# The address that `--ray` without one stands for: the running cluster.
RUNNING_CLUSTER = "auto"


def demo(
    run_dir: Annotated[Path, typer.Option(help="Folder for both runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run both sample tasks with the shipped base: offline, on a CPU, in minutes."""
    import time

    from tuneoff.bakeoff.demo import run_demo

    began = time.monotonic()
    with show_quiet_progress() as progress:
        finished = run_demo(run_dir, progress)
    seconds = time.monotonic() - began
    if as_json:
        print_json({"seconds": round(seconds, 1), "runs": [results for _, results in finished]})
    else:
        from tuneoff.cli.tables import render_results

        for folder, results in finished:
            typer.echo(render_results(results))
            typer.echo(f"report: {folder / 'report.html'}\n")
        typer.echo(f"The demo took {seconds / 60:.1f} minutes.")
    _exit_if_failed([results for _, results in finished])


def init(
    data: Annotated[Path, typer.Argument(help="Your examples: JSONL, CSV or Parquet.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("bakeoff.yaml"),
    test: Annotated[
        Path | None, typer.Option(help="Examples for the test alone, of the same form.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at your data and write a starter bake-off file."""
    from tuneoff.bakeoff.starter import write_starter

    summary = write_starter(data, out, test)
    if as_json:
        print_json(summary)
        return
    where = data if test is None else f"{data} and {test}"
    typer.echo(f"{summary['examples']} examples in {where} ({summary['form']}).")
    for warning in summary["warnings"]:
        typer.echo(f"warning: {warning}")
    typer.echo(f"Wrote {out}. Next: tuneoff check {out}; tuneoff run {out}")


def check(
    file: Annotated[Path, typer.Argument(help="A bake-off file, or a data file.")],
    as_json: Json = False,
) -> None:
    """Check a bake-off file or a data file; nothing is written or spent."""
    from tuneoff.bakeoff.check import check_file

    summary = check_file(file)
    if as_json:
        print_json(summary)
        return
    typer.echo(f"{file}: {summary['summary']}")
    for warning in summary["warnings"]:
        typer.echo(f"warning: {warning}")


def plan(
    file: Annotated[Path, typer.Argument(help="The bake-off file.")],
    measure: Annotated[
        bool, typer.Option(help="Train for 20 s where a contender would be trained here.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Tokens, money, hours and memory before anything is spent; over budget is exit code 3."""
    from tuneoff.bakeoff.plan.plan import plan as plan_bakeoff
    from tuneoff.cli.plan_tables import render_plan
    from tuneoff.config.load import load

    bakeoff = load(file)
    if any(contender.id == "local" for contender in bakeoff.contenders):
        silence_libraries()
    planned = plan_bakeoff(bakeoff, measure=measure)
    if as_json:
        print_json(planned)
    else:
        typer.echo(render_plan(planned))
    if planned.is_over_budget:
        raise typer.Exit(3)


def run(
    file: Annotated[Path, typer.Argument(help="The bake-off file.")],
    run_dir: RunDirectory = None,
    only: Annotated[str | None, typer.Option(help="Carry out this contender alone.")] = None,
    fresh: Annotated[bool, typer.Option(help="Forget what was done before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    fresh_data: Annotated[
        bool, typer.Option(help="Take the data files anew; keep all work that still holds.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Let this recorded run (record: true) stand for providers.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            show_default=False,
            help="Carry contenders out on a Ray cluster: the one that is running, or HOST:PORT.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="With --ray: where workers keep trainings (a shared folder, s3://…)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Carry out a bake-off; the same command again goes on where it stopped."""
    from tuneoff.bakeoff.run import DEFAULT_FOLDER
    from tuneoff.bakeoff.run import run as run_bakeoff
    from tuneoff.config.load import load

    if storage is not None and ray is None:
        raise typer.BadParameter("--storage is for workers; give --ray as well.")
    settings = load(file)
    folder = run_dir or DEFAULT_FOLDER / settings.name
    if fresh and not yes and folder.exists():
        confirm(_ask_fresh(folder, only))
    command = f"tuneoff run {file}" + (f" --run-dir {run_dir}" if run_dir else "")
    with show_quiet_progress() as progress, _open_executor(ray, storage, progress) as executor:
        results = run_bakeoff(
            settings,
            folder,
            only=only,
            fresh=fresh,
            yes=yes,
            replay=replay,
            fresh_data=fresh_data,
            executor=executor,
            progress=progress,
            command=command,
        )
    _show_results(folder, results, as_json)
    _exit_if_failed([results], only)


def score(
    task: Annotated[str, typer.Option("--task", help="The task's id.")],
    predictions: Annotated[Path, typer.Option(help="JSONL rows: id, prediction[, reference].")],
    source: Annotated[str | None, typer.Option(help="The task's source of references.")] = None,
    databases: Annotated[Path | None, typer.Option(help="Folder of DB_ID/*.sqlite.")] = None,
    mode: Annotated[str, typer.Option(help="strict or official.")] = "strict",
    workers: Annotated[int | None, typer.Option(min=1, help="Child processes.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Compute this one only (may be repeated).")
    ] = None,
    derive: Annotated[
        int, typer.Option(min=0, max=1000, help="SQL: databases to derive from each one.")
    ] = 0,
    seconds: Annotated[float, typer.Option(min=0.01, help="SQL: time limit of a query.")] = 5.0,
    memory_gb: Annotated[float, typer.Option(min=0.2, help="SQL: memory of a child.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", help="Write scored rows here.")] = None,
    as_json: Json = False,
) -> None:
    """Score predictions that were made anywhere."""
    from tuneoff.bakeoff.score import ScoreOptions, explain_rows_left_out, score_file

    how = ScoreOptions(
        databases=databases,
        mode=mode,
        workers=workers,
        source=source,
        metrics=tuple(metric) if metric else None,
        derive=derive,
        seconds=seconds,
        memory_bytes=round(memory_gb * 1e9),
    )
    with show_progress() as progress:
        result = score_file(task, predictions, how, out, progress)
    if result["missing"]:
        total = result["missing"] + result["n"]
        typer.echo(
            f"warning: {result['missing']} of the {total} test examples have no prediction; they "
            "are not counted.",
            err=True,
        )
    if result["left_out"]:
        of, first = result["left_out"] + result["n"], result["left_out_first"]
        line = explain_rows_left_out(result["left_out"], of, first, how)
        typer.echo(f"warning: {line}", err=True)
    if as_json:
        print_json(result)
        return
    from tuneoff.cli.tables import render_scores

    typer.echo(render_scores(result))
    if out is not None:
        typer.echo(f"rows: {out}")


def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    examples: Annotated[
        bool, typer.Option(help="Show examples; leave them out to share figures, not data.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Build the report of a finished run again, with people's labels where there are any."""
    from tuneoff.bakeoff.label_results import update_results
    from tuneoff.report import write_report
    from tuneoff.storage.run_dir import RunDir

    run = RunDir(run_dir)
    update_results(run)
    html, markdown = write_report(run, with_examples=examples)
    if as_json:
        table = run_dir / "results.csv"
        print_json({"html": str(html), "markdown": str(markdown), "csv": str(table)})
    else:
        typer.echo(f"{html}\n{markdown}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, the baseline first.")],
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit code 1 if one is worse, or failed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Lay finished runs side by side: is any contender worse than in the first of them?"""
    from tuneoff.bakeoff.compare import compare_runs
    from tuneoff.cli.tables import render_comparison

    result = compare_runs(runs)
    if as_json:
        print_json(result)
    else:
        typer.echo(render_comparison(result))
    if fail_if_worse and result["worse"]:
        raise typer.Exit(1)


@contextlib.contextmanager
def _open_executor(ray: str | None, storage: str | None, progress: Progress) -> Iterator[Any]:
    """Give a cluster's executor; None without --ray."""
    if ray is None:
        yield None
        return
    from tuneoff.cluster.executor import RayExecutor

    with contextlib.closing(
        RayExecutor(progress, None if ray == RUNNING_CLUSTER else ray, storage)
    ) as executor:
        yield executor


def _show_results(folder: Path, results: Any, as_json: bool) -> None:
    """Print the results of a run."""
    if as_json:
        print_json(results)
        return
    from tuneoff.cli.tables import render_results

    typer.echo(render_results(results))
    typer.echo(f"report: {folder / 'report.html'}")


def _ask_fresh(folder: Path, only: str | None) -> str:
    """Return the question that --fresh asks: what it deletes."""
    from tuneoff.storage.run_dir import RunDir

    question = f"Forget what {f'contender {only}' if only else 'every contender'} did in {folder}?"
    job = RunDir(folder).contender(only).job() if only else {}
    if job.get("job_id"):
        question += (
            f" Its job {job['job_id']} ({job.get('status')}) was paid for; another one is "
            "paid for again."
        )
    return question


def _exit_if_failed(runs: list[Any], only: str | None = None) -> None:
    """Exit with code 4 if a contender of the runs failed."""
    if any(c.error and only in (None, c.name) for run in runs for c in run.contenders):
        raise typer.Exit(4)
