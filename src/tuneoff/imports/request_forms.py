"""Rows of request logs, of whichever tool: each becomes a conversation, or a reason why not.

What is read, by the keys of a row (`FORMS`):

stored completion   an object of OpenAI's `GET /v1/chat/completions`, with the messages that
                    another route gives under `messages`; stored responses likewise, with `input`
request, response   `request` and `response`; Helicone's `request_body` and `response_body`;
                    `input` and `output`, as OpenPipe and Langfuse have them
messages, response  LiteLLM's log (StandardLoggingPayload)
chat rows           `messages` with an answer last, as OpenAI's dashboard exports them for tuning
prompt, completion  two texts

Requests and responses are those of OpenAI's chat completions or responses API, as objects or as
JSON text; a response may also be a message, or a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff.errors import DataError
from tuneoff.imports.log_fields import (
    find_conversation,
    find_models,
    find_time,
    find_user,
    has_value,
)
from tuneoff.tasks.readers import parse_json
from tuneoff.tasks.training_rows import ROLES, find_lone_surrogate

Row = Mapping[str, Any]
Turn = dict[str, Any]

# Why a row is left out.
UNKNOWN = "of another form"
FAILED = "an error instead of an answer"
CUT_OFF = "an answer that was cut off"
FILTERED = "an answer that a filter stopped"
REFUSED = "a refusal"
TOOLS = "tools or tool calls"
MEDIA = "images, audio or files"
CONTINUES = "a request that goes on from turns kept elsewhere"
NO_PROMPT = "no messages of the request"
NO_USER = "no message of a user"
NO_ANSWER = "no answer, or an empty one"
NAMED = "a turn with a name"
UNFIT = "not usable as a training row"

TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call", "tool_call_id")
KEPT_ELSEWHERE = ("previous_response_id", "conversation")
RESPONSE_TOOLS = ("function_call", "tool_call", "mcp", "computer", "web_search", "file_search")
END_REASONS = {
    "length": CUT_OFF, "max_tokens": CUT_OFF, "max_output_tokens": CUT_OFF,
    "content_filter": FILTERED, "tool_calls": TOOLS, "function_call": TOOLS, "error": FAILED,
    "tool_use": TOOLS, "refusal": REFUSED,
}  # fmt: skip
# Responses of OpenAI's other routes.
OTHER_OBJECTS = ("list", "error", "embedding", "response", "text_completion")
STATUSES = ("status", "status_code", "response_status", "response_status_code", "level")
# HTTP's, also as a table of numbers writes them: 500.0.
_FAILED_STATUS = re.compile(r"[45][0-9]{2}(?:\.0)?")
FAILED_WORDS = ("failure", "failed", "error", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request with its answer, as a training row has them."""

    form: str
    """The name of the row's form."""
    turns: list[Turn]
    """The prompt's turns and the answer; earlier turns of the assistant have weight 0."""
    seconds: float | None
    """When it was asked, in seconds since 1970; None if the row does not say."""
    models: tuple[str, ...]
    """The names of the model that answered: the response's, then the request's."""
    user: str | None
    conversation: str | None
    """The id of its conversation or session."""
    had_format: bool
    """Whether the request asked for JSON, which a training row cannot."""


class LeftOutError(Exception):
    """A row that cannot become a training row; the message is the reason."""


@dataclass(frozen=True, slots=True)
class LogForm:
    """A form of rows."""

    name: str
    split: Callable[[Row], tuple[Any, Any] | None]
    """Returns a row's request and response; None if the row is of another form."""


def _split_stored(row: Row) -> tuple[Any, Any] | None:
    """Return a stored completion as request and response."""
    return (row, row) if row.get("object") == "chat.completion" and "choices" in row else None


def _split_stored_response(row: Row) -> tuple[Any, Any] | None:
    """Return a stored response as request and response."""
    return (row, row) if row.get("object") == "response" and "output" in row else None


def _split_pair(request: str, response: str) -> Callable[[Row], tuple[Any, Any] | None]:
    """Return a reader of rows with a request and a response under these keys."""

    def split(row: Row) -> tuple[Any, Any] | None:
        # With an instruction beside it, an input is only part of a prompt.
        if request in row and response in row and "instruction" not in row:
            return _open_request(row[request]), _open_response(row[response])
        return None

    return split


def _split_helicone(row: Row) -> tuple[Any, Any] | None:
    """Return the request and response of a row of Helicone's."""
    if "request_body" in row and "response_body" in row:
        return _open_body(row["request_body"]), _open_body(row["response_body"])
    return None


def _split_litellm(row: Row) -> tuple[Any, Any] | None:
    """Return the request and response of a row of LiteLLM's."""
    if "messages" in row and "response" in row:
        settings = row.get("model_parameters")
        inside = settings if isinstance(settings, dict) else {}
        messages = _open_request(row["messages"])
        return {**inside, "messages": messages}, _open_response(row["response"])
    return None


