"""What the fake trainer knows: how it is to behave, what it was asked, and what it would bill."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PIECES = re.compile(r"\w+|[^\w\s]")
DEFAULT_EPOCHS = 3
# Status and headers of requests that are not carried out; None: what the client hears is broken.
FAULTS: dict[str, tuple[int, dict[str, str]] | None] = {
    "429": (429, {}),
    "429 with Retry-After": (429, {"Retry-After": "0.05"}),
    "500": (500, {}),
    "503": (503, {}),
    "not forwarded": None,  # the connection is cut, and nothing was carried out
    "forwarded": None,  # it was carried out, and the connection is cut before an answer
    "mid-body": None,  # it was carried out, and half of the answer comes
    "malformed": None,  # it was carried out, and what comes is no JSON
}
RESULTS = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss\n"


@dataclass
class Behaviour:
    """What the server does. `states` are a job's, one a look at it; `kill` is
    {"pid", "method", "path", "nth", "when"}: a client is killed when its nth request of this kind
    has come ("before": nothing is done; "during": it is carried out all the same, later), was
    carried out ("handled") or was answered ("answered").

    `faults` are {"method", "path", "kinds", "rate" or "times", "seed"}: a share of the requests of
    this kind, or the first few, go wrong as `kinds` say, each in its turn (`FAULTS`).
    """

    states: list[str] = field(
        default_factory=lambda: ["validating_files", "queued", "running", "succeeded"]
    )
    batch_states: list[str] = field(
        default_factory=lambda: ["validating", "in_progress", "completed"]
    )
    # Of a state that is an end and not called so: succeeded, failed, cancelled.
    ends: dict[str, str] = field(default_factory=dict)
    batch_ends: dict[str, str] = field(default_factory=dict)
    # A file's, one a look at it; None: files are shown without a status. No job takes one that is
    # not processed or uploaded. `file_route`: whether one can be looked at.
    file_states: list[str | None] = field(default_factory=lambda: ["processed"])
    file_route: bool = True
    job_error: str | None = None
    event: str | None = None  # one more of each job's events
    leaky_files: bool = False  # every file's content is bytes that hold the key
    kill: dict[str, Any] | None = None
    latency: float = 0.0
    create_seconds: float = 0.0
    lag_seconds: float = 0.0  # so long nothing new is in a listing
    unlisted: int = 0  # a file is left out of so many listings
    metadata: str = "kept"  # kept, ignored (shown without, filter unknown), refused (as filter)
    shows_suffix: bool = True
    pages: bool = True
    duplicate_events: bool = False
    results: str = "plain"  # plain, base64, garbage, none
    checkpoints: bool = True
    newer_model: bool = False
    loading: int = 0
    usage: bool = True
    bills: float = 1.0
    cached: bool = False  # half of each prompt is read from the cache, a quarter is written to it
    varies: bool = False  # a question's answers are right and wrong by turns
    reasoning: int = 0  # so many tokens an answer, as far as they are allowed
    echo: int = 0  # so many answers are errors that say the key
    refuse_create: int = 0
    # Of models by their base: what the list of models says; whether it has checkpoints.
    shutdown: dict[str, Any] = field(default_factory=dict)
    lists_checkpoints: bool = False
    unlisted_models: list[str] = field(default_factory=list)
    gone_files: list[str] = field(default_factory=list)
    hides_jobs: bool = False
    short_files: int = 0  # so many files come without their end
    refuse_key: bool = False
    faults: list[dict[str, Any]] = field(default_factory=list)


class Refusal(Exception):
    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {
            "message": message, "type": "invalid_request_error", "param": param, "code": code,
        }  # fmt: skip


class State:
    """Everything the server knows; one lock around it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.behaviour = Behaviour()
        self.files: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        kinds = ("input", "output", "cached", "written", "completions")
        self.billed = {"training": 0} | dict.fromkeys(kinds, 0) | {f"batch_{k}": 0 for k in kinds}
        self.asked: dict[str, int] = {}
        self.answered: list[str] = []
        self.log: list[list[str]] = []
        self.seen: dict[tuple[str, str], int] = {}
        self.most_at_once = self.at_once = 0
        self.chat_bodies: list[dict[str, Any]] = []
        self.faulty: dict[str, int] = {}
        self.schedules: list[tuple[random.Random, list[int]]] = []

    def fault(self, method: str, path: str) -> str | None:
        """How this request goes wrong, if it does."""
        with self.lock:
            for told, (chance, done) in zip(self.behaviour.faults, self.schedules, strict=True):
                if told["method"] != method or not re.fullmatch(told["path"], path):
                    continue
                hit = done[0] < told["times"] if "times" in told else chance.random() < told["rate"]
                if hit:
                    kind = str(told["kinds"][done[0] % len(told["kinds"])])
                    done[0] += 1
                    self.faulty[kind] = self.faulty.get(kind, 0) + 1
                    return kind
            return None

    def control(self, changes: dict[str, Any]) -> None:
        with self.lock:
            known = {each.name for each in fields(Behaviour)}
            assert set(changes) <= known, changes
            for name, value in changes.items():
                setattr(self.behaviour, name, value)
            if "kill" in changes:
                self.seen.clear()
            if "faults" in changes:
                told = self.behaviour.faults
                self.schedules = [(random.Random(each.get("seed", 0)), [0]) for each in told]

    def seen_so_far(self) -> dict[str, Any]:
        with self.lock:
            uploads: dict[str, int] = {}
            for each in self.files:
                uploads[each["filename"]] = uploads.get(each["filename"], 0) + 1
            return {
                "behaviour": asdict(self.behaviour),
                "uploads": uploads,
                "files": [
                    {k: v for k, v in f.items() if k != "content" and not k.startswith("_")}
                    for f in self.files
                ],
                "jobs": [
                    {k: v for k, v in job.items() if not k.startswith("_")}
                    | {"asked": job["_asked"]}
                    for job in self.jobs
                ],
                "batches": [
                    {k: v for k, v in batch.items() if not k.startswith("_")}
                    for batch in self.batches
                ],
                "billed": dict(self.billed),
                "asked": dict(self.asked),
                "log": list(self.log),
                "most_at_once": self.most_at_once,
                "chat_bodies": self.chat_bodies[:3],
                "faulty": dict(self.faulty),
            }


def tokens(messages: list[dict[str, Any]]) -> int:
    return 3 + sum(3 + len(PIECES.findall(each["content"])) for each in messages)
