"""What is billed is read from a usage whatever a server calls it, and what was asked before new
settings came is asked with the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tuneoff.providers.usage import Usage, read_usage


@pytest.mark.parametrize(
    ("prompt_details", "more", "expected"),
    [
        ({}, {}, (90, 10, 0, 0)),
        (None, {}, (90, 10, 0, 0)),
        ({"cached_tokens": 30, "cache_write_tokens": 50}, {}, (90, 10, 30, 50)),
        ({"cached_tokens": 60, "cache_write_tokens": 60}, {}, (90, 10, 60, 30)),
        ({"cached_tokens": None, "cache_write_tokens": "5"}, {}, (90, 10, 0, 0)),
        ({"cache_creation_tokens": 7}, {}, (90, 10, 0, 7)),
        ({}, {"cache_creation_input_tokens": 8}, (90, 10, 0, 8)),
        # Reasoning is among the completion's tokens, unless the total says otherwise.
        ({}, {"completion_tokens_details": {"reasoning_tokens": 9}}, (90, 10, 0, 0)),
        (
            {},
            {"completion_tokens_details": {"reasoning_tokens": 9}, "total_tokens": 109},
            (90, 19, 0, 0),
        ),
        ({}, {"prompt_tokens": None}, (None, 10, 0, 0)),
        ({}, {"completion_tokens": "many"}, (90, None, 0, 0)),
    ],
)
def test_tokens_as_they_are_billed(
    prompt_details: Any, more: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    found = read_usage({**usage, "prompt_tokens_details": prompt_details, **more})
    assert found == Usage(*expected)


def test_a_request_is_the_same_bytes_as_ever_until_reasoning_is_asked_for() -> None:
    pytest.importorskip("openai")
    from tuneoff.providers.openai import OpenAI

    provider = OpenAI("http://127.0.0.1:1/v1", "none")
    turns = [{"role": "user", "content": "q"}]
    begins = '{"model": "m", "messages": [{"role": "user", "content": "q"}], '
    ends = {
        None: '"max_tokens": 5, "temperature": 0}',
        "none": '"max_completion_tokens": 5, "temperature": 0, "reasoning_effort": "none"}',
        "low": '"max_completion_tokens": 5, "reasoning_effort": "low"}',
    }
    for effort, end in ends.items():
        assert json.dumps(provider.chat_body("m", turns, 5, effort)) == begins + end
    provider.close()


def test_together_is_asked_to_reason_in_its_own_words() -> None:
    pytest.importorskip("together")
    from tuneoff.providers.together import Together

    bodies: list[dict[str, Any]] = []

    class Listening:
        """A tape that answers every request, and keeps what was asked."""

        def transport(self, library: Any, key: str) -> Any:
            def answer(request: Any) -> Any:
                bodies.append(json.loads(request.content))
                choice = {"index": 0, "finish_reason": "stop", "message": {"content": "yes"}}
                return library.Response(200, json={"id": "c", "choices": [choice]})

            return library.MockTransport(answer)

    provider = Together("http://127.0.0.1:1", "none", Listening())
    for effort in (None, "none", "high"):
        assert provider.chat("m", [{"role": "user", "content": "q"}], 5, effort).text == "yes"
    provider.close()
    plain = {key: bodies[0][key] for key in ("model", "messages", "max_tokens", "temperature")}
    assert bodies == [
        plain,
        {**plain, "reasoning": {"enabled": False}},
        {**plain, "reasoning_effort": "high"},
    ]
