"""How commands use the terminal: JSON on stdout, progress and questions on stderr.

Options that several commands have are defined here. Libraries are silenced; what the hub's library
logs about a hub that does not answer (two lines per try, for each file) is shortened, because the
error that follows is shown anyway.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from tuneoff.models.head import ignore_tie_warnings
from tuneoff.progress import LineProgress, Progress


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    from pydantic_core import to_jsonable_python

    text = json.dumps(to_jsonable_python(_convert_decimals(value)), ensure_ascii=False, indent=2)
    # Half of a surrogate pair cannot be written as UTF-8, only as a JSON escape.
    typer.echo(re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half.group()):04x}", text))


def _convert_decimals(value: Any) -> Any:
    """Return a value with each `Decimal` as a float: in JSON, money is a number."""
    from decimal import Decimal

    if isinstance(value, dict):
        return {key: _convert_decimals(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_convert_decimals(inner) for inner in value]
    return float(value) if isinstance(value, Decimal) else value


def show_quiet_progress() -> Any:
    """Return a context manager that shows progress on stderr; silence libraries unless --debug."""
    if not os.environ.get("TUNEOFF_DEBUG"):
        silence_libraries()
    return show_progress()


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show progress on stderr: a live view in a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    from tuneoff.cli.live_view import LiveView

    live = LiveView()
    with live.shown:
        yield live


def silence_libraries() -> None:
    """Silence the messages of libraries that a user can do nothing about."""
    import logging
    import warnings

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    shorten_hub_errors()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # Libraries warn of each other's renamed parameters; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    ignore_tie_warnings()


def confirm(question: str) -> None:
    """Ask a question; end the command unless the answer is yes."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("--fresh deletes work; say --yes as well.")
    typer.confirm(question, abort=True, err=True)


HUB_LOGGER = "huggingface_hub.utils._http"
_FAILED_TRY = re.compile(r"^(?P<why>.*?) thrown while requesting \S+ (?P<url>\S+)")
_RETRY = re.compile(r"^Retrying in ")


class HubErrorFilter(logging.Filter):
    """Passes one short line per host for failed tries, and every other message."""

    def __init__(self) -> None:
        super().__init__()
        self._told = set[str | None]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is logged; shorten the first failed try at a host."""
        said = record.getMessage()
        thrown = _FAILED_TRY.match(said)
        if thrown is None:
            return not _RETRY.match(said)
        # Only the host is logged: an address may hold a signature.
        host = urlsplit(thrown["url"]).hostname
        why = thrown["why"].strip("'")
        record.msg, record.args = f"{host} does not answer ({why}); trying again for a while", ()
        new = host not in self._told
        self._told.add(host)
        return new


def shorten_hub_errors() -> None:
    """Install the filter on the hub library's logger."""
    logger = logging.getLogger(HUB_LOGGER)
    if not any(isinstance(each, HubErrorFilter) for each in logger.filters):
        logger.addFilter(HubErrorFilter())


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
RunDirectory = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lies [default: runs/NAME].")
]
