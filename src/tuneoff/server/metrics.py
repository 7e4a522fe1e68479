"""The route `/metrics`: counters and gauges for Prometheus."""

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
    """One server's metrics, in their own registry."""

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


class MetricsMiddleware:
    """ASGI middleware that counts and times requests by route.

    It never labels by path: clients could make any number of them.
    """

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Any) -> None:
            """Note the status of a response, then send it."""
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            is_labelled = route != "none" and scope["method"] in _METHODS
            method = scope["method"] if is_labelled else "any"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    state = request.app.state
    server_metrics: Metrics = state.metrics
    server_metrics.unfinished.set(state.host.unfinished())
    counted = state.store.rows("SELECT status, count(*) AS times FROM jobs GROUP BY status")
    times = {row["status"]: row["times"] for row in counted}
    for status in STATES:
        server_metrics.jobs.labels(status).set(times.get(status, 0))
    return Response(
        generate_latest(server_metrics.registry), media_type="text/plain; version=0.0.4"
    )
