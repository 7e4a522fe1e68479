"""Starts a server from the arguments of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tuneoff.inference import backend
from tuneoff.server import app
from tuneoff.server.run_models import start_run_backend
from tuneoff.server.settings import KEYS_VARIABLE, build_server_config


def serve(
    run_dir: Path | None,
    contender: str | None,
    bases: Sequence[str],
    *,
    strict: bool,
    answers_with: backend.BackendName,
    address: str,
    port: int,
    data_dir: Path,
    workers: int | None,
    say: Callable[[str], None],
) -> None:
    """Serve a run's tuned contenders, or one of them, and bases that may be tuned.

    It runs until it is interrupted.

    Raises:
        ConfigError, MissingExtraError: as `start_run_backend`, `build_server_config` and
            `start_backend` do.
    """
    app.check_address(address, port)  # before anything is loaded
    start = partial(backend.start_backend, answers_with, tuple(bases))
    opened = (
        start_run_backend(run_dir, contender, strict, say, start) if run_dir is not None else None
    )
    served = opened[1] if opened else ()
    keys = os.environ.get(KEYS_VARIABLE)
    settings = build_server_config(data_dir, tuple(bases), address, keys, served, workers)
    host = opened[0] if opened else backend.start_backend(answers_with, tuple(settings.bases), ())
    names = ", ".join([*settings.bases, *(model.name for model in served)])
    say(
        f"serving {names} on http://{address}:{port}/v1, with a page at http://{address}:{port}/ "
        f"({'a key is needed' if settings.api_keys else 'no key, this machine only'})"
    )
    app.run_app(settings, address, port, host)
