"""Nothing is sent for a model that is unknown, has ended or has no price: one sentence says why."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

import tuneoff

pytest.importorskip("openai")
TASK = "{id: functional_representation, source: sample, limit: {train: 12, test: 4}}"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("NEBIUS_API_KEY", "nb-test-0123456789")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def refused(*_: Any) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        ("model: gpt-4.1-mnii", "unknown model of openai 'gpt-4.1-mnii'"),
        ("model: gpt-3.5-turbo-0125", "gpt-3.5-turbo-0125 ended on 2026-10-23"),
        ("model: gpt-6-luna", "no price of openai's gpt-6-luna after fine-tuning"),
        ("provider: nebius, model: m", "no prices of provider 'nebius'"),
        (
            "model: my-model, price: {training_usd_per_million_tokens: 3}",
            "its price lacks input_usd_per_million_tokens, output_usd_per_million_tokens",
        ),
        ("model: gpt-4.1, price: {input_usd_per_million_tokens: -1}", "greater than or equal to 0"),
        ("model: gpt-4.1, price: {input_usd_per_million_tokens: 1.0e5}", "less than 10000"),
    ],
)
def test_a_run_is_refused(contender: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(f"name: x\ntask: {TASK}\ncontenders: [{{name: h, id: hosted, {contender}}}]\n")
    with pytest.raises(tuneoff.ConfigError) as raised:
        tuneoff.run(tuneoff.load(file), tmp_path / "run")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("job.json"))


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        ("{name: h, id: hosted, model: gpt-4.1}", "begins on 2025-10-06, after 2020-01-01"),
        (
            "{name: l, id: local, hardware: {accelerator: A40}}",
            "an hour of A40 has no price on 2020-01-01",
        ),
    ],
)
def test_a_day_before_the_book_begins(contender: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(f"name: x\ntask: {TASK}\ncontenders: [{contender}]\nas_of: 2020-01-01\n")
    plan = tuneoff.plan(tuneoff.load(file), measure=False)
    assert [line for line in plan.contenders[0].warnings if said in line]