def _split_chat(row: Row) -> tuple[Any, Any] | None:
    """Return the turns of a chat row as request and response."""
    turns = row.get("messages")
    if not isinstance(turns, list):
        return None
    answered = (
        bool(turns) and isinstance(turns[-1], dict) and turns[-1].get("role") == ("assistant")
    )
    return {**row, "messages": turns[:-1] if answered else turns}, turns[-1] if answered else None


def _split_texts(row: Row) -> tuple[Any, Any] | None:
    """Return a prompt and a completion as request and response."""
    if isinstance(row.get("prompt"), str) and "completion" in row:
        turns = [{"role": "user", "content": row["prompt"]}]
        return {**row, "messages": turns}, row["completion"]
    return None


FORMS: tuple[LogForm, ...] = (
    LogForm("OpenAI's stored completions", _split_stored),
    LogForm("OpenAI's stored responses", _split_stored_response),
    LogForm("requests with responses", _split_pair("request", "response")),
    LogForm("Helicone's requests", _split_helicone),
    LogForm("LiteLLM's log", _split_litellm),
    LogForm("inputs with outputs", _split_pair("input", "output")),
    LogForm("chat rows", _split_chat),
    LogForm("prompts with completions", _split_texts),
)
FORM_NAMES = f"request logs ({', '.join(form.name for form in FORMS)})"


def recognize_rows(rows: Sequence[Row]) -> bool:
    """Return whether any of the rows is of a form that is read here."""
    return any(form.split(row) is not None for row in rows for form in FORMS)


def read_conversation(row: Row) -> Conversation:
    """Return a row's conversation.

    Raises:
        LeftOutError: it cannot become a training row.
    """
    for form in FORMS:
        parts = form.split(row)
        if parts is not None:
            return _read_parts(row, form.name, *parts)
    raise LeftOutError(UNKNOWN)


def _read_parts(row: Row, form: str, request: Any, response: Any) -> Conversation:
    """Return the conversation of a request and a response."""
    response = _unwrap_body(row, response)
    for place in (row, response):
        _refuse_ended(place)
    answer = _read_answer(response)
    turns = _read_prompt(request)
    if request is response and turns and turns[-1] == {"role": "assistant", "content": answer}:
        turns.pop()  # the list of stored messages may end with the answer
    before = [turn | ({"weight": 0} if turn["role"] == "assistant" else {}) for turn in turns]
    turns = [*before, {"role": "assistant", "content": answer}]
    if not any(turn["role"] == "user" for turn in turns):
        raise LeftOutError(NO_USER)
    inside = request if isinstance(request, dict) else {}
    outside = response if isinstance(response, dict) else {}
    user, conversation = find_user((row, inside)), find_conversation((row, inside))
    texts = [turn["content"] for turn in turns] + [user or "", conversation or ""]
    if not all(map(str.isascii, texts)) and find_lone_surrogate(texts) is not None:
        raise LeftOutError(UNFIT)
    return Conversation(
        form,
        turns,
        find_time((row, inside, outside)),
        find_models((outside, row, inside)),
        user,
        conversation,
        _has_json_format(inside),
    )


def _open_request(value: Any) -> Any:
    """Return the request or the turns in JSON text; any other text is a prompt."""
    parsed = _parse_json(value)
    if _is_turn_list(parsed) or (
        isinstance(parsed, dict)
        and (isinstance(parsed.get("messages"), list) or ("model" in parsed and "input" in parsed))
    ):
        return parsed
    return value


def _open_response(value: Any) -> Any:
    """Return the response in JSON text; any other JSON is an answer itself."""
    parsed = _parse_json(value)
    if _is_turn_list(parsed) or (
        isinstance(parsed, dict)
        and (
            isinstance(parsed.get("choices"), list)
            or isinstance(parsed.get("output"), list)
            or isinstance(parsed.get("body"), dict)
            or isinstance(parsed.get("error"), dict)
            or "status_code" in parsed
            or list(parsed) == ["error"]
            or parsed.get("object") in OTHER_OBJECTS
            or (parsed.get("role") == "assistant" and "content" in parsed)
        )
    ):
        return parsed
    return value


def _open_body(value: Any) -> Any:
    """Return the content of an HTTP body, which is JSON text or an object."""
    parsed = _parse_json(value)
    return value if parsed is None else parsed


def _parse_json(value: Any) -> Any:
    """Return the value of JSON text; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(value)
        except (json.JSONDecodeError, DataError):
            return None
    return None


def _is_turn_list(value: Any) -> bool:
    """Return whether a value is a list of turns."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "type" in turn) for turn in value)
    )


def _unwrap_body(row: Row, response: Any) -> Any:
    """Return a response's body.

    Raises:
        LeftOutError: the row or the response reports an error.
    """
    for place in (row, response):
        if isinstance(place, dict):
            _refuse_failed(place)
    if isinstance(response, dict) and "body" in response and "choices" not in response:
        body = _open_body(response["body"])
        if isinstance(body, dict):
            _refuse_failed(body)
        return body
    return response


