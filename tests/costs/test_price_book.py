"""Prices are found by provider, model, variant and day; own ones come before the book's; what
has no price is said in one sentence."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from tuneoff.config.base import PriceConfig
from tuneoff.config.contenders import HostedConfig
from tuneoff.costs import price_check
from tuneoff.costs.contender_prices import explain_ended
from tuneoff.costs.price_book import (
    SHIPPED_DIR,
    Price,
    build_price_book,
    explain_no_price,
    find_model_price,
    load_shipped,
    parse_billions,
)
from tuneoff.errors import ConfigError

SEED_DAY = datetime.date(2023, 9, 12)
TODAY = datetime.date(2026, 11, 24)
LATER = datetime.date(2026, 9, 12)


def priced(
    provider: str, model: str, day: datetime.date, *, tuned: bool = False, own: Path | None = None
) -> Price:
    found = find_model_price(provider, model, day, tuned=tuned, prices=build_price_book(own))
    assert found is not None
    return found


def training(provider: str, model: str, day: datetime.date) -> str:
    return str(priced(provider, model, day, tuned=True).training_usd_per_million_tokens)


def test_the_seeds_world() -> None:
    price = priced("openai", "gpt-3.5-turbo-0613", SEED_DAY, tuned=True)
    assert price.training_usd_per_million_tokens == 8
    assert (price.input_usd_per_million_tokens, price.output_usd_per_million_tokens) == (12, 16)
    assert not price.stale
    later = priced("openai", "gpt-3.5-turbo-0613", datetime.date(2024, 1, 1), tuned=True)
    assert (later.input_usd_per_million_tokens, later.output_usd_per_million_tokens) == (3, 6)
    hour = load_shipped().hour("a40", SEED_DAY)
    assert hour is not None
    assert hour.usd_per_hour == Decimal("0.475")


def test_a_tuned_model_has_the_price_of_its_bases_tuned_variant() -> None:
    old = priced("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", TODAY)
    assert old.input_usd_per_million_tokens == Decimal("0.3")
    assert old.ends == datetime.date(2027, 1, 14)
    assert old.replacement == "gpt-6-luna"
    base = priced("openai", "gpt-4o-mini-2024-07-18", TODAY)
    assert base.input_usd_per_million_tokens == Decimal("0.15")
    assert base.training_usd_per_million_tokens is None


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen3-8B", 8),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct-Reference", 8),
        ("Qwen/Qwen3-0.6B", 0.6),
        ("Qwen/Qwen3-30B-A3B", 30),
        ("mistralai/Mixtral-8x7B-v0.1", None),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", None),
        ("someone/3Beauties", None),
    ],
)
def test_billions_in_a_name(model: str, billions: float | None) -> None:
    assert parse_billions(model) == billions


def test_a_price_by_size() -> None:
    assert training("together", "Qwen/Qwen3-8B", TODAY) == "0.48"
    assert training("together", "Qwen/Qwen3-32B", TODAY) == "1.5"
    assert find_model_price("together", "Qwen/Qwen3-235B-A22B", TODAY, tuned=True) is None


def test_stale_after_ninety_days() -> None:
    read = priced("openai", "gpt-4.1", LATER, tuned=True).retrieved
    assert read is not None
    for days, expected in ((90, False), (91, True)):
        day = read + datetime.timedelta(days)
        assert priced("openai", "gpt-4.1", day, tuned=True).stale is expected


def test_the_contenders_own_price_comes_first() -> None:
    own = PriceConfig.model_validate({"input_usd_per_million_tokens": 0.07})
    mixed = find_model_price("openai", "gpt-4.1", TODAY, own, tuned=True)
    assert mixed is not None
    assert mixed.input_usd_per_million_tokens == Decimal("0.07")
    assert mixed.output_usd_per_million_tokens == 12
    assert mixed.source.startswith("the bake-off file and https://")
    alone = find_model_price("my-own", "m", TODAY, own)
    assert alone is not None
    assert alone.output_usd_per_million_tokens is None
    assert alone.source == "the bake-off file"


def write(folder: Path, value: object) -> Path:
    file = folder / "prices.yaml"
    file.write_text(yaml.safe_dump(value))
    return file


def test_a_file_of_ones_own_comes_before_the_book(tmp_path: Path) -> None:
    mine = {"models": ["gpt-4.1"], "variant": "tuned", "training_usd_per_million_tokens": 7}
    own = write(
        tmp_path,
        {
            "provider": "openai",
            "prices": [mine],
            "hours": [{"accelerator": "a40", "usd_per_hour": 0.1}],
        },
    )
    price = priced("openai", "gpt-4.1", TODAY, tuned=True, own=own)
    assert price.training_usd_per_million_tokens == 7
    assert price.source == "your prices file"
    assert priced("openai", "gpt-4.1-mini", TODAY, tuned=True, own=own).source.startswith("https")
    hour = build_price_book(own).hour("A40", TODAY)
    assert hour is not None
    assert hour.usd_per_hour == Decimal("0.1")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"provider": "x", "prices": [{"models": ["m"], "input_usd": 1}]}, "prices.0.input_usd"),
        (
            {"provider": "x", "prices": [{"models": ["m"], "input_usd_per_million_tokens": -1}]},
            "greater than or equal to 0",
        ),
        (
            {"provider": "x", "prices": [{"models": ["m"], "input_usd_per_million_tokens": 3e6}]},
            "less than 10000",
        ),
        ({"prices": [{"models": ["m"]}]}, "provider is missing"),
        ({"provider": "x", "prices": [{"variant": "tuned"}]}, "models or billion_parameters"),
        (
            {"hours": [{"accelerator": "A40", "usd_per_hour": 1, "from": "2026-02-01",
                        "until": "2026-01-01"}]},
            "until 2026-01-01 is before from 2026-02-01",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(value: object, expected: str, tmp_path: Path) -> None:
    file = write(tmp_path, value)
    with pytest.raises(ConfigError) as raised:
        build_price_book(file)
    assert expected in str(raised.value)
    assert str(file) in str(raised.value)
    assert str(raised.value).count(". ") == 0


@pytest.mark.parametrize(
    ("provider", "model", "day", "tuned", "expected"),
    [
        (
            "opneai",
            "gpt-4.1",
            TODAY,
            True,
            "(it has those of: azure, openai",
        ),
        ("openai", "gpt-4.1-mnii", TODAY, True, "did you mean gpt-4.1-mini?"),
        ("openai", "gpt-4.1", datetime.date(2022, 1, 1), True, "begins on 2025-10-06, after 2022"),
        ("openai", "gpt-3.5-turbo", TODAY, True, "the last one before held until 2026-10-23"),
        ("openai", "gpt-6-luna", TODAY, True, "no price of openai's gpt-6-luna after fine-tuning"),
    ],
)
def test_no_price_is_one_sentence(
    provider: str, model: str, day: datetime.date, tuned: bool, expected: str
) -> None:
    assert find_model_price(provider, model, day, tuned=tuned) is None
    sentence = explain_no_price("hosted", provider, model, day, tuned=tuned)
    assert expected in sentence
    assert sentence.endswith("give contender hosted a `price:` in the file, or run with --yes.")


def test_every_shipped_figure_says_where_it_is_from() -> None:
    files = sorted(SHIPPED_DIR.glob("*.yaml"))
    assert [file.stem for file in files] == ["accelerators", "azure", "openai", "together"]
    for part in load_shipped().files:
        for entry in (*part.prices, *part.hours, *part.models):
            assert entry.source is not None
            assert entry.source.startswith("https://")
            assert entry.retrieved is not None
        for dated in (*part.prices, *part.hours):
            assert dated.first > datetime.date(2022, 1, 1)
        for accelerator in part.accelerators:
            assert accelerator.source is not None
        for hour in part.hours:
            assert load_shipped().accelerator(hour.accelerator) is not None


@pytest.mark.parametrize(("model", "usd"), [("gpt-6-luna", "0.1"), ("gpt-6-sol", "2")])
def test_cache_writes_and_batches_of_the_newest_models(model: str, usd: str) -> None:
    """A quarter more than the input, and half of everything, since the day they came out."""
    price, given = priced("openai", model, datetime.date(2026, 9, 22)), Decimal(usd)
    assert price.cache_write_usd_per_million_tokens == given * 5 / 4
    assert price.batch_input_usd_per_million_tokens == given / 2
    assert price.batch_output_usd_per_million_tokens == given * 5 / 2
    assert find_model_price("openai", model, datetime.date(2026, 9, 21)) is None


def test_the_shipped_book_has_one_price_for_each_day() -> None:
    assert not [
        finding for finding in price_check.check_book(load_shipped(), TODAY) if finding.is_error
    ]


def test_check_finds_what_there_is_to_find(tmp_path: Path) -> None:
    def entry(model: str, first: str, until: str | None, **more: object) -> dict[str, object]:
        usd = {"input_usd_per_million_tokens": 1}
        return {"models": [model], "from": first, "until": until, **usd, **more}

    own = write(
        tmp_path,
        {
            "provider": "mine",
            "prices": [
                entry("twice", "2025-01-01", None),
                entry("twice", "2026-01-01", None),
                entry("holes", "2025-01-01", "2025-12-31"),
                entry("holes", "2026-02-01", None),
                entry("old", "2025-01-01", None, retrieved="2026-01-01"),
                entry("fine", "2025-01-01", "2025-12-31", retrieved="2025-01-01"),
                entry("fine", "2026-01-01", None, retrieved="2026-11-01"),
                entry("fine", "2026-01-01", None, variant="tuned"),
                entry("half", "2026-01-01", None, batch_input_usd_per_million_tokens=0.5),
            ],
            "models": [
                {"models": ["gone"], "ends": "2026-01-01"},
                {"models": ["going"], "ends": "2026-12-24", "replacement": "come"},
                {"models": ["staying"], "ends": "2028-01-01"},
            ],
        },
    )
    found = [
        f for f in price_check.check_book(build_price_book(own), TODAY) if f.what.startswith("mine")
    ]
    assert [(f.kind, f.what.split()[1].rstrip(",")) for f in found] == [
        ("overlap", "twice"),
        ("ended", "gone"),
        ("ends soon", "going"),
        ("gap", "holes"),
        *(("no batch price", model) for model in ("fine", "fine", "half", "holes", "old")),
        *(("no batch price", "twice"),) * 2,
        ("stale", "old"),
    ]
    assert "2026-01-01 to 2026-01-31" in found[3].sentence
    assert found[2].sentence.endswith("in 30 days; instead: come.")


def test_what_was_tuned_may_end_on_another_day() -> None:
    """On Azure tuned models outlive their bases by a year; at OpenAI both end together."""
    days = {
        (provider, model, tuned): end.ends
        for provider, model, tuned in (
            ("azure", "gpt-4.1-mini", True),
            ("azure", "gpt-4.1-mini", False),
            ("azure", "ft:gpt-4o-2024-08-06:me::1", False),
            ("openai", "gpt-4o-mini", True),
            ("openai", "gpt-4o-mini", False),
        )
        if (end := build_price_book().find_model_end(provider, model, tuned)) is not None
    }
    assert list(days.values()) == [
        datetime.date(2027, 10, 14),
        datetime.date(2026, 10, 14),
        datetime.date(2027, 10, 1),
        datetime.date(2027, 1, 14),
        datetime.date(2027, 1, 14),
    ]
    day = datetime.date(2026, 11, 30)
    price = find_model_price("azure", "gpt-4.1", day, tuned=True)
    assert price is not None
    assert (price.ends, price.training_ends) == (
        datetime.date(2027, 10, 14),
        datetime.date(2027, 4, 14),
    )
    ended = [
        f.sentence for f in price_check.check_book(build_price_book(), day) if f.kind == "ended"
    ]
    assert any(line.startswith("azure gpt-4o-mini") and ", base: ended" in line for line in ended)


@pytest.mark.parametrize(
    ("day", "sentence"),
    [
        ("2027-04-13", None),
        ("2027-04-14", "azure takes no new fine-tuning jobs for gpt-4.1-mini since 2027-04-14"),
        ("2027-10-14", "azure's gpt-4.1-mini ended on 2027-10-14"),
    ],
)
def test_a_resource_on_azure_is_azure(day: str, sentence: str | None) -> None:
    """Though its address is one's own; a server on this machine is nobody's."""
    where = {"provider": "azure", "base_url": "https://mine.openai.azure.com/openai/v1/"}
    facts = {"name": "bridge", "id": "hosted", "model": "gpt-4.1-mini"}
    found = explain_ended(
        HostedConfig(**facts, **where), build_price_book(), datetime.date.fromisoformat(day)
    )
    assert (found is None) if sentence is None else (sentence in str(found))
    here = HostedConfig(**facts, provider="azure", base_url="http://127.0.0.1:9/v1")
    assert explain_ended(here, build_price_book(), datetime.date(2028, 1, 1)) is None
