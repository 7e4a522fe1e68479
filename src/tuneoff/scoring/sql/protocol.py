"""What parent and child of the SQL sandbox say to each other: lines of JSON.

To the child: a list of requests a line. From it, after a first line `{"ready": true}`: for each
request a line with `scores`, `verdict` and perhaps `details`, or with `reference_failure` or
`internal_error`; and between them `{}` where a step took long, so that the parent's clock
begins anew with each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A prediction to judge. The first of `databases` is the row's own, the others are its
    suite. `metrics` are the ones asked for. `stopped` says that executing the prediction
    ended a process already, and how; it is not tried again."""

    reference: str
    prediction: str
    databases: tuple[str, ...]
    mode: Literal["strict", "official"]
    metrics: tuple[str, ...]
    seconds: float
    rows: int
    details: bool = False
    stopped: str | None = None
