"""The command line: parsing and printing only. Every command calls a function of the API.

stdout holds what was asked for (with `--json` one JSON document); progress, warnings and errors go
to stderr. Exit codes: 0 done; 1 unexpected error; 2 the user's file or data is wrong; 3 over
budget; 4 some contender failed and the rest are finished; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from tuneoff.cli import imports, labels, migration, models, parity, run
from tuneoff.cli import prices as money
from tuneoff.errors import TuneoffError

app = typer.Typer(
    name="tuneoff",
    help="For this task, which fine-tuned model should I use?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
prices = typer.Typer(help="The price book: dates, sources, what is stale.")
prices.callback(invoke_without_command=True)(money.prices)
prices.command("check")(money.check_prices)
COMMANDS: tuple[Callable[..., None], ...] = (
    run.demo, run.init, run.check, run.plan, run.run, run.score,
    run.report, labels.label, run.compare, parity.parity, migration.migrate, models.serve,
    models.export, models.publish,
)  # fmt: skip
for each in COMMANDS:
    app.command()(each)
app.command("import")(imports.import_)
app.add_typer(prices, name="prices")


def _show_version(wanted: bool) -> None:
    """Print the version and exit, if it is wanted."""
    if wanted:
        typer.echo(f"tuneoff {metadata.version('tuneoff')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["TUNEOFF_DEBUG"] = "1"


def _exit_at_once(code: int) -> None:
    """Exit at once: after Ctrl-C twice no answer in flight is awaited."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _add_ray_address(words: list[str]) -> list[str]:
    """Return the arguments with an address after every `--ray` that has none: the running
    cluster's."""
    arguments = []
    for word, after in zip_longest(words, words[1:]):
        arguments.append(word)
        if word == "--ray" and (after is None or after.startswith("-") or Path(after).exists()):
            arguments.append(run.RUNNING_CLUSTER)
    return arguments


def main() -> None:
    """Run the command line; print one sentence for an error, without a traceback unless --debug."""
    # OpenMP's threads spin while they wait for each other. Beside another program whose threads
    # spin too, both stand still; with so short a time they do not (`benchmarks/busy_core.py`).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        app(args=_add_ray_address(sys.argv[1:]))
    except TuneoffError as error:
        if os.environ.get("TUNEOFF_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == 130:  # typer's code for Ctrl-C
            typer.echo("interrupted; the same command goes on from here.", err=True)
            waiting = ("ThreadPool", "contender ")
            if any(each.name.startswith(waiting) for each in threading.enumerate()):
                _exit_at_once(130)
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
