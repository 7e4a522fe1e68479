"""The messages between parent and child of the SQL sandbox: lines of JSON.

To the child: a list of requests per line. From the child: first a line `{"ready": true}`. Then, for
each request, a line with `scores`, `verdict` and perhaps `details`, or with `reference_failure`
(path and reason), or with `internal_error`. Between them comes `{"so_far": scores}`, if a step took
long or the next one may end the process; the parent's clock then restarts for the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

JudgeReply = dict[str, Any]


class DatabaseFile(NamedTuple):
    """The path of a database, and a stamp that changes with the file."""

    path: str
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """A prediction to judge."""

    reference: str
    prediction: str
    databases: tuple[DatabaseFile, ...]
    """The row's own database first, then its test suite."""
    mode: Literal["strict", "official"]
    metrics: tuple[str, ...]
    """The metrics to compute."""
    seconds: float
    """The time limit per query."""
    rows: int
    """The most rows of a result."""
    details: bool = False
    alone: bool = False
    """Whether only the reference is executed, and nothing judged."""
    stopped: str | None = None
    """How the prediction ended a process already; it is not executed again."""
    known: Mapping[str, bool] = field(default_factory=dict)
    """The scores that were known before that."""
