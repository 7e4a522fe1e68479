"""The demo: both sample tasks from files that ship with tuneoff, with a hosted contender.

Offline there is no provider, so the demo starts `tuneoff serve` on loopback and sends it a real job
through the official SDK: the same code that sends one to OpenAI.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tuneoff.bakeoff.run import run
from tuneoff.config.contenders import SHIPPED_BASE, HostedConfig
from tuneoff.config.load import load
from tuneoff.config.schema import BakeOff
from tuneoff.errors import ConfigError
from tuneoff.progress import Progress
from tuneoff.results import Results
from tuneoff.storage.run_dir import RunDir

BAKEOFF_FILES = ("demo-functional.yaml", "demo-sql.yaml")
# The packages of server and SDK. Without them the demo has no hosted contender.
REQUIRED_PACKAGES = ("fastapi", "uvicorn", "openai")
START_SECONDS = 120
KEYS_VARIABLE = "TUNEOFF_API_KEYS"
# The task with a hosted contender, and that contender: the settings that a user of the API would
# send.
HOSTED_TASK = "functional_representation"
HOSTED_CONTENDER = HostedConfig(
    name="hosted-api",
    id="hosted",
    model=SHIPPED_BASE,
    prompt="short",
    epochs=2,
    batch_size=8,
    learning_rate_multiplier=20.0,
    seed=0,
)


def run_demo(folder: Path, progress: Progress) -> list[tuple[Path, Results]]:
    """Run or resume the demo's bake-offs below `folder`; return their run directories and results.

    Raises:
        ConfigError: the server of an earlier, interrupted demo cannot be started again.
    """
    finished = []
    for name in BAKEOFF_FILES:
        with as_file(files("tuneoff.assets") / name) as path:
            settings = load(path)
        run_dir = folder / settings.name
        with contextlib.ExitStack() as meanwhile:
            if settings.task.id == HOSTED_TASK:
                hosted = _add_hosted(settings, run_dir, folder, progress)
                settings = meanwhile.enter_context(hosted)
            results = run(settings, run_dir, progress=progress, command="tuneoff demo")
        finished.append((run_dir, results))
    return finished


@contextlib.contextmanager
def _add_hosted(
    settings: BakeOff, run_dir: Path, folder: Path, progress: Progress
) -> Iterator[BakeOff]:
    """Run the local server; give the settings with the hosted contender at its address."""
    missing = [name for name in REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        progress.say(
            f"warning: the demo goes without its hosted contender, which needs "
            f'{", ".join(missing)}: pip install "tuneoff[hosted,serve]".'
        )
        yield settings
        return
    port = _read_port(run_dir) or _find_free_port()
    hosted = HOSTED_CONTENDER.model_copy(update={"base_url": f"http://127.0.0.1:{port}/v1"})
    complete = settings.model_copy(update={"contenders": (*settings.contenders, hosted)})
    run = RunDir(run_dir)
    answered = len(run.contender(hosted.name).predictions())
    if run.has_data() and answered >= len(run.examples("test")):
        yield complete  # nobody is asked any more
    else:
        with _run_server(port, folder / "demo-server"):
            yield complete


def _read_port(run_dir: Path) -> int | None:
    """Return the port that the run began with; None for a new run.

    A run resumes only with the file that it began with.
    """
    stored = run_dir / "bakeoff.yaml"
    if not stored.is_file():
        return None
    contenders = yaml.safe_load(stored.read_text(encoding="utf-8"))["contenders"]
    address = next((c["base_url"] for c in contenders if c["name"] == HOSTED_CONTENDER.name), None)
    return urlsplit(address).port if address else None


def _find_free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def _run_server(port: int, data_dir: Path) -> Iterator[None]:
    """Run `tuneoff serve`; its output goes to a log beside its data.

    Raises:
        ConfigError: it does not start.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "server.log"
    start = "from tuneoff.cli.main import main; main()"
    command = [sys.executable, "-c", start, "serve", "--port", str(port),
               "--data-dir", str(data_dir)]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != KEYS_VARIABLE}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
        try:
            _wait_for_server(port, process, log)
            yield
        finally:
            process.terminate()
            process.wait()


def _wait_for_server(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers.

    Raises:
        ConfigError: it does not within `START_SECONDS`.
    """
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        # Directly, without the proxy that the environment may name.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://127.0.0.1:{port}/health"
        with contextlib.suppress(OSError), direct.open(url, timeout=5):
            return
        time.sleep(0.1)
    raise ConfigError(
        f"the demo's server on port {port} did not start ({log} says why); free the port, or give "
        "another --run-dir."
    )
