"""Every number on the page is one of results.json, as the page formats numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from made_run import make

from tuneoff.report import format as f
from tuneoff.report import write_report
from tuneoff.results import Results
from tuneoff.storage.run_dir import RunDir

ROOT = Path(__file__).parent.parent.parent
RUNS = sorted(path.parent for path in ROOT.glob("docs/results/*/results.json"))
NUMERAL = re.compile(r"\d[\d,]*(?:\.\d+)?")
# What stands in the page's own words, whatever the run.
STRUCTURAL = {
    "95": "the level of every interval",
    "256": "SHA-256",
    "1,000": "what the price of requests is for",
}
VOID = {"meta", "br", "input", "link", "img", "hr"}
# Axes have round numbers of their own, examples and settings their texts.
LEFT_OUT = {("section", "examples"), ("details", "settings")}


class Text(HTMLParser):
    """The text nodes of a page but for the parts above."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.nodes: list[str] = []
        self._inside: list[bool] = []  # of each open element, whether it is left out
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        known = dict(attrs)
        out = (
            tag in ("script", "style", "title")
            or (tag, known.get("id")) in LEFT_OUT
            or "role-axis" in (known.get("class") or "")
        )
        self._inside.append(out or (bool(self._inside) and self._inside[-1]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not (self._inside and self._inside[-1]):
            self.nodes.append(data)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every number and text of a JSON value, names of fields included, with where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield path, key
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    elif value is not None and not isinstance(value, bool):
        yield path, value


def numerals(text: str) -> list[str]:
    return [found.rstrip(",") for found in NUMERAL.findall(text)]


def shown(value: float) -> Iterator[str]:
    """A number in each of the page's ways."""
    yield from (f.score(value), f.score(value, share=False), f.interval(value, value))
    yield from (f.interval(value, value, share=False), f.difference(value))
    yield from (f.difference(value, share=False), f.p_value(value), f.count(value))
    yield from (f.number(value), f.seconds(value), f.large(value), f"{value:g}")
    yield from (f"{value:.0%}", f.percent(value).replace(".0%", "%"))
    if value >= 0:
        yield from (f.usd(value), f.size(round(value)))


def derived(results: Results) -> Iterator[str]:
    """The few numbers that the page reckons: how many there are of something, what the last step
    of a learning curve brought, how many times one training cost another."""
    yield f.count(len(results.database_sha256))
    for contender in results.contenders:
        yield from (f.count(len(s.by_seed)) for s in contender.scores.values())
        for before, after in pairwise(contender.learning_curve):
            yield from shown(after.value - before.value)
    usd = [c.cost.training_usd for c in results.contenders if c.cost.training_usd]
    yield from (f"{a / b:.1f}" for a in usd for b in usd)


def allowed(run: Path) -> set[str]:
    found: set[str] = set(STRUCTURAL)
    for path, value in leaves(json.loads((run / "results.json").read_text(encoding="utf-8"))):
        if path[:1] in (("recommendation",), ("settings",)) or path[-1:] in (("loss",), ("curve",)):
            continue  # its sentences are what is tested; settings, losses and curves are not shown
        texts: Iterable[str] = shown(value) if isinstance(value, int | float) else (str(value),)
        found.update(n for text in texts for n in numerals(text))
    found.update(n for text in derived(RunDir(run).results()) for n in numerals(text))
    return found


def foreign(page: str, known: set[str]) -> list[str]:
    return [
        f"{numeral} in {node.strip()!r}"
        for node in Text(page).nodes
        for numeral in numerals(node)
        if numeral not in known
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make(tmp_path_factory.mktemp("runs") / "made")
    write_report(run)
    return run.path


def test_every_numeral_of_a_made_up_run_is_one_of_its_results(made: Path) -> None:
    page = (made / "report.html").read_text(encoding="utf-8")
    assert len([n for node in Text(page).nodes for n in numerals(node)]) > 150
    assert foreign(page, allowed(made)) == []


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_every_numeral_of_a_real_run_is_one_of_its_results(run: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes((run / "results.json").read_bytes())
    html, _ = write_report(RunDir(tmp_path))
    assert foreign(html.read_text(encoding="utf-8"), allowed(tmp_path)) == []


def test_a_numeral_from_elsewhere_is_found(made: Path) -> None:
    page = (made / "report.html").read_text(encoding="utf-8")
    known = allowed(made)
    value = f.score(RunDir(made).results().contenders[0].scores["execution_accuracy"].value)
    assert value in page
    other = next(f"{n / 10:.1f}" for n in range(999) if f"{n / 10:.1f}" not in known)
    assert len(foreign(page.replace(value, f"{other}%"), known)) >= 3
