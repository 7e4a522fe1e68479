"""Supervises the training processes: one for each device, unless configured otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from tuneoff.server.settings import ServerConfig

# Pause before a worker that ended is started again.
RESTART_SECONDS = 1.0


def list_devices() -> list[str]:
    """Return the CUDA devices of this process, named as in `CUDA_VISIBLE_DEVICES`."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",") if name.strip()]
    return (names or [str(number) for number in range(64)])[: torch.cuda.device_count()]


def build_environment(number: int, workers: int, found: list[str]) -> dict[str, str]:
    """Return a worker's environment variables, with its own device or its share of the CPU."""
    own = dict(os.environ)
    if len(found) > 1:
        own["CUDA_VISIBLE_DEVICES"] = found[number % len(found)]
    elif not found and workers > 1:
        own.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    return own


class WorkerSupervisor:
    """Keeps the training processes running."""

    def __init__(self, settings: ServerConfig) -> None:
        device_names = list_devices()
        count = settings.workers or max(1, len(device_names))
        command = [
            sys.executable, "-m", "tuneoff.server.training_worker", str(settings.data_dir),
            json.dumps(settings.bases), settings.organization, str(os.getpid()), str(count),
        ]  # fmt: skip
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._watch, args=(command, build_environment(number, count, device_names)),
                name=f"worker-watch-{number}", daemon=True,
            )
            for number in range(count)
        ]  # fmt: skip
        for thread in self._threads:
            thread.start()

    def _watch(self, command: list[str], environment: dict[str, str]) -> None:
        """Start a worker, and start it again whenever it ends."""
        while not self._closed.is_set():
            # A new session, so that Ctrl-C reaches only the server, which then ends its workers in
            # order.
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
        """End the workers; an unfinished job continues when a server is started again."""
        self._closed.set()
        for thread in self._threads:
            thread.join()
