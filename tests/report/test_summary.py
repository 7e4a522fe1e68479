"""A run's table in a terminal."""

from __future__ import annotations

from made_results import contender, results, training

from tuneoff.cli.tables import render_results

ERROR = "contender broken: the base far/away was not found; give a folder, or go online"


def test_why_one_failed_stands_whole_below_the_table() -> None:
    made = [contender("lora", 0.5, training=training()), contender("broken", error=ERROR)]
    shown = render_results(results(made)).splitlines()
    (row,) = [line for line in shown if line.startswith("│ broken")]
    assert row.split("│")[-2].strip() == "failed"
    assert f"broken: {ERROR.removeprefix('contender broken: ')}" in shown
    assert not any(line.startswith("│") and "far/away" in line for line in shown)
