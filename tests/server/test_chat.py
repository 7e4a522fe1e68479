"""Chat and text completions through the official SDK: a base, two tuned models, all at once."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import examples, request

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
QUESTIONS = [f"Is {number} {word} a number?" for number in range(8) for word in ("or is it", "")]


@pytest.fixture(scope="module")
def models(client: Any, tiny_base: Path) -> list[str]:
    """The base, and two models tuned to answer in different ways."""
    jobs = []
    for answer in ("yes, it is", "no"):
        file = client.files.create(file=("t.jsonl", examples(16, answer)), purpose="fine-tune")
        jobs.append(
            client.fine_tuning.jobs.create(
                model=tiny_base.name, training_file=file.id, seed=1,
                hyperparameters={"n_epochs": 20, "batch_size": 8, "learning_rate_multiplier": 100},
            )
        )  # fmt: skip
    end = time.monotonic() + 240
    names = [tiny_base.name]
    for job in jobs:
        while (found := client.fine_tuning.jobs.retrieve(job.id)).status != "succeeded":
            assert found.status in ("queued", "running"), found.error
            assert time.monotonic() < end
            time.sleep(0.2)
        names.append(found.fine_tuned_model)
    return names


def ask(client: Any, model: str, question: str = "Is 3 a number?", **more: Any) -> Any:
    asked = {"temperature": 0, "max_tokens": 12, **more}
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model=model, messages=messages, **asked)


def text(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_each_model_answers_as_it_was_tuned(client: Any, models: list[str]) -> None:
    base, yes, no = (ask(client, model) for model in models)
    assert (text(yes), yes.choices[0].finish_reason) == ("yes, it is", "stop")
    assert text(no) == "no"
    assert text(base) not in ("no", "yes, it is")
    assert base.choices[0].finish_reason == "length"
    assert base.usage.completion_tokens == 12
    assert no.usage.total_tokens == no.usage.prompt_tokens + no.usage.completion_tokens
    assert no.model == models[2]


def test_a_stream_is_the_same_text(client: Any, models: list[str]) -> None:
    for model in models:
        whole = ask(client, model)
        chunks = list(ask(client, model, stream=True, stream_options={"include_usage": True}))
        deltas = [c.choices[0].delta for c in chunks if c.choices]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == text(whole)
        ends = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert [end for end in ends if end] == [whole.choices[0].finish_reason]
        assert chunks[-1].usage == whole.usage


def test_many_at_once_answer_as_one_alone(client: Any, models: list[str]) -> None:
    asked = [
        (model, question, 1.0 if model == models[0] else 0.0, seed)
        for seed, question in enumerate(QUESTIONS)
        for model in models
    ]

    def answer(each: tuple[str, str, float, int]) -> str:
        model, question, temperature, seed = each
        return text(ask(client, model, question, temperature=temperature, seed=seed))

    alone = list(map(answer, asked))
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(answer, asked))
    assert together == alone
    assert len(set(alone)) > len(QUESTIONS)


def test_sampling_is_seeded_and_varies(client: Any, models: list[str]) -> None:
    def sampled(seed: int) -> list[str]:
        answer = ask(client, models[0], temperature=1.5, n=3, seed=seed)
        return [choice.message.content for choice in answer.choices]

    first = sampled(1)
    assert first == sampled(1)
    assert len({*first, *sampled(2)}) > 3
    # The nucleus of the likeliest token alone is the greedy answer.
    narrow = ask(client, models[0], temperature=1.5, top_p=1e-6, seed=5)
    assert text(narrow) == text(ask(client, models[0]))


def test_stops(client: Any, models: list[str]) -> None:
    answer = ask(client, models[1], stop=[", it"])
    assert (text(answer), answer.choices[0].finish_reason) == ("yes", "stop")
    streamed = ask(client, models[1], stop=", it", stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == "yes"


def test_log_probabilities(client: Any, models: list[str]) -> None:
    answer = ask(client, models[1], logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert "".join(each.token for each in content) == text(answer)
    for each in content:
        assert len(each.top_logprobs) == 3
        assert each.logprob == pytest.approx(each.top_logprobs[0].logprob)
        assert math.exp(each.logprob) <= 1.0


def test_bytes_of_tokens_are_those_of_the_answer(client: Any, tiny_base: Path) -> None:
    """Of parts of characters, too, which a hot random model makes many of."""
    answer = client.chat.completions.create(
        model=tiny_base.name, messages=[{"role": "user", "content": "a"}], temperature=2,
        seed=1, max_tokens=60, logprobs=True, top_logprobs=2,
    )  # fmt: skip
    content = answer.choices[0].logprobs.content
    found = b"".join(bytes(each.bytes) for each in content)
    assert b"\xef\xbf\xbd" not in found
    assert "\ufffd" in text(answer)
    assert found.decode(errors="replace") == text(answer)


def test_an_answer_goes_back_into_the_conversation(client: Any, models: list[str]) -> None:
    first = ask(client, models[2])
    turns = [
        {"role": "user", "content": "Is 3 a number?"},
        first.choices[0].message,
        {"role": "user", "content": "Is 4 a number?"},
    ]
    again = client.chat.completions.create(model=models[2], messages=turns, max_tokens=4)
    assert again.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_tiny_temperature_is_the_greedy_answer(client: Any, models: list[str]) -> None:
    assert text(ask(client, models[1], temperature=1e-310)) == "yes, it is"


def test_text_completions(client: Any, models: list[str]) -> None:
    answer = client.completions.create(
        model=models[0], prompt="depict(", max_tokens=5, temperature=0
    )
    assert answer.usage.completion_tokens == 5
    pieces = client.completions.create(
        model=models[0], prompt="depict(", max_tokens=5, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 5_000}, "max_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
    ],
)
def test_what_is_not_supported_is_named(
    client: Any, models: list[str], change: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, models[0], **change)
    assert refused.value.param == param


def test_metrics(client: Any, models: list[str]) -> None:
    before = _metrics(client)
    ask(client, models[0])
    after = _metrics(client)
    name = 'tuneoff_tokens_total{kind="answer"}'
    assert after[name] == before[name] + 12
    assert after['tuneoff_jobs{status="succeeded"}'] == 2
    route = 'tuneoff_requests_total{method="POST",route="/v1/chat/completions",status="200"}'
    assert after[route] == before[route] + 1


def _metrics(client: Any) -> dict[str, float]:
    port = client.base_url.port
    status, text = request(port, "GET", "/metrics")
    assert status == 200
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_an_unknown_model(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="No such model"):
        ask(client, "ft:gpt-9")


def test_a_client_that_goes_away_leaves_the_others(client: Any, models: list[str]) -> None:
    stream = ask(client, models[0], max_tokens=900, stream=True)
    next(iter(stream))
    stream.close()
    assert text(ask(client, models[2])) == "no"
