"""The processes that train: one for each device, unless told otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from tuneoff.server.settings import ServerSettings

# A worker that ends at once is not started again at once.
RESTART_SECONDS = 1.0


def devices() -> list[str]:
    """The CUDA devices that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    known = [each.strip() for each in named.split(",") if each.strip()]
    return (known or [str(number) for number in range(64)])[: torch.cuda.device_count()]


def environment(number: int, workers: int, found: list[str]) -> dict[str, str]:
    """What one of so many workers sees: its own device, or its share of the processor."""
    own = dict(os.environ)
    if len(found) > 1:
        own["CUDA_VISIBLE_DEVICES"] = found[number % len(found)]
    elif not found and workers > 1:
        own.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    return own


class Workers:
    """Keeps the training processes running."""

    def __init__(self, settings: ServerSettings) -> None:
        found = devices()
        count = settings.workers or max(1, len(found))
        command = [
            sys.executable, "-m", "tuneoff.server.worker", str(settings.data_dir),
            json.dumps(settings.bases), settings.organization, str(os.getpid()), str(count),
        ]  # fmt: skip
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._watch, args=(command, environment(number, count, found)),
                name=f"worker-watch-{number}", daemon=True,
            )
            for number in range(count)
        ]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def _watch(self, command: list[str], environment: dict[str, str]) -> None:
        while not self._closed.is_set():
            # Ctrl-C reaches the server alone, which then ends its workers in good order.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment
            )
            while process.poll() is None and not self._closed.wait(0.1):
                pass
            if self._closed.is_set():
                process.terminate()
                process.wait()
                return
            self._closed.wait(RESTART_SECONDS)

    def close(self) -> None:
        """Ends them; a job that one was at goes on when a server is started again."""
        self._closed.set()
        for thread in self._threads:
            thread.join()
