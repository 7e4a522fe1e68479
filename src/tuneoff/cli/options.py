"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
RunDirectory = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lies [default: runs/NAME].")
]
