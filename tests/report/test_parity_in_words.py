"""`migrate --parity`: what a run shows of open models against the captured one, from real runs of
recorded answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tuneoff
from tuneoff.bakeoff.migration import judge_exits, summarize_exits
from tuneoff.errors import DataError


def carried_out(folder: Path, count: int, hosted: int, own: int) -> Path:
    """A run of two recorded contenders, of whose answers so many, the first ones, are right."""
    for split, first, n in (("train", 5000, 2), ("validation", 6000, 2), ("test", 0, count)):
        lines = (
            {"messages": [{"role": "user", "content": f"Is {first + i} a number?"},
                          {"role": "assistant", "content": "yes"}]}
            for i in range(n)
        )  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, right in (("hosted", hosted), ("own", own)):
        rows = (
            {"id": f"test-{i}", "prediction": "yes" if i <= right else "no"}
            for i in range(1, count + 1)
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "b.yaml"
    file.write_text(
        "name: moved\ntask: {id: chat, train: train.jsonl, validation: validation.jsonl, "
        "test: test.jsonl}\ncontenders:\n"
        "  - {name: hosted, id: recorded, model: m, predictions: hosted.jsonl}\n"
        "  - {name: own, id: recorded, model: n, predictions: own.jsonl}\n"
    )
    tuneoff.run(tuneoff.load(file), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("count", "hosted", "own", "verdict", "said"),
    [
        # The same answers, but of so few examples.
        (8, 6, 6, "not shown", "Whether own is as good as the hosted model cannot be told"),
        (400, 300, 300, "matches", "own is the same as the hosted model within 3 points"),
        (400, 300, 298, "matches", "own is the same as the hosted model within 3 points"),
        (400, 300, 280, "worse", "own is worse than the hosted model by 5.0 points ["),
        (400, 300, 294, "matches", "own is worse than the hosted model, by less than 3 points"),
        (400, 280, 300, "better", "own is better than the hosted model by 5.0 points ["),
        (60, 50, 49, "not shown", "; about 210 examples of this kind would show that"),
    ],
)
def test_a_match_takes_enough_examples(
    tmp_path: Path, count: int, hosted: int, own: int, verdict: str, said: str
) -> None:
    (found,) = judge_exits(carried_out(tmp_path, count, hosted, own))
    assert found["verdict"] == verdict
    assert said in found["sentence"]
    assert "-0.0" not in found["sentence"]
    assert found["low"] <= found["difference"] <= found["high"]


def test_a_model_that_gets_nothing_right_is_nothing_to_match(tmp_path: Path) -> None:
    run = carried_out(tmp_path, 400, 0, 0)
    (found,) = judge_exits(run)
    assert found["verdict"] == "not shown"
    assert "none of the hosted model's answers is right" in found["sentence"]
    stored = json.loads((run / "results.json").read_text())
    stored["settings"]["migrating_from"] = "own"
    (run / "results.json").write_text(json.dumps(stored))
    (found,) = judge_exits(run)
    assert found["sentence"].startswith("Whether hosted is as good as own cannot be told: ")


def test_a_captured_contender_that_failed_is_said(tmp_path: Path) -> None:
    run = carried_out(tmp_path, 20, 10, 10)
    stored = json.loads((run / "results.json").read_text())
    stored["contenders"][0]["error"] = "its answers have other ids"
    (run / "results.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match="hosted failed: its answers have other ids"):
        judge_exits(run)


def changed(run: Path, own: dict[str, Any], **settings: Any) -> tuple[dict[str, Any], str]:
    """What is said of the other contender, and of all exits, with other facts about it."""
    results = run / "results.json"
    before = results.read_text()
    stored = json.loads(before)
    stored["contenders"][1] |= own
    stored["settings"] |= settings
    results.write_text(json.dumps(stored))
    (row,) = rows = judge_exits(run)
    results.write_text(before)
    return row, summarize_exits(rows)


def test_each_exit_says_what_it_costs_and_until_when_it_lasts(tmp_path: Path, cli: Any) -> None:
    run = carried_out(tmp_path, 400, 300, 298)
    priced = {"serving_usd_per_1k_requests": 0.5, "fixed_usd_per_month": 10.0}
    for own, settings, month, said in (
        ({"place": "own"}, {}, None, "No price known; it has no end."),
        ({"cost": {"serving_basis": "not priced: name hardware"}}, {}, None,
         "No price known (name hardware); no end date is known."),
        ({"cost": priced, "ends": "2999-01-01"}, {"serving": {"requests_per_month": 100_000}}, 50.0,
         "It costs $50.00 a month at 100,000 requests; it ends on 2999-01-01."),
        ({"cost": priced, "place": "own"}, {}, 10.0, "It costs $10.00 a month, one machine"),
        ({"cost": priced}, {}, None, "It costs $0.50 for 1,000 requests and $10.00 a month beside"),
        ({"cost": {**priced, "unit_prices": {"hosting_usd_per_hour": 1.7}}}, {}, None,
         "Hosting costs $1,241.00 a month, and no price of its tokens is known;"),
    ):  # fmt: skip
        row, summary = changed(run, own, **settings)
        assert said in row["sentence"]
        assert (row["holds"], row["outcome"], row["usd_per_month"]) == (True, "same", month)
        assert summary == "By exact match, 1 of 1 exits holds: own."
    row, summary = changed(run, {"ends": "2020-01-01"})
    assert (row["verdict"], row["holds"]) == ("matches", False)
    assert "it ended on 2020-01-01" in row["sentence"]
    assert summary == "By exact match, the only exit does not hold."
    row, _ = changed(run, {"error": "contender own: its deployment is gone."})
    assert (row["sentence"], row["verdict"]) == ("own failed: its deployment is gone.", "failed")
    assert cli("migrate", "--parity", run, "--fail-if-worse")[0] == 0
    # A margin of the run's own counts where none is given.
    row, _ = changed(run, {})
    stored = json.loads((run / "results.json").read_text())
    stored["requirements"]["margin_points"] = 0.5
    (run / "results.json").write_text(json.dumps(stored))
    assert (row["verdict"], judge_exits(run)[0]["verdict"]) == ("matches", "not shown")
    assert judge_exits(run, 0.03)[0]["verdict"] == "matches"
    assert cli("migrate", "--parity", run, "--fail-if-worse")[0] == 1


def test_the_cheapest_that_holds_is_named() -> None:
    def row(name: str, holds: bool, usd: float | None) -> dict[str, Any]:
        return {"name": name, "metric": "exact_match", "holds": holds, "usd_per_month": usd}

    for rows, said in (
        ([row("a", True, 12.0), row("b", True, 9.0), row("c", False, 1.0)],
         "2 of 3 exits hold: a and b. The cheapest of them is b: $9.00 a month."),
        ([row("a", True, 12.0), row("b", True, None)],
         "2 of 2 exits hold: a and b. The cheapest of those whose cost is known is a: $12.00"),
        ([row("a", False, None), row("b", False, None)], "none of 2 exits holds."),
    ):  # fmt: skip
        assert said in summarize_exits(rows)
    assert "no other contender" in summarize_exits([])
