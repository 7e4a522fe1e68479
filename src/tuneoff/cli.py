"""The command line: parsing and printing only. Every command is a function of the API.

stdout holds what was asked for (with `--json` one JSON document); progress, warnings and
errors go to stderr. Exit codes: 0 done; 1 unexpected error; 2 the user's file or data is
wrong; 3 over budget; 4 some contender failed and the rest are finished; 130 interrupted.
"""

from __future__ import annotations

import datetime
import functools
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tuneoff.errors import TuneoffError
from tuneoff.terminal import bars, confirm, print_json, quieten, shown_progress

app = typer.Typer(
    name="tuneoff",
    help="For this task, which fine-tuned model should I use?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
RunDirectory = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lies [default: runs/NAME].")
]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["TUNEOFF_DEBUG"] = "1"


@app.command()
def demo(
    run_dir: Annotated[Path, typer.Option(help="Folder for both runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run both sample tasks with the shipped base: offline, on a CPU, in minutes."""
    import time

    from tuneoff.demo import run_demo

    began = time.monotonic()
    with shown_progress() as progress:
        finished = run_demo(run_dir, progress)
    seconds = time.monotonic() - began
    if as_json:
        print_json({"seconds": round(seconds, 1), "runs": [results for _, results in finished]})
    else:
        from tuneoff.summary import table

        for folder, results in finished:
            typer.echo(table(results))
            typer.echo(f"report: {folder / 'report.html'}\n")
        typer.echo(f"The demo took {seconds / 60:.1f} minutes.")
    _exit_for([results for _, results in finished])


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="Your examples: JSONL, CSV or Parquet.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("bakeoff.yaml"),
    as_json: Json = False,
) -> None:
    """Look at your data and write a starter bake-off file."""
    from tuneoff.init import write_starter

    found = write_starter(data, out)
    if as_json:
        print_json(found)
        return
    typer.echo(f"{found['examples']} examples in {data} ({found['form']}).")
    typer.echo(f"Wrote {out}. Next: tuneoff check {out}; tuneoff run {out}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A bake-off file, or a data file.")],
    as_json: Json = False,
) -> None:
    """Check a bake-off file or a data file; nothing is written or spent."""
    from tuneoff.check import check_file

    found = check_file(file)
    if as_json:
        print_json(found)
        return
    typer.echo(f"{file}: {found['summary']}")
    for warning in found["warnings"]:
        typer.echo(f"warning: {warning}")


