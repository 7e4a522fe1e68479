"""The routes `/v1/chat/completions` and `/v1/completions`: answers of bases and tuned models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from tuneoff.errors import TuneoffError
from tuneoff.inference.backend import InferenceBackend, LoadedModelInfo
from tuneoff.inference.detokenizer import find_token_bytes
from tuneoff.inference.loaded_model import ServedModel
from tuneoff.inference.requests import GONE, Delta, GenerationRequest, TokenLogprob
from tuneoff.records import Example
from tuneoff.server import schemas
from tuneoff.server.errors import ApiError, build_not_found
from tuneoff.server.json_body import JsonRoute
from tuneoff.server.prompt_ids import (
    encode_bounded,
    encode_chat,
    encode_text_prompt,
    explain_too_long,
    refuse_unembedded,
    render_chat,
)
from tuneoff.server.prompt_limits import run_while_connected
from tuneoff.server.request_schemas import ChatCreate, Sampled, TextCreate
from tuneoff.server.routes import tuned
from tuneoff.server.settings import ServerConfig
from tuneoff.server.store import Store
from tuneoff.tokenization.decode import decode_token

router = APIRouter(prefix="/v1", responses=schemas.describe_errors(404), route_class=JsonRoute)
_STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}}  # chunks in the SDK's format
}
MAX_IN_FLIGHT = 1_000
POLL_SECONDS = 1.0
DEFAULT_TEXT_TOKENS = 16
# The hosted API's value for impossible tokens; JSON has neither infinity nor NaN.
MIN_LOGPROB = -9999.0


@dataclass
class Choice:
    """One of the n answers, as far as it is generated."""

    text: str = ""
    chances: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None
    tokens_out: int = 0
    tokens_cached: int = 0

    def add(self, piece: Delta) -> None:
        """Take over the counts and the finish reason of a piece, but not its text."""
        self.finish_reason = piece.finish_reason
        self.tokens_out, self.tokens_cached = piece.tokens_out, piece.tokens_cached


@dataclass
class Completion:
    """A completion in progress: the request, its model, and the pieces that come back."""

    body: Sampled
    base: LoadedModelInfo
    ids: list[int]
    requests: list[GenerationRequest]
    pieces: asyncio.Queue[tuple[int, Delta]]
    id: str
    created: int

    def usage(self, choices: list[Choice]) -> dict[str, Any]:
        """Return the token counts of the prompt and all answers."""
        answered = sum(choice.tokens_out for choice in choices)
        return {
            "prompt_tokens": len(self.ids),
            "completion_tokens": answered,
            "total_tokens": len(self.ids) + answered,
            "prompt_tokens_details": {"cached_tokens": choices[0].tokens_cached},
        }


@router.post(
    "/chat/completions", response_model=schemas.ChatCompletion, responses=_STREAM_RESPONSES
)
async def chat(http: HttpRequest, body: ChatCreate) -> Any:
    """Answer a conversation."""
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs.", "top_logprobs", "invalid_value")
    served = _find_model(http, body.model)
    base = await _load_base(http, served)
    example = Example("", {"messages": [each.plain() for each in body.messages]}, "")
    limit = body.max_completion_tokens or body.max_tokens
    characters = sum(len(turn["content"]) for turn in example.inputs["messages"])
    ids = await encode_bounded(
        http, base, body, limit, characters,
        lambda: render_chat(base, served, example), lambda: encode_chat(base, served, example),
    )  # fmt: skip
    count = (body.top_logprobs or 0) if body.logprobs else None
    asking = _submit(http, served, base, body, ids, limit, "chatcmpl", count)

    def shown(choice: Choice) -> dict[str, Any]:
        """Return a choice as the API shows it."""
        return {
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": _render_logprobs(base, choice.chances) if body.logprobs else None,
        }

    if body.stream:
        return _stream_response(asking, http, _build_chat_chunk, "chat.completion.chunk")
    return await _collect_response(asking, http, "chat.completion", shown)


@router.post("/completions", response_model=schemas.TextCompletion, responses=_STREAM_RESPONSES)
async def complete(http: HttpRequest, body: TextCreate) -> Any:
    """Continue a text."""
    served = _find_model(http, body.model)
    base = await _load_base(http, served)
    prompt, limit = body.text(), body.max_tokens or DEFAULT_TEXT_TOKENS
    ids = await encode_bounded(
        http,
        base,
        body,
        limit,
        len(prompt),
        lambda: prompt,
        lambda: encode_text_prompt(base, prompt),
    )
    asking = _submit(http, served, base, body, ids, limit, "cmpl", None)
    if body.stream:
        return _stream_response(asking, http, _build_text_chunk, "text_completion")
    return await _collect_response(
        asking, http, "text_completion", lambda choice: {"text": choice.text, "logprobs": None}
    )


def _find_model(http: HttpRequest, name: str) -> ServedModel:
    """Return the model of this name: a run's, a base, or a tuned one.

    Raises:
        ApiError: there is none, or its base is not loaded here.
    """
    settings: ServerConfig = http.app.state.settings
    store: Store = http.app.state.store
    run_model = next(
        (candidate for candidate in settings.run_models if candidate.name == name), None
    )
    if run_model is not None:
        return run_model
    if name in settings.bases:
        return ServedModel(name, settings.bases[name], today=settings.today)
    model = tuned.get_tuned(store, name)
    tuned_model = tuned.build_served_model(store, settings, model)
    if tuned_model is None:
        raise tuned.explain_unserved(store, settings, model)
    return tuned_model


async def _load_base(http: HttpRequest, served: ServedModel) -> LoadedModelInfo:
    """Load the base of a model and return it.

    Loading may take minutes and many requests may wait for it, so it does not use the threads that
    answer everything else.

    Raises:
        ApiError: the base cannot be loaded.
    """
    host: InferenceBackend = http.app.state.host
    # The request guard limits the number of requests.
    limiter = anyio.CapacityLimiter(math.inf)
    try:
        loading = anyio.to_thread.run_sync(
            host.base, served, limiter=limiter, abandon_on_cancel=True
        )
        return await run_while_connected(http, loading)
    except TuneoffError:  # for instance missing weights
        logging.getLogger(__name__).exception("the model %s cannot be loaded", served.name)
        raise ApiError(
            500, f"The model {served.name!r} cannot be loaded; the server's log says why.", "model",
            "model_not_loaded", "server_error",
        ) from None  # fmt: skip


def _submit(
    http: HttpRequest,
    served: ServedModel,
    base: LoadedModelInfo,
    body: Sampled,
    ids: list[int],
    limit: int | None,
    kind: str,
    logprobs: int | None,
) -> Completion:
    """Check a request and submit it to the backend, once for each choice.

    Raises:
        ApiError: the prompt is empty or too long, or too many requests are in flight.
    """
    host: InferenceBackend = http.app.state.host
    refuse_unembedded(base, ids, "messages" if kind == "chatcmpl" else "prompt")
    room = base.positions - len(ids)
    if not ids:
        param = "messages" if isinstance(body, ChatCreate) else "prompt"
        raise ApiError(400, f"Invalid value for {param}: it is empty.", param, "invalid_value")
    if room < 1 or (limit or 1) > room:
        raise explain_too_long(base, len(ids), limit, body)
    if host.unfinished() + (body.n or 1) > MAX_IN_FLIGHT:
        raise ApiError(
            429, "Too many requests are waiting; try again later.", None, "rate_limit_exceeded",
            "requests",
        )  # fmt: skip
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()

    def teller(index: int) -> Callable[[Delta], None]:
        """Return a callback that queues the pieces of one choice."""

        def tell(piece: Delta) -> None:
            # The event loop is closed while the server shuts down.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))

        return tell

    requests = [
        GenerationRequest(
            ids=ids,
            max_tokens=limit or room,
            tell=teller(index),
            stop=body.stops(),
            temperature=0.0 if body.is_greedy() else _default_to_one(body.temperature),
            top_p=1.0 if body.is_greedy() else _default_to_one(body.top_p),
            seed=None if body.seed is None else (body.seed + index) % 2**63,
            logprobs=logprobs,
        )
        for index in range(body.n or 1)
    ]
    for request in requests:
        host.submit(served, request)
    id = f"{kind}-{secrets.token_hex(12)}"
    return Completion(body, base, ids, requests, pieces, id, int(time.time()))


def _default_to_one(value: float | None) -> float:
    """Return the value, or 1 where it was left out."""
    return 1.0 if value is None else value


async def _receive_deltas(
    asking: Completion, http: HttpRequest
) -> AsyncIterator[tuple[int, Delta]]:
    """Yield the pieces of all choices until each is complete.

    Cancels the generations when the client has disconnected.
    """
    left, looked = len(asking.requests), time.monotonic()
    try:
        while left:
            if time.monotonic() - looked > POLL_SECONDS:
                looked = time.monotonic()
                if await http.is_disconnected():
                    return
            try:
                index, piece = await asyncio.wait_for(asking.pieces.get(), POLL_SECONDS)
            except TimeoutError:
                continue
            if piece.finish_reason == GONE:
                raise build_not_found("model", asking.body.model, "model")
            if piece.error is not None:
                raise ApiError(500, piece.error, None, "server_error", "server_error")
            left -= piece.finish_reason is not None
            yield index, piece
    finally:
        for request in asking.requests:
            request.cancelled.set()


async def _collect_response(
    asking: Completion, http: HttpRequest, kind: str, shown: Callable[[Choice], dict[str, Any]]
) -> dict[str, Any]:
    """Return the complete response."""
    choices = [Choice() for _ in asking.requests]
    async for index, piece in _receive_deltas(asking, http):
        choice = choices[index]
        choice.text += piece.text
        choice.chances += piece.chances
        choice.add(piece)
    if any(choice.finish_reason is None for choice in choices):
        raise ClientDisconnect
    _count_tokens(http, asking, choices)
    return {
        "id": asking.id,
        "object": kind,
        "created": asking.created,
        "model": asking.body.model,
        "choices": [
            {"index": index, "finish_reason": choice.finish_reason, **shown(choice)}
            for index, choice in enumerate(choices)
        ],
        "usage": asking.usage(choices),
    }


def _count_tokens(http: HttpRequest, asking: Completion, choices: list[Choice]) -> None:
    """Add the tokens of a completion to the metrics."""
    usage, metrics = asking.usage(choices), http.app.state.metrics
    metrics.tokens.labels("prompt").inc(usage["prompt_tokens"])
    metrics.tokens.labels("answer").inc(usage["completion_tokens"])
    metrics.cached.inc(usage["prompt_tokens_details"]["cached_tokens"])


def _stream_response(
    asking: Completion, http: HttpRequest, chunk: Callable[..., dict[str, Any]], kind: str
) -> StreamingResponse:
    """Stream the response as server-sent events."""
    options = asking.body.stream_options
    counted = options is not None and bool(options.include_usage)

    def event(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> str:
        """Return one event with these choices."""
        value = {
            "id": asking.id, "object": kind, "created": asking.created,
            "model": asking.body.model, "choices": choices, **({"usage": usage} if counted else {}),
        }  # fmt: skip
        return f"data: {json.dumps(value)}\n\n"

    async def events() -> AsyncIterator[str]:
        """Yield the events of the whole response."""
        choices = [Choice() for _ in asking.requests]
        for index in range(len(choices)):
            if kind == "chat.completion.chunk":
                yield event([chunk(asking, index, Delta(""), first=True)])
        try:
            async for index, piece in _receive_deltas(asking, http):
                choices[index].add(piece)
                if piece.text or piece.chances:
                    new = replace(piece, finish_reason=None)
                    yield event([chunk(asking, index, new, first=False)])
                if piece.finish_reason is not None:
                    end = Delta("", finish_reason=piece.finish_reason)
                    yield event([chunk(asking, index, end, first=False)])
        except ApiError as error:
            yield f"data: {json.dumps({'error': error.body})}\n\n"
            return
        _count_tokens(http, asking, choices)
        if counted:
            yield event([], asking.usage(choices))
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _build_chat_chunk(asking: Completion, index: int, piece: Delta, first: bool) -> dict[str, Any]:
    """Return one choice of a chat completion chunk."""
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
    if piece.text:
        delta["content"] = piece.text
    shown = _render_logprobs(asking.base, list(piece.chances)) if piece.chances else None
    return {
        "index": index, "delta": delta, "finish_reason": piece.finish_reason, "logprobs": shown,
    }  # fmt: skip


def _build_text_chunk(asking: Completion, index: int, piece: Delta, first: bool) -> dict[str, Any]:
    """Return one choice of a text completion chunk."""
    return {
        "index": index, "text": piece.text, "finish_reason": piece.finish_reason, "logprobs": None,
    }  # fmt: skip


def _render_logprobs(base: LoadedModelInfo, chances: list[TokenLogprob]) -> dict[str, Any]:
    """Return log-probabilities as the API shows them."""

    def token(id: int, logprob: float) -> dict[str, Any]:
        """Return one token with its text, log-probability and bytes."""
        raw = find_token_bytes(base.tokenizer, id)
        return {
            "token": decode_token(base.tokenizer, id),
            "logprob": logprob if logprob > MIN_LOGPROB else MIN_LOGPROB,
            "bytes": None if raw is None else list(raw),
        }

    return {
        "content": [
            {
                **token(chance.token, chance.logprob),
                "top_logprobs": [token(*other) for other in chance.likeliest],
            }
            for chance in chances
        ],
        "refusal": None,
    }
