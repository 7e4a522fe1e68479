"""`/metrics`: what a Prometheus server wants to know."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

router = APIRouter()
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_METHODS = ("GET", "POST", "DELETE")
STATES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tuneoff_requests", "Requests by route and status",
            ("method", "route", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "tuneoff_request_seconds", "Seconds until an answer was complete", ("route",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter(
            "tuneoff_tokens", "Tokens of prompts and answers", ("kind",), registry=self.registry
        )
        self.cached = Counter(
            "tuneoff_cached_tokens", "Prompt tokens whose keys and values were there already",
            registry=self.registry,
        )  # fmt: skip
        self.unfinished = Gauge(
            "tuneoff_unfinished_answers", "Answers that are wanted and not complete",
            registry=self.registry,
        )  # fmt: skip
        self.jobs = Gauge(
            "tuneoff_jobs", "Fine-tuning jobs by status", ("status",), registry=self.registry
        )


class Measured:
    """ASGI middleware: counts and times every request by the route that took it (never by the
    path, of which there are as many as a client likes)."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            known = route != "none" and scope["method"] in _METHODS
            method = scope["method"] if known else "any"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """The numbers, in Prometheus' text format."""
    state = request.app.state
    found: Metrics = state.metrics
    found.unfinished.set(state.host.unfinished())
    counted = state.store.rows("SELECT status, count(*) AS times FROM jobs GROUP BY status")
    times = {row["status"]: row["times"] for row in counted}
    for status in STATES:
        found.jobs.labels(status).set(times.get(status, 0))
    return Response(generate_latest(found.registry), media_type="text/plain; version=0.0.4")