@app.command("plan")
def plan_run(
    file: Annotated[Path, typer.Argument(help="The bake-off file.")],
    measure: Annotated[
        bool, typer.Option(help="Train for 20 s where a contender would be trained here.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Tokens, money, hours and memory before anything is spent; over budget is exit code 3."""
    from tuneoff.bakeoff_file import load
    from tuneoff.planning import plan
    from tuneoff.planning.text import table

    bakeoff = load(file)
    if any(contender.id == "local" for contender in bakeoff.contenders):
        quieten()
    planned = plan(bakeoff, measure=measure)
    if as_json:
        print_json(planned)
    else:
        typer.echo(table(planned))
    if planned.over_budget:
        raise typer.Exit(3)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The bake-off file.")],
    run_dir: RunDirectory = None,
    only: Annotated[str | None, typer.Option(help="Carry out this contender alone.")] = None,
    fresh: Annotated[bool, typer.Option(help="Forget what was done before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Let this recorded run (record: true) stand for providers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Carry out a bake-off; the same command again goes on where it stopped."""
    from tuneoff import bakeoff
    from tuneoff.bakeoff_file import load

    settings = load(file)
    folder = run_dir or bakeoff.DEFAULT_FOLDER / settings.name
    if fresh and not yes and folder.exists():
        confirm(_what_is_forgotten(folder, only))
    command = f"tuneoff run {file}" + (f" --run-dir {run_dir}" if run_dir else "")
    with shown_progress() as progress:
        results = bakeoff.run(
            settings,
            folder,
            only=only,
            fresh=fresh,
            yes=yes,
            replay=replay,
            progress=progress,
            command=command,
        )
    _show(folder, results, as_json)
    _exit_for([results], only)


@app.command()
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
    from tuneoff.score_file import How, score_file

    how = How(
        databases=databases,
        mode=mode,
        workers=workers,
        source=source,
        metrics=tuple(metric) if metric else None,
        derive=derive,
        seconds=seconds,
        memory_bytes=round(memory_gb * 1e9),
    )
    with bars() as progress:
        found = score_file(task, predictions, how, out, progress)
    if found["missing"]:
        total = found["missing"] + found["n"]
        typer.echo(
            f"warning: {found['missing']} of the {total} test examples have no prediction; they "
            "are not counted.",
            err=True,
        )
    if as_json:
        print_json(found)
        return
    from tuneoff.summary import score_lines

    typer.echo(score_lines(found))
    if out is not None:
        typer.echo(f"rows: {out}")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    examples: Annotated[
        bool, typer.Option(help="Show examples; leave them out to share figures, not data.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Build the report of a finished run again."""
    from tuneoff.report import write_report
    from tuneoff.rundir import RunDir

    html, markdown = write_report(RunDir(run_dir), with_examples=examples)
    if as_json:
        print_json({"html": str(html), "markdown": str(markdown)})
    else:
        typer.echo(f"{html}\n{markdown}")


prices_app = typer.Typer(help="The price book: dates, sources, what is stale.")
app.add_typer(prices_app, name="prices")
PricesFile = Annotated[
    Path | None, typer.Option("--prices", help="Your own prices, before the shipped ones.")
]
AsOf = Annotated[
    datetime.datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="Prices of this day [default: today]."),
]


@prices_app.callback(invoke_without_command=True)
def prices(
    context: typer.Context, own: PricesFile = None, as_of: AsOf = None, as_json: Json = False
) -> None:
    """The price book: USD per million tokens and per hour, with dates and sources."""
    from tuneoff.prices import listed, table

    if context.invoked_subcommand is not None:
        if own or as_of or as_json:
            raise typer.BadParameter(f"put options behind `{context.invoked_subcommand}`.")
        return
    found = listed(own, as_of.date() if as_of else None)
    if as_json:
        print_json(found)
    else:
        typer.echo(table(found))


@prices_app.command("check")
def check_prices(own: PricesFile = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """What is stale, has ended or ends soon; two prices of one day are wrong (exit code 2)."""
    from tuneoff.prices import checked

    found = checked(own, as_of.date() if as_of else None)
    if as_json:
        print_json(found)
    else:
        for each in found["findings"]:
            typer.echo(f"{each['kind']}: {each['sentence']}")
        typer.echo("The price book is fine." if found["ok"] else "The price book is wrong.")
    if not found["ok"]:
        raise typer.Exit(2)


@app.command()
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
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many test examples.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, help="The most that asking it may cost.")
    ] = None,
    parity: Annotated[
        Path | None, typer.Option(help="Say of this finished run whether open models match.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="What may be lost and still be a match.")
    ] = 0.03,
    provider: Annotated[str, typer.Option(help="Where the tuned models are.")] = "openai",
    base_url: Annotated[str | None, typer.Option(help="Its address, unless the usual.")] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the key, unless the usual.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask it even without a price.")] = False,
    as_json: Json = False,
) -> None:
    """Move from a hosted fine-tune that is ending to an open model, with proof of parity."""
    from tuneoff import migrate as migration
    from tuneoff.summary import migration_table

    found: Any
    if parity is not None:
        found = migration.parity_of(parity, margin)
        lines = [row["sentence"] for row in found] or ["No open model has answered yet."]
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
                bases=tuple(base) if base else migration.USUAL_BASES,
                limit=limit,
                budget_usd=budget_usd,
                yes=yes,
                progress=progress,
            )
        lines = [
            f"{found['answered']} answers of {model} are kept in {out / 'answers.jsonl'} "
            f"({100 * found['score']:.1f}% right).",
            f"Wrote {found['file']}. Next: tuneoff run {found['file']}; then "
            "tuneoff migrate --parity runs/NAME",
        ]
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(lines))


@app.command()
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


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="A run directory, or the data directory of `tuneoff serve`.")
    ],
    contender: Annotated[str, typer.Argument(help="The tuned contender, or the model ft:….")],
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


def _show(folder: Path, results: Any, as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    from tuneoff.summary import table

    typer.echo(table(results))
    typer.echo(f"report: {folder / 'report.html'}")


def _what_is_forgotten(folder: Path, only: str | None) -> str:
    from tuneoff.rundir import RunDir

    question = f"Forget what {f'contender {only}' if only else 'every contender'} did in {folder}?"
    job = RunDir(folder).contender(only).job() if only else {}
    if job.get("job_id"):
        question += (
            f" Its job {job['job_id']} ({job.get('status')}) was paid for; another one is "
            "paid for again."
        )
    return question


def _exit_for(runs: list[Any], only: str | None = None) -> None:
    """Exit code 4 when a contender that was to be carried out failed."""
    if any(c.error and only in (None, c.name) for run in runs for c in run.contenders):
        raise typer.Exit(4)


def _leave_threads(code: int) -> None:
    """Ends at once: who pressed Ctrl-C twice waits for no answer that is under way."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """The console script: one sentence for an error, no traceback unless --debug."""
    try:
        app()
    except TuneoffError as error:
        if os.environ.get("TUNEOFF_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == 130:  # typer's word for Ctrl-C
            typer.echo("interrupted; the same command goes on from here.", err=True)
            if any(each.name.startswith("ThreadPool") for each in threading.enumerate()):
                _leave_threads(130)
        raise
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if os.environ.get("TUNEOFF_DEBUG"):
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        typer.echo(
            f"unexpected error: {type(error).__name__}: {first} "
            "(tuneoff --debug shows where; please report it)",
            err=True,
        )
        sys.exit(1)
