"""Parameters: what would change an answer and cannot here is refused by its name, and what changes
nothing is taken, as raw HTTP has it and as the official SDK sends it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from abuse import shaped
from running import examples, request, server, upload

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
CHAT, TEXT, JOBS = "/v1/chat/completions", "/v1/completions", "/v1/fine_tuning/jobs"
BATCHES = "/v1/batches"
USER = {"role": "user", "content": "a"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
SAMPLED = ("temperature", "top_p", "max_tokens", "stop", "n", "seed", "stream", "stream_options",
           "frequency_penalty", "presence_penalty", "logit_bias", "user")  # fmt: skip
BOTH: dict[str, Any] = {
    "n": 1, "seed": -3, "stop": [], "frequency_penalty": 0, "presence_penalty": 0.0, "user": "me",
    "logit_bias": {}, "stream": False, "top_p": 1,
}  # fmt: skip
NULLS = (
    *SAMPLED, "max_completion_tokens", "logprobs", "top_logprobs", "response_format", "modalities",
    "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "audio",
    "prediction", "web_search_options", "moderation", "reasoning_effort", "verbosity",
    "service_tier", "store", "metadata", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier",
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    folder = tmp_path_factory.mktemp("parameters")
    with server(folder / "data", "--base", str(tiny_base)) as (port, process):
        yield port, tiny_base.name
        assert process.poll() is None
    assert "Traceback" not in (folder / "data.log").read_text()


@pytest.fixture(scope="module")
def file(served: tuple[int, str]) -> str:
    return str(upload(served[0], examples(10))[1]["id"])


def asked(served: tuple[int, str], path: str, **change: Any) -> tuple[int, Any]:
    port, model = served
    own = {CHAT: {"messages": [USER]}, TEXT: {"prompt": "a"}}.get(path, {})
    short = {"max_tokens": 2, "temperature": 0} if path in (CHAT, TEXT) else {}
    return request(port, "POST", path, {"model": model, **own, **short, **change})


@pytest.mark.parametrize(
    ("path", "change", "param", "says"),
    [
        (CHAT, {"messages": None}, "messages", "list"),
        (CHAT, {"model": None}, "model", "valid string (got null)"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content", "Missing required"),
        (CHAT, {"messages": [{**USER, "content": None}]}, "messages.0.content", "got null"),
        (CHAT, {"messages": [USER, {**USER, "content": 5}]}, "messages.1.content", "a text or a"),
        (CHAT, {"messages": [{**USER, "content": {"a": 1}}]}, "messages.0.content", "list of text"),
        (CHAT, {"messages": [{**USER, "content": [IMAGE]}]}, "messages.0.content.0.type",
         '"image_url" is not supported'),
        (CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
         "messages.0.tool_calls", "tools are not supported"),
        (CHAT, {"messages": [USER, {"role": "tool", "content": "1", "tool_call_id": "a"}]},
         "messages.1.role", '"tool" is not supported'),
        (CHAT, {"messages": [0] * 30_000}, "messages.0", "valid dictionary"),
        (CHAT, {"messages": [USER] * 4_097}, "messages", "at most 4096"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools", "tools are not supported"),
        (CHAT, {"tool_choice": "required"}, "tool_choice", "allowed: 'none' or 'auto'"),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
         "response_format.type", '"json_schema" is not supported'),
        (CHAT, {"modalities": ["audio"]}, "modalities.0", "audio"),
        (CHAT, {"reasoning_effort": "high"}, "reasoning_effort", "high"),
        (CHAT, {"service_tier": "priority"}, "service_tier", "allowed: 'auto' or 'default'"),
        (CHAT, {"logit_bias": {"5": 100}}, "logit_bias", "biases of tokens are not"),
        (CHAT, {"top_logprobs": False}, "top_logprobs", "a number is needed, not false"),
        (CHAT, {"temperature": "0.5"}, "temperature", "valid number"),
        (CHAT, {"n": "1"}, "n", 'not "1"'),
        (CHAT, {"store": 1}, "store", "valid boolean"),
        (CHAT, {"stream": "yes"}, "stream", "valid boolean"),
        (CHAT, {"temprature": 1}, "temprature", "Unknown parameter"),
        (CHAT, {"max_tokens": 5000}, "max_tokens", "1024 positions"),
        (TEXT, {"prompt": None}, "prompt", "null"),
        (TEXT, {"prompt": ["a", "b"]}, "prompt", "a request of its own"),
        (TEXT, {"prompt": [1, 2]}, "prompt", "one text"),
        (TEXT, {"logprobs": 2}, "logprobs", "not supported"),
        (TEXT, {"suffix": "b"}, "suffix", "at most 0"),
        (TEXT, {"best_of": 3}, "best_of", "1"),
        (JOBS, {"method": {"type": "dpo", "dpo": {}}}, "method.type", '"dpo" is not supported'),
        (JOBS, {"method": {"type": "reinforcement"}}, "method.type", "allowed: 'supervised'"),
        (JOBS, {"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations",
         "wandb"),
        (JOBS, {"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta", "allowed: n_epochs"),
        (JOBS, {"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "got 0"),
        (BATCHES, {"endpoint": TEXT}, "endpoint", "allowed: '/v1/chat/completions'"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(
    served: tuple[int, str], file: str, path: str, change: dict[str, Any], param: str, says: str
) -> None:
    if path == JOBS:
        change = {"training_file": file, **change}
    if path == BATCHES:
        given = {"input_file_id": file, "completion_window": "24h", **change}
        _, body = request(served[0], "POST", path, given)
    else:
        _, body = asked(served, path, **change)
    shaped(400, body)
    assert (body["error"]["param"], body["error"]["type"]) == (param, "invalid_request_error")
    assert says in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "param", "says"),
    [
        (b'{"model": "a", ', "application/json", None, "line 1 column"),
        (b"\xff\xfe{", "application/json", None, "cannot be read as JSON"),
        (b"", "application/json", None, "it is empty"),
        (b"[" * 100_000, "application/json", None, "nested too deeply"),
        (b"[1]", "application/json; charset=utf-8", None, "must be an object, and is a list"),
        (b'{"a": [' + b"[]," * 60_000 + b"[]]}", "application/json", None, "more than 50,000"),
        (b"{" + b",".join(b'"%d":0' % n for n in range(1_001)) + b"}", "application/json", None,
         "more than 1,000 names"),
        (b"{}", None, "Content-Type", "the request has none"),
        (b"{}", "application/x-www-form-urlencoded", "Content-Type", "urlencoded"),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_what_is_no_json(
    served: tuple[int, str], body: bytes, content_type: str | None, param: str | None, says: str
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    status, told = request(served[0], "POST", CHAT, body, headers)
    shaped(status, told)
    assert (status, told["error"]["param"]) == (400, param)
    assert says in told["error"]["message"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (CHAT, dict.fromkeys(NULLS)),
        (TEXT, {**dict.fromkeys(SAMPLED), "max_tokens": 1, "best_of": None, "echo": None,
                "logprobs": None, "suffix": None}),
        (CHAT, {**BOTH, "tools": [], "tool_choice": "none", "functions": [],
                "function_call": "none", "parallel_tool_calls": True, "service_tier": "auto",
                "store": True, "metadata": {"a": "b"}, "prompt_cache_key": "k",
                "safety_identifier": "s", "response_format": {"type": "text"},
                "modalities": ["text"], "top_logprobs": 0, "logprobs": False,
                "reasoning_effort": "none", "verbosity": "medium",
                "prompt_cache_retention": "24h"}),
        (CHAT, {"tool_choice": "auto", "service_tier": "default", "store": False,
                "logit_bias": {"5": 0}, "parallel_tool_calls": False}),
        (TEXT, {**BOTH, "best_of": 1, "echo": False, "suffix": "", "prompt": ["a"]}),
        (CHAT, {"messages": [{"role": "user", "name": None, "tool_calls": None, "content": [
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}]}),
        (CHAT, {"messages": [USER, {
            "role": "assistant", "content": "b", "tool_calls": None, "function_call": None,
            "annotations": [], "provider_specific_fields": {"refusal": None}}, USER]}),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_taken(
    served: tuple[int, str], path: str, change: dict[str, Any]
) -> None:
    status, answer = asked(served, path, **{"temperature": 0, **change})
    assert status == 200, answer
    if "max_tokens" in change or change.keys() & {"messages", "prompt"}:
        return
    assert answer["choices"] == asked(served, path)[1]["choices"]


def test_the_likeliest_of_nothing_is_greedy(served: tuple[int, str]) -> None:
    long = {"max_tokens": 12, "seed": 5}
    greedy = asked(served, CHAT, **long)[1]["choices"]
    assert asked(served, CHAT, temperature=2, top_p=0, **long)[1]["choices"] == greedy
    assert asked(served, CHAT, temperature=2, **long)[1]["choices"] != greedy


def test_an_answer_can_be_sent_back_and_jobs_take_nulls(served: tuple[int, str], file: str) -> None:
    port, model = served
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1/", api_key="any", max_retries=0)
    said = client.chat.completions.create(model=model, messages=[USER], max_tokens=2)
    turn = said.choices[0].message.model_dump()
    assert turn.keys() > {"role", "content", "refusal"}
    again = client.chat.completions.create(
        model=model, messages=[USER, turn, USER], max_tokens=2, tools=[], tool_choice="none"
    )
    assert again.choices[0].finish_reason in ("stop", "length")
    job = client.fine_tuning.jobs.create(
        model=model, training_file=file, integrations=[], suffix=None, metadata={}, seed=None,
        hyperparameters={"n_epochs": "auto", "batch_size": None},
        method={"type": "supervised", "supervised": {"hyperparameters": None}, "dpo": None},
    )  # fmt: skip
    assert job.hyperparameters.batch_size == "auto"
    client.fine_tuning.jobs.cancel(job.id)


def test_a_slash_more_and_head_are_the_same(served: tuple[int, str], file: str) -> None:
    port, model = served
    for path in ("/v1/models", f"/v1/models/{model}", "/v1/files", f"/v1/files/{file}", JOBS,
                 "/v1/batches", "/health", "/metrics"):  # fmt: skip
        assert request(port, "GET", path + "/")[0] == 200, path
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            for method in ("HEAD", "GET"):  # on one connection: nothing of a body is left behind
                connection.request(method, path)
                answer = connection.getresponse()
                assert (answer.status, bool(answer.read())) == (200, method == "GET"), path
        finally:
            connection.close()
    body = {"model": model, "messages": [USER], "max_tokens": 1}
    assert request(port, "POST", CHAT + "/", body)[0] == 200
    assert request(port, "HEAD", "/v1/nothing")[0] == 404
    assert request(port, "HEAD", CHAT)[0] == 405
    foreign = {"Host": "attacker.example"}
    assert request(port, "GET", "/v1/models/", headers=foreign)[0] == 403