def _refuse_failed(place: Row) -> None:
    """Raise LeftOutError if a row or a response reports an error."""
    if has_value(place.get("error")):
        raise LeftOutError(FAILED)
    for key in STATUSES:
        text = str(place.get(key, "")).lower()
        if text in FAILED_WORDS or _FAILED_STATUS.fullmatch(text):
            raise LeftOutError(FAILED)


def _refuse_ended(place: Any) -> None:
    """Raise LeftOutError if a row, a response or a choice says that its answer is incomplete."""
    for key in ("finish_reason", "stop_reason"):
        reason = END_REASONS.get(str(place.get(key))) if isinstance(place, dict) else None
        if reason is not None:
            raise LeftOutError(reason)


# --- the answer -------------------------------------------------------------------------------


def _read_answer(response: Any) -> str:
    """Return the text of a response's answer."""
    if isinstance(response, str):
        text = response
    elif not isinstance(response, dict):
        raise LeftOutError(NO_ANSWER)
    elif isinstance(response.get("choices"), list):
        text = _read_choice(response["choices"])
    elif isinstance(response.get("output"), list):
        text = _read_output(response)
    else:
        text = _read_message(response)
    if not text.strip():
        raise LeftOutError(NO_ANSWER)
    return text


def _read_choice(choices: list[Any]) -> str:
    """Return the text of the first choice."""
    if not choices or not isinstance(choices[0], dict):
        raise LeftOutError(NO_ANSWER)
    choice = choices[0]
    _refuse_ended(choice)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise LeftOutError(NO_ANSWER)
    return _read_message(message)


def _read_message(message: Row) -> str:
    """Return the text of an assistant's message."""
    if any(has_value(message.get(key)) for key in TOOL_KEYS):
        raise LeftOutError(TOOLS)
    if has_value(message.get("refusal")):
        raise LeftOutError(REFUSED)
    if message.get("weight") == 0 or message.get("role", "assistant") != "assistant":
        raise LeftOutError(NO_ANSWER)
    return _read_content(message)


def _read_output(response: Row) -> str:
    """Return the text of an answer of the responses API."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if reason is not None or response.get("status") == "incomplete":
        raise LeftOutError(END_REASONS.get(str(reason), CUT_OFF))
    texts = []
    for item in response["output"]:
        kind = str(item.get("type", "message")) if isinstance(item, dict) else ""
        if kind == "message":
            texts.append(_read_message(item))
        elif kind.startswith(RESPONSE_TOOLS) or kind.endswith("_call"):
            raise LeftOutError(TOOLS)
        elif kind != "reasoning":
            raise LeftOutError(MEDIA)
    return "".join(texts)


# --- the prompt -------------------------------------------------------------------------------


def _read_prompt(request: Any) -> list[Turn]:
    """Return the turns of a request."""
    if isinstance(request, dict):
        if any(has_value(request.get(key)) for key in TOOL_KEYS):
            raise LeftOutError(TOOLS)
        if any(has_value(request.get(key)) for key in ("images", "audio", "videos")):
            raise LeftOutError(MEDIA)
        messages = request.get("messages")
        if messages is None:
            messages = request.get("input")
            # The responses API: the server has the earlier turns; the row has not.
            if any(has_value(request.get(key)) for key in KEPT_ELSEWHERE):
                raise LeftOutError(CONTINUES)
        first = request.get("instructions")
        if first is None:
            first = request.get("system")
    else:
        messages, first = request, None
    if isinstance(messages, str) and messages.strip():
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages:
        raise LeftOutError(NO_PROMPT)
    turns = [_read_turn(turn) for turn in messages]
    if isinstance(first, str) and first.strip():
        turns.insert(0, {"role": "system", "content": first})
    return turns


def _read_turn(turn: Any) -> Turn:
    """Return a turn with its text."""
    if not isinstance(turn, dict):
        raise LeftOutError(UNFIT)
    role, kind = turn.get("role"), turn.get("type")
    if (
        role in ("tool", "function")
        or any(has_value(turn.get(key)) for key in TOOL_KEYS)
        or str(kind).endswith(("_call", "_call_output"))
    ):
        raise LeftOutError(TOOLS)
    if has_value(turn.get("name")):
        raise LeftOutError(NAMED)
    if has_value(turn.get("audio")):
        raise LeftOutError(MEDIA)
    if role not in ROLES:
        raise LeftOutError(UNFIT)
    return {"role": role, "content": _read_content(turn)}


def _read_content(message: Row) -> str:
    """Return a turn's text, its parts joined as the APIs do."""
    content, parts = message.get("content"), message.get("content_parts")
    if isinstance(parts, list) and parts:  # OpenAI's stored messages: the content as it was sent
        content = parts
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise LeftOutError(UNFIT)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            raise LeftOutError(UNFIT)
        elif part.get("type") == "refusal":
            raise LeftOutError(REFUSED)
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise LeftOutError(MEDIA)
    return "".join(texts)


def _has_json_format(request: Row) -> bool:
    """Return whether a request has a response format other than text."""
    wanted = request.get("response_format")
    if wanted is None and isinstance(request.get("text"), dict):
        wanted = request["text"].get("format")
    return isinstance(wanted, dict) and wanted.get("type", "text") != "text"
