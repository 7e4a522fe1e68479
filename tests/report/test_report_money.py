"""The money section: what is not known says why, planned stands beside actual, break-even has its
table and its curve."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_results import METRIC, contender, results, training

from tuneoff.report import format as f
from tuneoff.report import write_report
from tuneoff.report.charts.cost import build_break_even_chart
from tuneoff.report.money import MAX_PAIRS, build_money_view
from tuneoff.results import (
    AllTrainings,
    BreakEven,
    ContenderResult,
    Cost,
    CurvePair,
    Results,
    Sensitivity,
)
from tuneoff.storage.run_dir import RunDir

NAME = "not priced: name hardware"
OWN = Cost(1.25, None, "2.50 h × $0.5/h", 0.01, 0.0123, 365.0, 0.000015, "reserved: $0.5/h")
MINI = Cost(11.99, 12.01, "3,996,667 tokens × $3 per million", 0.4, 0.162, 1.0, None, "122 in")


def crossing(own: str = "lora", hosted: str = "mini", lasting: float | None = 2e6) -> BreakEven:
    steps = (1e5, 1e6, 2e6, 2.5e6, 2.5e6 + 1, 1e7)
    return BreakEven(
        own, hosted, lasting, 0.5, lasting,
        curve=tuple(
            CurvePair(n, 365.0 * (1 + (n > 2.5e6)), n * 0.0001825) for n in steps
        ),
        sensitivity=(
            Sensitivity("utilization", 0.25, 3e6, 2e6),
            Sensitivity("usd_per_hour", 2.0, None, None),
            Sensitivity("hosted_usd_per_request", 0.5, None, 3.6e6, 4.8e6),
        ),
    )  # fmt: skip


def run_of(**fields: object) -> Results:
    contenders = [
        contender("lora", 0.8, place="own", training=training(), cost=OWN),
        contender("mini", 0.7, id="hosted", place="provider", training=training(), cost=MINI),
        contender("full", 0.6, place="own", training=training(), cost=Cost(serving_basis=NAME)),
        contender(
            "half", 0.5, cost=Cost(training_usd=2.0, serving_basis="not priced: nobody knows")
        ),
        contender("broken", error="no memory"),
    ]
    return results(contenders, **fields)


def rows_of(found: Results) -> dict[str, list[tuple[str, int]]]:
    return {row["name"]: row["cells"] for row in build_money_view(found, found.contenders)["rows"]}


def test_what_is_not_priced_says_so_instead_of_zero() -> None:
    rows = rows_of(run_of())
    assert rows["full"] == [(NAME, 6)]
    assert rows["half"] == [("$2.00", 1), ("–", 1), ("–", 1), ("not priced: nobody knows", 3)]
    assert "broken" not in rows
    assert [text for text, _ in rows["mini"]] == [
        "$11.99", "$12.01", "$0.40", "$0.16", "$1.00", "–",
    ]  # fmt: skip
    nothing = results([contender("full", 0.6, cost=Cost(serving_basis=NAME))])
    found = build_money_view(nothing, nothing.contenders)
    assert (found["columns"], found["rows"][0]["cells"]) == ([], [(NAME, 1)])
    assert found["load"] == ""


def test_all_trainings_have_a_column_where_there_are_several() -> None:
    many = contender("lora", 0.8, cost=OWN, all_trainings=AllTrainings(3, 9.0, 1.0, 4.5))
    found = build_money_view(results([many]), [many])
    assert found["columns"][-1] == "all trainings"
    assert found["rows"][0]["cells"][-1] == ("$4.50", 1)


def test_break_even_is_told_and_otherwise() -> None:
    found = build_money_view(run_of(break_even=(crossing(),)), ())["pays"]
    assert found["pairs"] == [("lora", "mini")]
    assert found["rows"] == [
        ("as measured", ["2 million"]),
        ("used to 25% of what it can do", ["2 million; for good 3 million"]),
        ("an hour at twice the price", ["never"]),
        ("the provider at half the price", ["3.6 million to 4.8 million"]),
    ]
    assert found["sentences"] == [
        "From 2 million requests a month on, owning lora is cheaper than mini (at 50% utilisation)."
    ]


def test_many_pairs_are_cut_the_nearest_first() -> None:
    pairs = [crossing("lora", f"m{n}", None if n == 3 else 1e6 * (9 - n)) for n in range(8)]
    found = build_money_view(run_of(break_even=tuple(pairs)), ())["pays"]
    assert [hosted for _, hosted in found["pairs"]] == ["m7", "m6", "m5", "m4", "m2"]
    assert found["left_out"] == 8 - MAX_PAIRS


def test_the_chart_has_both_curves_and_a_ring() -> None:
    found = run_of(break_even=(crossing(),))
    spec = build_break_even_chart(found, found.contenders)
    assert spec is not None
    sets = list(spec["datasets"].values())
    lines = next(rows for rows in sets if "contender" in rows[0])
    assert {row["contender"] for row in lines} == {"lora", "mini"}
    assert (1e7, 730.0) in [(r["requests"], r["usd"]) for r in lines if r["contender"] == "lora"]
    assert min(row["usd"] for row in lines) >= 365 / 20, "nothing is drawn below the axis"
    (ring,) = next(rows for rows in sets if "pair" in rows[0])
    assert (ring["requests"], ring["usd"]) == (2e6, 365.0)
    never = run_of(break_even=(crossing(lasting=None),))
    assert build_break_even_chart(never, never.contenders) is not None
    assert build_break_even_chart(run_of(), ()) is None


@pytest.fixture
def written(tmp_path: Path) -> tuple[str, str]:
    run = RunDir(tmp_path / "run")
    run.write_results(run_of(break_even=(crossing(),), judge_usd=0.42))
    html, markdown = write_report(run)
    assert (run.charts / "break_even.svg").is_file()
    return html.read_text(), markdown.read_text().replace("\\", "")


@pytest.mark.parametrize(
    "expected",
    [
        NAME,
        "training, planned",
        "$12.01",
        "3,996,667 tokens × $3 per million.",
        "Training mini cost 9.6 times as much as lora: $11.99 against $1.25.",
        "When does owning pay?",
        "2 million; for good 3 million",
        "The judge&#39;s answers cost $0.42|The judge's answers cost $0.42",
        "USD a month|What a month costs",
    ],
)
def test_both_formats_say_it(written: tuple[str, str], expected: str) -> None:
    for page in written:
        assert any(each in page for each in expected.split("|"))


def test_markdown_rows_are_as_wide_as_their_head(written: tuple[str, str]) -> None:
    table = written[1].split("## Money")[1].split("\n\n")[1]
    widths = {len(re.findall(r"\|", line)) for line in table.splitlines()}
    assert widths == {8}


@pytest.mark.parametrize(
    ("usd", "shown"),
    [(0.0000012345, "$0.0000012"), (1e-9, "$0.000000001"), (0.0042, "$0.0042"), (0.1, "$0.10"),
     (1234.5, "$1,234.50"), (0.0, "$0.00")],
)  # fmt: skip
def test_small_money(usd: float, shown: str) -> None:
    assert f.usd(usd) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (7.26, "7.3"), (843.0, "840"), (12_345.0, "12,000"), (999_999.0, "1 million"),
     (3_240_000.0, "3.2 million"), (2.56e9, "2.6 billion"), (None, "–")],
)  # fmt: skip
def test_large_numbers(value: float | None, shown: str) -> None:
    assert f.large(value) == shown


def test_a_failed_contender_has_no_money_row() -> None:
    failed: ContenderResult = replace(contender("x", cost=OWN), error="lost")
    assert build_money_view(results([failed]), [failed])["rows"] == []
    assert METRIC not in failed.scores
