"""What a server is started with."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

from tuneoff import machine
from tuneoff.contender_settings import SHIPPED_BASE
from tuneoff.errors import ConfigError
from tuneoff.models.loading import check_end, resolve_base
from tuneoff.server.base import Served

KEYS_VARIABLE = "TUNEOFF_API_KEYS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`bases` are the models that may be tuned, by the name a client gives, with what
    transformers loads; `served` are ready-made ones that only answer. Without `api_keys` every
    request from this machine is let in. `workers` processes train; None: one for each device.
    `today` is what chat templates of bases that ask for the date are told, and those of jobs that
    are created here, as long as the server runs."""

    data_dir: Path
    bases: dict[str, str]
    api_keys: tuple[str, ...] = ()
    served: tuple[Served, ...] = ()
    organization: str = "local"
    max_file_bytes: int = 512 * 1024**2
    max_body_bytes: int = 8 * 1024**2
    # All bodies that are being worked on (but uploads, which lie on disk), and all requests.
    max_held_bytes: int = 64 * 1024**2
    max_requests: int = 512
    max_waiting_jobs: int = 10_000
    workers: int | None = None
    today: datetime.date = field(default_factory=lambda: machine.today())

    def ready(self) -> list[str]:
        """The names of bases and of what is served from a run."""
        return [*self.bases, *(each.name for each in self.served)]


def settings_of(
    data_dir: Path,
    bases: tuple[str, ...],
    host: str,
    keys: str | None,
    served: tuple[Served, ...] = (),
    workers: int | None = None,
) -> ServerSettings:
    """Check settings and return them.

    Raises:
        ConfigError: a base is not there or has no EOS token, two have one name, or the server
            would be open to others without a key.
    """
    found: dict[str, str] = {}
    for base in bases or (() if served else (SHIPPED_BASE,)):
        # Of `.` and `~/model`, too; a link's own name, not that of what it leads to.
        place = os.path.abspath(os.path.expanduser(base))
        name = os.path.basename(place) if base != SHIPPED_BASE and os.path.isdir(place) else base
        if name in found:
            raise ConfigError(f"--base: two bases are called {name}; rename one of the folders.")
        found[name] = resolve_base(base, Path())
        check_end(found[name], base)
    api_keys = tuple(key.strip() for key in (keys or "").split(",") if key.strip())
    if not api_keys and host not in LOOPBACK:
        raise ConfigError(
            f"--host {host} lets others in, and there is no key; set {KEYS_VARIABLE} "
            "(several keys are divided by commas), or stay on 127.0.0.1."
        )
    return ServerSettings(data_dir.resolve(), found, api_keys, served, workers=workers)
