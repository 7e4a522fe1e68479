"""A bake-off on a Ray cluster: `tuneoff run FILE --ray [ADDRESS]`.

What a machine must compute (training, an open model's answers, its speed) goes to workers with
the resources that the contender names; what a provider does, and scoring, prices and the report,
stay with the driver, which has the run directory and the ledger. What workers do goes side by
side, each contender in a thread of the driver that waits. A worker that is lost is replaced, and
its successor goes on from the last checkpoint that was kept (`storage.py`), or with the examples
that are not answered yet. The driver may be killed and started again, as any run may.
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

from tuneoff.cluster.demands import Demand, cards_in_one, demand, lacking
from tuneoff.cluster.remote import Remote
from tuneoff.cluster.storage import Storage
from tuneoff.cluster.worker import Board, sees
from tuneoff.contenders import Contender, load_contender
from tuneoff.errors import BudgetError, ConfigError, MissingExtraError
from tuneoff.files import write_text
from tuneoff.progress import Progress
from tuneoff.rundir import ContenderDir
from tuneoff.spending import paid

NEWS_SECONDS, STOP_SECONDS = 0.5, 5.0
REACH_SECONDS = 10


class RayExecutor:
    """An executor for `bakeoff.run` on a cluster that it connects to.

    Args:
        address: `host:port` of a cluster; left out, RAY_ADDRESS, the cluster that runs on this
            machine, or one that is started for this run.
        storage: a folder that all machines see, or a URL of a bucket, where trainings are kept
            while they are under way; left out, the run directory, which all must see then.

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
        self._storage = None if storage is None else Storage(storage)
        self.ray, self._connected_here = connected(address)
        self.progress = progress
        # Beside the driver: it lives as long as that, whichever other machines are lost.
        here = self._on(self.ray.get_runtime_context().get_node_id())
        self.board = self.ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()
        self._hearing = threading.Lock()
        self._failures: dict[str, Any] = {}
        self._steps: dict[tuple[str, str], Callable[..., None]] = {}
        self._demands: dict[str, Demand] = {}
        self._kept: dict[Path, tuple[Storage, str]] = {}
        self._running: set[Any] = set()
        self._seen = False
        self._stopped = threading.Event()

    def close(self) -> None:
        """Leaves the cluster; one that was started for this run ends."""
        self._stopped.set()
        if self._connected_here:
            self.ray.shutdown()

    def kind_of(self, settings: Any) -> Contender:
        """The contender's own kind where a provider or a file answers, else its remote stand-in."""
        kind = load_contender(settings.id)
        if paid(settings) or settings.id not in ("local", "prompted"):
            return kind
        return Remote(kind, self)

    def each(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        """What workers do side by side, and beside it, in turn, what providers do: their jobs are
        under way already, and Ctrl-C finds the answers that are paid for in this thread.

        Raises:
            BudgetError: one of them could pass the budget; the others went on to their ends.
        """
        errors: list[Exception] = []

        def one(settings: Any) -> None:
            try:
                carry_out(settings)
            except Exception as error:
                errors.append(error)
            else:
                self._forget(settings.name)

        remote = [c for c in contenders if isinstance(self.kind_of(c), Remote)]
        through: list[Future[None]] = []
        try:
            through.extend(_beside(f"contender {c.name}", one, c) for c in remote)
            through.append(_beside("news", self._hear_on, tuple(through)))
            for settings in contenders:
                if settings not in remote:
                    one(settings)
            wait(through)
        except BaseException:
            self._stop()
            # Who asks Ray when it has been shut down ends the whole process.
            wait(through, STOP_SECONDS)
            raise
        for error in sorted(errors, key=lambda error: not isinstance(error, BudgetError)):
            raise error

    def _hear_on(self, through: Sequence[Future[None]]) -> None:
        """Hands news on until all contenders are through."""
        while wait(through, NEWS_SECONDS).not_done and not self._stopped.is_set():
            self._hear()
        self._hear()

    def _stop(self) -> None:
        """Ends what workers do for this run."""
        self._stopped.set()
        for reference in list(self._running):
            self.cancel(reference)

    def refuse_stopped(self) -> None:
        """Ends the thread that asks once the run was interrupted: Ray, asked again, would start
        anew."""
        if self._stopped.is_set():
            raise KeyboardInterrupt

    def begun(self, reference: Any) -> None:
        """A task that is ended with the run."""
        self._running.add(reference)

    def ended(self, reference: Any) -> None:
        self._running.discard(reference)

    def cancel(self, reference: Any) -> None:
        """Ends a task, if it is not through."""
        self._running.discard(reference)
        with contextlib.suppress(Exception):
            self.ray.cancel(reference, force=False)

    def _hear(self) -> None:
        """Hands the workers' news on to whoever watches the run."""
        with self._hearing, contextlib.suppress(self.ray.exceptions.RayError):
            if self._stopped.is_set():  # Ray, asked again, would start anew
                return
            for name, kind, value in self.ray.get(self.board.take.remote()):
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

    def told_failure(self, name: str) -> Any:
        """What a group's process told before it ended, if it did."""
        self._hear()
        with self._hearing:
            return self._failures.pop(name, None)

    def demand(self, settings: Any) -> Demand:
        """What a contender runs on, decided once; what the cluster lacks for it is said."""
        if settings.name not in self._demands:
            wanted = demand(settings, self.ray.cluster_resources())
            self._demands[settings.name] = wanted
            nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
            if lacking(wanted, nodes, in_one=cards_in_one(settings, wanted) > 1):
                self.progress.say(
                    f"{settings.name}: waits for {wanted}, which the cluster does not have now."
                )
        return self._demands[settings.name]

    def place(self, settings: Any, directory: ContenderDir) -> tuple[Storage, str]:
        """Where one training of a contender is kept while it is under way.

        Raises:
            ConfigError: other machines do not see the run directory.
        """
        if self._storage is not None:
            place = self._storage, _token(directory)
        else:
            self._refuse_unseen(directory)
            place = Storage(str(directory.path.resolve())), "cluster"
        self._kept[directory.path] = place
        return place

    def _on(self, node: str) -> Any:
        strategies = self.ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def _refuse_unseen(self, directory: ContenderDir) -> None:
        if self._seen:
            return
        directory.path.mkdir(parents=True, exist_ok=True)
        probe = directory.path / f".seen-{secrets.token_hex(4)}"
        probe.touch()
        try:
            nodes = [node for node in self.ray.nodes() if node["Alive"]]
            blind = [n["NodeManagerHostname"] for n in nodes if not self._sees(n["NodeID"], probe)]
        finally:
            probe.unlink()
        if blind:
            raise ConfigError(
                f"{directory.path}: {', '.join(blind)} of the cluster cannot see this folder; give "
                "one on a shared disk as --run-dir, or --storage s3://… that all of them reach."
            )
        self._seen = True

    def _sees(self, node: str, probe: Path) -> bool:
        task = self.ray.remote(num_cpus=0, scheduling_strategy=self._on(node))(sees)
        try:
            return bool(self.ray.get(task.remote(str(probe.resolve()))))
        except self.ray.exceptions.RayError:
            return True  # gone meanwhile; a worker that comes in its place says so itself

    def _forget(self, name: str) -> None:
        """A contender is through: its weights are in the run directory now. After a failure what
        was kept stays, to go on from."""
        for path, (storage, key) in list(self._kept.items()):
            # A contender's error lies in its folder, above those of several seeds.
            folders = path, path.parent
            failed = any(ContenderDir(folder).error() is not None for folder in folders)
            if failed or name not in (folder.name for folder in folders):
                continue
            try:
                storage.remove(key)
            except Exception as error:  # what was done stands
                self.progress.say(f"warning: {name}: {storage.url}/{key} was not removed: {error}")
            del self._kept[path]


def _beside(name: str, carry_out: Callable[[Any], None], what: Any) -> Future[None]:
    """Does something in a thread that Ctrl-C need not wait for; it is through when the thread is.
    `Thread.join` does not tell: before Python 3.13, one that Ctrl-C interrupted takes its thread
    for ended."""
    through: Future[None] = Future()

    def run() -> None:
        try:
            with contextlib.suppress(KeyboardInterrupt):  # the run was stopped
                carry_out(what)
        finally:
            through.set_result(None)

    threading.Thread(target=run, daemon=True, name=name).start()
    return through


def _token(directory: ContenderDir) -> str:
    """The name of a training in a bucket; `--fresh` forgets it with the folder."""
    file = directory.path / "storage-key"
    if not file.exists():
        write_text(file, f"{directory.path.name}-{secrets.token_hex(8)}")
    return file.read_text(encoding="utf-8")


def connected(address: str | None) -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether that was done here.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "--ray") from None
    if ray.is_initialized():
        return ray, False
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        _refuse_unreachable(named)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = "--ray" if named is None else f"--ray {named}"
        raise ConfigError(
            f"{where}: no cluster answers ({first}); start one (`ray start --head`), or give its "
            "host:port."
        ) from None
    return ray, True


def _refuse_unreachable(address: str | None) -> None:
    """Raises OSError where nothing listens: Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
