"""The seed experiment's own cost table comes out of the figures that it reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import Cli

import tuneoff
from tuneoff.storage.run_dir import RunDir

FILE = Path(__file__).parent.parent.parent / "examples" / "seed" / "results-2023.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Carried out without data, network or key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TUNEOFF_DATA", raising=False)
        patch.delenv("OPENAI_API_KEY", raising=False)
        run = RunDir(tmp_path_factory.mktemp("seed") / "run")
        tuneoff.run(tuneoff.load(FILE), run.path)
    return run


def test_the_article_s_costs(run: RunDir) -> None:
    costs = {c.name: c.cost for c in run.results().contenders}
    assert {name: cost.training_usd for name, cost in costs.items()} == {
        "spider-gpt-3.5": 11.99,
        "spider-codellama-34b-lora": 3.32,
        "viggo-gpt-3.5": 26.05,
        "viggo-codellama-34b-lora": 4.27,
    }
    # Each from the tokens or hours beside it, to a cent.
    bases = {name: cost.training_basis or "" for name, cost in costs.items()}
    for name, basis in bases.items():
        worked_out = float(basis.rsplit("= $", 1)[1])
        assert worked_out == pytest.approx(costs[name].training_usd, abs=0.01), basis
    assert bases["viggo-codellama-34b-lora"] == "reported; 9 h × $0.475/h (A40) = $4.275"


def test_the_article_s_ratios_are_in_the_report(run: RunDir) -> None:
    html, markdown = run.path / "report.html", run.path / "report.md"
    for expected in (
        "cost 3.6 times as much as spider-codellama-34b-lora: $11.99 against $3.32.",
        "cost 6.1 times as much as viggo-codellama-34b-lora: $26.05 against $4.27.",
    ):
        assert expected in html.read_text()
        assert expected in markdown.read_text().replace("\\", "")
    table = markdown.read_text().split("## Money")[1]
    assert "| viggo-gpt-3.5 | \\$26.05 |" in table
    assert "## Scores" not in markdown.read_text(), "nothing was scored"


def test_no_data_is_read_and_nothing_chosen(run: RunDir) -> None:
    results = run.results()
    assert results.split_sizes == {"train": 0, "validation": 0, "test": 0}
    assert results.recommendation.choice is None
    assert {c.place for c in results.contenders} == {"own", "provider"}


def test_it_is_checked_and_planned(cli: Cli) -> None:
    code, out, _ = cli("check", FILE)
    assert (code, "every contender is figures" in out) == (0, True)
    assert cli("plan", FILE)[0] == 0
