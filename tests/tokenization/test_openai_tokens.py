"""Tokens are counted as they are billed: the seed experiment's bills come out of its own data."""

from __future__ import annotations

from pathlib import Path

import pytest

import tuneoff
from tuneoff import prompts
from tuneoff.bakeoff import prepare
from tuneoff.costs.price_book import find_model_price
from tuneoff.costs.token_costs import price_training
from tuneoff.tokenization.openai import (
    HostedCounter,
    build_counter,
    compute_default_epochs,
    count_billed_tokens,
    find_training_limit,
)

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("name", "tokens", "usd"), [("spider", 499_652, 11.99), ("viggo", 1_085_690, 26.06)]
)
def test_the_seeds_bills(
    name: str, tokens: int, usd: float, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEOFF_DATA", str(data_dir))
    bakeoff = tuneoff.load(ROOT / "examples" / "seed" / f"{name}.yaml")
    parts = prepare.resolve(bakeoff)
    model = "gpt-3.5-turbo-0613"
    counter, found = build_counter(model), 0
    for example in prepare.load_examples(parts)[0]["train"]:
        answer = {"role": "assistant", "content": example.completion}
        found += count_billed_tokens(
            counter, model, [*prompts.render_messages(example, parts.template), answer]
        )
    assert found == pytest.approx(tokens, rel=0.005)
    price = find_model_price("openai", model, bakeoff.as_of, tuned=True)
    assert price is not None
    bill = price_training(price, found * 3)
    assert bill is not None
    assert float(bill) == pytest.approx(usd, rel=0.005)


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-3.5-turbo-0613", "cl100k_base"),
        ("ft:gpt-3.5-turbo-0125:acme::abc", "cl100k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("ft:gpt-4.1-mini-2025-04-14:acme::abc", "o200k_base"),
        ("gpt-6-luna", "o200k_base"),
    ],
)
def test_encoding_of_a_model(model: str, encoding: str) -> None:
    assert build_counter(model).encoding == encoding


def test_a_conversation_by_hand() -> None:
    counter = build_counter("gpt-4o")
    turns = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d"}]
    assert counter.count_contents(turns) == 4
    assert counter.count_conversation(turns) == 3 + (3 + 1 + 3) + (3 + 1 + 1)
    named = [{"role": "user", "content": "a b c", "name": "ann"}]
    assert counter.count_conversation(named) == 3 + (3 + 1 + 3) + 1 + counter.count_text("ann")


@pytest.mark.parametrize(
    "text", ["a" * 1_500_000, "word " * 300_000, " " * 1_200_000, "\n漢" * 10**6]
)
def test_a_text_of_over_a_million_characters(text: str) -> None:
    """It is counted, and twice the text is twice the tokens."""
    counter = HostedCounter("cl100k_base")
    assert 0 < counter.count_text(text) <= len(text.encode())
    again = counter.count_text(f"{text}\n\nx{text}")
    assert again == pytest.approx(2 * counter.count_text(text), abs=4)


@pytest.mark.parametrize("text", ["", "<|endoftext|>", "\ud800", "naïve 🙂 漢字"])
def test_odd_texts_are_counted(text: str) -> None:
    for encoding in ("cl100k_base", "o200k_base"):
        assert HostedCounter(encoding).count_text(text) >= bool(text)  # type: ignore[arg-type]


def test_long_examples_are_cut() -> None:
    long = [{"role": "user", "content": "word " * 5000}]
    counter = build_counter("gpt-3.5-turbo-0613")
    assert count_billed_tokens(counter, "gpt-3.5-turbo-0613", long) == 4096
    assert 5000 < count_billed_tokens(counter, "gpt-3.5-turbo-0125", long) < 5020
    assert find_training_limit("ft:gpt-4.1-mini:acme::x") == 65_536


def test_default_epochs() -> None:
    """Whole epochs, as OpenAI's cookbook has them: 100 // 11 is 9."""
    few = [compute_default_epochs(n) for n in (1, 4, 10, 11, 20, 25, 26, 33, 34)]
    assert few == [25, 25, 10, 9, 5, 4, 3, 3, 3]
    many = [compute_default_epochs(n) for n in (1000, 8333, 8334, 12_500, 12_501, 10**6)]
    assert many == [3, 3, 2, 2, 1, 1]
    assert all(1 <= compute_default_epochs(n) <= 25 for n in range(1, 200))
