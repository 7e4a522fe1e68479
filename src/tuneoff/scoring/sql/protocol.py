"""What parent and child of the SQL sandbox say to each other: lines of JSON.

To the child: a list of requests a line. From it, after a first line `{"ready": true}`: for each
request a line with `scores`, `verdict` and perhaps `details`, or with `reference_failure` (path
and reason) or `internal_error`; and between them, where a step took long or the next one may end
the process, `{"so_far": scores}`, so that the parent's clock begins anew with each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Answer = dict[str, Any]


class DatabaseFile(NamedTuple):
    """A database's path, and a number that changes when the file does."""

    path: str
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A prediction to judge. The first of `databases` is the row's own, the others are its
    suite. `metrics` are the ones asked for; `alone` says that the reference is to be executed and
    nothing judged. `stopped` says that the prediction ended a process
    already, and how, after `known` had been found out; it is not executed again."""

    reference: str
    prediction: str
    databases: tuple[DatabaseFile, ...]
    mode: Literal["strict", "official"]
    metrics: tuple[str, ...]
    seconds: float
    rows: int
    details: bool = False
    alone: bool = False
    stopped: str | None = None
    known: Mapping[str, bool] = field(default_factory=dict)
