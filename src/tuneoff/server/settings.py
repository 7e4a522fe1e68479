"""Settings of a server."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

from tuneoff import environment
from tuneoff.config.contenders import SHIPPED_BASE
from tuneoff.errors import ConfigError
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.models.loading import check_eos_token, resolve_base

KEYS_VARIABLE = "TUNEOFF_API_KEYS"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of a server, fixed while it runs."""

    data_dir: Path
    bases: dict[str, str]
    """Models that may be tuned: the name that clients use, and what transformers loads."""
    api_keys: tuple[str, ...] = ()
    """Without keys, every request from this machine is allowed."""
    run_models: tuple[ServedModel, ...] = ()
    """Models of a run, which can only answer."""
    organization: str = "local"
    max_file_bytes: int = 512 * 1024**2
    max_body_bytes: int = 8 * 1024**2
    """Limit of each body, except uploads."""
    max_held_bytes: int = 64 * 1024**2
    """Limit of all bodies in memory together; uploads are on disk and do not count."""
    max_requests: int = 512
    """Limit of requests in flight."""
    max_waiting_jobs: int = 10_000
    """Limit of queued jobs."""
    workers: int | None = None
    """Number of training processes; None: one for each device."""
    today: datetime.date = field(default_factory=lambda: environment.today())
    """The date for chat templates that ask for one, as long as the server runs: of bases, and of
    jobs created here."""

    def list_models(self) -> list[str]:
        """Return the names of the bases and of the run's models."""
        return [*self.bases, *(each.name for each in self.run_models)]


def build_server_config(
    data_dir: Path,
    bases: tuple[str, ...],
    host: str,
    keys: str | None,
    served: tuple[ServedModel, ...] = (),
    workers: int | None = None,
) -> ServerConfig:
    """Check the arguments and return the settings.

    Raises:
        ConfigError: a base is missing or has no EOS token, two have the same name, or others could
            use the server without a key.
    """
    loaded_from: dict[str, str] = {}
    for base in bases or (() if served else (SHIPPED_BASE,)):
        # Works for `.` and `~/model`. A link keeps its own name, not that of its target.
        folder = os.path.abspath(os.path.expanduser(base))
        name = os.path.basename(folder) if base != SHIPPED_BASE and os.path.isdir(folder) else base
        if name in loaded_from:
            raise ConfigError(f"--base: two bases are called {name}; rename one of the folders.")
        loaded_from[name] = resolve_base(base, Path())
        check_eos_token(loaded_from[name], base)
    api_keys = tuple(key.strip() for key in (keys or "").split(",") if key.strip())
    if not api_keys and host not in LOOPBACK_HOSTS:
        raise ConfigError(
            f"--host {host} lets others in, and there is no key; set {KEYS_VARIABLE} "
            "(several keys are divided by commas), or stay on 127.0.0.1."
        )
    return ServerConfig(data_dir.resolve(), loaded_from, api_keys, served, workers=workers)
