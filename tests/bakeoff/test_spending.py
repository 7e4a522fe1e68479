"""Nothing is sent for a model that is unknown, has ended or has no price: one sentence says why."""

from __future__ import annotations

import socket
from collections.abc import Callable
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


PRICELESS = (
    "model: gpt-6-luna",
    "model: gpt-4.1-mnii",
    "provider: nebius, model: m",
    "model: my-model, price: {training_usd_per_million_tokens: 3}",
)


@pytest.mark.parametrize("contender", PRICELESS)
def test_check_warns_with_the_sentence_of_the_run(
    contender: str, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(f"name: x\ntask: {TASK}\ncontenders: [{{name: h, id: hosted, {contender}}}]\n")
    with pytest.raises(tuneoff.ConfigError) as raised:
        tuneoff.run(tuneoff.load(file), tmp_path / "run")
    for key in ("OPENAI_API_KEY", "NEBIUS_API_KEY"):
        monkeypatch.delenv(key)
    code, out, _ = cli("check", file)
    assert code == 0
    assert f"warning: {raised.value}\n" in out
    assert "`price:`" in out
    assert "--yes" in out


def warnings_of(file: Path, contenders: str, more: str = "", task: str = TASK) -> list[str]:
    file.write_text(f"name: x\ntask: {task}\ncontenders: [{contenders}]\n{more}")
    return [w for w in tuneoff.check_file(file)["warnings"] if "price" in w or "hardware" in w]


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        (
            "model: m, batch: true, price: {input_usd_per_million_tokens: 1, "
            "output_usd_per_million_tokens: 2, batch_input_usd_per_million_tokens: 0.5}",
            "m has no batch_output_usd_per_million_tokens (from the bake-off file), so its batches",
        ),
        ("model: gpt-6-luna", "gpt-6-luna reasons before it answers, and has the 64 tokens"),
        ("model: gpt-5-mini-2025-08-07, price: &usd {input_usd_per_million_tokens: 1, "
         "output_usd_per_million_tokens: 1}", "gpt-5-mini-2025-08-07 reasons"),
        ("model: gpt-6-luna, batch: true, reasoning_effort: none", None),
        ("model: gpt-6-sol, batch: true, reasoning_effort: low", None),
        ("model: gpt-5.4-mini, batch: true", None),
        ("model: gpt-4.1-mini, batch: true", None),
    ],
)  # fmt: skip
def test_check_and_plan_say_what_may_be_otherwise(
    contender: str, said: str | None, tmp_path: Path, on_day: Callable[[str], None]
) -> None:
    on_day("2026-11-24")  # gpt-4.1-mini is still there
    file = tmp_path / "b.yaml"
    task = TASK[:-1] + ", max_new_tokens: 64}"
    file.write_text(
        f"name: x\ntask: {task}\ncontenders: [{{name: a, id: prompted, {contender}}}]\n"
    )
    planned = tuneoff.plan(tuneoff.load(file), measure=False).contenders[0].warnings
    for warnings in (tuneoff.check_file(file)["warnings"], planned):
        found = [each for each in warnings if "reasons before" in each or "batches" in each]
        assert [said is not None and said in each for each in found] == [True] * (said is not None)


def test_check_goes_by_todays_prices_as_a_run_does(tmp_path: Path) -> None:
    old = "{name: old, id: prompted, model: gpt-3.5-turbo-0613}"
    file = tmp_path / "b.yaml"
    file.write_text(f"name: x\ntask: {TASK}\ncontenders: [{old}]\nas_of: 2023-09-12\n")
    found = tuneoff.check_file(file)["warnings"]
    assert [w for w in found if "gpt-3.5-turbo-0613 ended on 2026-10-23" in w]


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        ("{accelerator: A4O}", "hardware: unknown accelerator 'A4O'"),
        ("{accelerator: A4O}", "did you mean A40?); give contender l hardware.usd_per_hour."),
        (
            "{accelerator: T4}",
            "an hour of T4 has no price on 2026-11-24; give contender l hardware.usd_per_hour.",
        ),
    ],
)
@pytest.mark.parametrize(
    "kind", ["id: local", "id: prompted, base: tiny", "id: recorded, training: {hours: 2}"]
)
def test_check_looks_accelerators_up(kind: str, hardware: str, said: str, tmp_path: Path) -> None:
    contender = f"{{name: l, {kind}, hardware: {hardware}}}"
    (warning,) = warnings_of(tmp_path / "b.yaml", contender, "as_of: 2026-11-24\n")
    assert said in warning


def test_check_says_nothing_where_no_price_is_needed(tmp_path: Path) -> None:
    contenders = (
        "{name: here, id: hosted, model: m, base_url: 'http://127.0.0.1:1/v1'}, "
        "{name: a, id: local, hardware: {accelerator: 2 CPU cores, usd_per_hour: 0.08}}, "
        "{name: b, id: local, hardware: {accelerator: A40}}, {name: c, id: local}, "
        "{name: d, id: local, hardware: {count: 2}}"
    )
    assert warnings_of(tmp_path / "b.yaml", contenders, "as_of: 2026-11-24\n") == []


def test_check_says_that_a_judge_has_no_price(tmp_path: Path) -> None:
    task = TASK[:-1] + ", metrics: [{id: judge, model: no-such, rubric: Be good.}]}"
    (warning,) = warnings_of(tmp_path / "b.yaml", "{name: c, id: local}", task=task)
    assert warning.startswith("the judge no-such has no price in the book")
