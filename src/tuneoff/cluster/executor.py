"""Runs a bake-off on a Ray cluster: `tuneoff run FILE --ray [ADDRESS]`.

Work that needs a machine (training, an open model's answers, its speed) goes to workers with the
resources that the contender names. Providers' work, scoring, prices and the report stay with the
driver, which has the run directory and the ledger. Workers run in parallel; for each contender a
thread of the driver waits. A lost worker is replaced. Its successor continues from the last
checkpoint in storage (`cluster/storage.py`), or with the examples that are not answered yet. The
driver may be killed and started again, like any run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from tuneoff.cluster.remote import RemoteContender
from tuneoff.cluster.resources import (
    ResourceRequest,
    build_resource_request,
    count_cards_per_worker,
    needs_more,
)
from tuneoff.cluster.storage import TrainingStorage
from tuneoff.cluster.worker import ProgressActor, can_see
from tuneoff.contenders.base import Contender, load_contender
from tuneoff.costs.contender_prices import is_hosted
from tuneoff.errors import BudgetError, ConfigError, MissingExtraError
from tuneoff.progress import Progress
from tuneoff.storage.files import write_text
from tuneoff.storage.run_dir import ContenderDir

REPORT_SECONDS, STOP_SECONDS = 0.5, 5.0
CONNECT_SECONDS = 10


class RayExecutor:
    """Runs contenders on the Ray cluster that it connects to; an executor for `bakeoff.run`.

    Args:
        address: `host:port` of a cluster. Default: RAY_ADDRESS, or the cluster that runs on this
            machine, or one that is started for this run.
        storage: a folder that all machines see, or a URL of a bucket, for trainings in progress.
            Default: the run directory, which all machines must see then.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: the address or the storage cannot be used.
    """

    def __init__(
        self, progress: Progress, address: str | None = None, storage: str | None = None
    ) -> None:
        if address is not None and address.startswith("ray://"):
            raise ConfigError(
                f"--ray {address}: a run is no Ray client; start it on a machine of the cluster "
                "(`ray job submit`, `ray exec`), with --ray and no address."
            )
        self._storage = None if storage is None else TrainingStorage(storage)
        self.ray, self._connected_here = connect_to_ray(address)
        self.progress = progress
        # Place the actor on the driver's node, so that it lives as long as the driver, whichever
        # other machines are lost.
        here = self._pin_to_node(self.ray.get_runtime_context().get_node_id())
        self.board = self.ray.remote(num_cpus=0, scheduling_strategy=here)(ProgressActor).remote()
        self._hearing = threading.Lock()
        self._failures: dict[str, Any] = {}
        self._steps: dict[tuple[str, str], Callable[..., None]] = {}
        self._demands: dict[str, ResourceRequest] = {}
        self._kept: dict[Path, tuple[TrainingStorage, str]] = {}
        self._running: set[Any] = set()
        self._seen = False
        self._stopped = threading.Event()

    def close(self) -> None:
        """Disconnect from the cluster; one that was started for this run ends."""
        self._stopped.set()
        if self._connected_here:
            self.ray.shutdown()

    def load_contender(self, settings: Any) -> Contender:
        """Return the contender's module, or its remote stand-in where a machine must compute."""
        kind = load_contender(settings.id)
        if is_hosted(settings) or settings.id not in ("local", "prompted"):
            return kind
        return RemoteContender(kind, self)

    def map(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        """Run the contenders: those of workers in parallel, and beside them those of providers in
        turn.

        The providers' jobs were started before. They are followed in this thread, so that Ctrl-C
        finds the answers that are paid for.

        Raises:
            BudgetError: one contender could exceed the budget; the others ran to their ends.
        """
        errors: list[Exception] = []

        def one(settings: Any) -> None:
            """Run one contender and keep its error."""
            try:
                carry_out(settings)
            except Exception as error:
                errors.append(error)
            else:
                self._forget(settings.name)

        remote = [c for c in contenders if isinstance(self.load_contender(c), RemoteContender)]
        through: list[Future[None]] = []
        try:
            through.extend(_start_thread(f"contender {c.name}", one, c) for c in remote)
            through.append(_start_thread("news", self._report_until_done, tuple(through)))
            for settings in contenders:
                if settings not in remote:
                    one(settings)
            wait(through)
        except BaseException:
            self._stop()
            # A call to Ray after its shutdown would end the whole process.
            wait(through, STOP_SECONDS)
            raise
        for error in sorted(errors, key=lambda error: not isinstance(error, BudgetError)):
            raise error

    def _report_until_done(self, through: Sequence[Future[None]]) -> None:
        """Report the workers' progress until all contenders are done."""
        while wait(through, REPORT_SECONDS).not_done and not self._stopped.is_set():
            self._report_news()
        self._report_news()

    def _stop(self) -> None:
        """Cancel all tasks of this run."""
        self._stopped.set()
        for reference in list(self._running):
            self.cancel(reference)

    def refuse_stopped(self) -> None:
        """Raise KeyboardInterrupt if the run was interrupted.

        This ends the calling thread. Another call to Ray would start it again.
        """
        if self._stopped.is_set():
            raise KeyboardInterrupt

    def track_task(self, reference: Any) -> None:
        """Note a running task, so that an interruption cancels it."""
        self._running.add(reference)

    def ended(self, reference: Any) -> None:
        """Note that a task is done."""
        self._running.discard(reference)

    def cancel(self, reference: Any) -> None:
        """Cancel a task, unless it is done."""
        self._running.discard(reference)
        with contextlib.suppress(Exception):
            self.ray.cancel(reference, force=False)

    def _report_news(self) -> None:
        """Report the workers' new progress and errors."""
        with self._hearing, contextlib.suppress(self.ray.exceptions.RayError):
            if self._stopped.is_set():  # another call would start Ray again
                return
            for name, kind, value in self.ray.get(self.board.drain.remote()):
                if kind == "say":
                    self.progress.say(value)
                elif kind == "failed":
                    self._failures.setdefault(name, value)
                elif kind == "step":
                    title, total, done, note = value
                    key = name, title
                    if key not in self._steps:
                        self._steps[key] = self.progress.stage(title, total)
                    self._steps[key](done, note)

    def take_failure(self, name: str) -> Any:
        """Return the error that a process of a group reported before it ended; None if there is
        none."""
        self._report_news()
        with self._hearing:
            return self._failures.pop(name, None)

    def request_resources(self, settings: Any) -> ResourceRequest:
        """Return the resources of a contender, decided once; report if the cluster lacks them."""
        if settings.name not in self._demands:
            request = build_resource_request(settings, self.ray.cluster_resources())
            self._demands[settings.name] = request
            nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
            if needs_more(request, nodes, in_one=count_cards_per_worker(settings, request) > 1):
                self.progress.say(
                    f"{settings.name}: waits for {request}, which the cluster does not have now."
                )
        return self._demands[settings.name]

    def place(self, settings: Any, directory: ContenderDir) -> tuple[TrainingStorage, str]:
        """Return the storage and the key of a training in progress.

        Raises:
            ConfigError: other machines do not see the run directory.
        """
        if self._storage is not None:
            place = self._storage, _get_storage_key(directory)
        else:
            self._refuse_unseen(directory)
            place = TrainingStorage(str(directory.path.resolve())), "cluster"
        self._kept[directory.path] = place
        return place

    def _pin_to_node(self, node: str) -> Any:
        """Return a scheduling strategy for one node."""
        strategies = self.ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def _refuse_unseen(self, directory: ContenderDir) -> None:
        """Check once that every node sees the run directory.

        Raises:
            ConfigError: a node does not see it.
        """
        if self._seen:
            return
        directory.path.mkdir(parents=True, exist_ok=True)
        probe = directory.path / f".seen-{secrets.token_hex(4)}"
        probe.touch()
        try:
            nodes = [node for node in self.ray.nodes() if node["Alive"]]
            blind = [
                n["NodeManagerHostname"] for n in nodes if not self._can_see(n["NodeID"], probe)
            ]
        finally:
            probe.unlink()
        if blind:
            raise ConfigError(
                f"{directory.path}: {', '.join(blind)} of the cluster cannot see this folder; give "
                "one on a shared disk as --run-dir, or --storage s3://… that all of them reach."
            )
        self._seen = True

    def _can_see(self, node: str, probe: Path) -> bool:
        """Return whether a node sees a file."""
        task = self.ray.remote(num_cpus=0, scheduling_strategy=self._pin_to_node(node))(can_see)
        try:
            return bool(self.ray.get(task.remote(str(probe.resolve()))))
        except self.ray.exceptions.RayError:
            return True  # the node is gone; a worker on its successor reports the problem itself

    def _forget(self, name: str) -> None:
        """Remove a finished contender's trainings from storage, because its weights are in the run
        directory.

        After a failure they stay, to continue from.
        """
        for path, (storage, key) in list(self._kept.items()):
            # A contender's error is in its folder, above those of its seeds.
            folders = path, path.parent
            failed = any(ContenderDir(folder).error() is not None for folder in folders)
            if failed or name not in (folder.name for folder in folders):
                continue
            try:
                storage.remove(key)
            except Exception as error:  # the contender's results are not affected
                self.progress.say(f"warning: {name}: {storage.url}/{key} was not removed: {error}")
            del self._kept[path]


def _start_thread(name: str, carry_out: Callable[[Any], None], what: Any) -> Future[None]:
    """Run a function in a daemon thread, for which Ctrl-C need not wait; return its future.

    `Thread.join` cannot be used: before Python 3.13, a join that Ctrl-C interrupted takes the
    thread for ended.
    """
    through: Future[None] = Future()

    def run() -> None:
        """Run the function, then complete the future."""
        try:
            with contextlib.suppress(KeyboardInterrupt):  # the run was interrupted
                carry_out(what)
        finally:
            through.set_result(None)

    threading.Thread(target=run, daemon=True, name=name).start()
    return through


def _get_storage_key(directory: ContenderDir) -> str:
    """Return a training's key in a bucket, stored in its folder; `--fresh` deletes it with the
    folder."""
    file = directory.path / "storage-key"
    if not file.exists():
        write_text(file, f"{directory.path.name}-{secrets.token_hex(8)}")
    return file.read_text(encoding="utf-8")


def connect_to_ray(address: str | None) -> tuple[Any, bool]:
    """Connect to a Ray cluster; return Ray, and whether this call connected it.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports to Ray's makers
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "--ray") from None
    if ray.is_initialized():
        return ray, False
    address_or_default = address or os.environ.get("RAY_ADDRESS")
    try:
        _refuse_unreachable(address_or_default)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = "--ray" if address_or_default is None else f"--ray {address_or_default}"
        raise ConfigError(
            f"{where}: no cluster answers ({first}); start one (`ray start --head`), or give its "
            "host:port."
        ) from None
    return ray, True


def _refuse_unreachable(address: str | None) -> None:
    """Raise OSError if nothing listens at the address; Ray would retry for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
