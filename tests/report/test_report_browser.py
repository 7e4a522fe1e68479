"""The page in headless Chromium: what `docs/check_report.py` asks of it, that this script finds
what is wrong, and that nothing a model said is more than text."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from browsing import chromium
from made_results import METRIC, contender, results
from made_run import make

from tuneoff.records import Prediction, ScoredRow, to_dict
from tuneoff.report import write_report
from tuneoff.storage.files import append_lines
from tuneoff.storage.run_dir import RunDir

ROOT = Path(__file__).parent.parent.parent
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
EVIL = {
    "script": "</pre><script>window.evil = 1; alert(1)</script>",
    "style": "</style></textarea></title><style>body { display: none }</style>",
    "image": "<img src=http://127.0.0.1:9/x onerror=alert(2)><svg/onload=alert(3)>",
    "link": "<a href='javascript:alert(4)'>here</a> javascript:alert(5) http://127.0.0.1:9/y",
    "controls": "\x00\x07\x1b[31m\x7f\x85\ud800",
    "turned": "abc\u202edef\u202c\u2066ghi\u2069\u200f",
    "attribute": "\" onmouseover=alert(6) x='` --> ]]> {{ 7 * 7 }} {% raw %}",
    "megabyte": "<b>" + "many words " * 95_000,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "docs" / "check_report.py"
    pytest.importorskip("playwright.sync_api")
    spec = importlib.util.spec_from_file_location("check_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make(tmp_path_factory.mktemp("runs") / "made")
    return write_report(run)[0]


def test_the_page_has_nothing_wrong(browser: Any, script: ModuleType, report: Path) -> None:
    assert script.check(browser, report, None, AXE) == []


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """axe-core, from this folder or as npm installs it."""
    if AXE.is_file():
        return AXE
    if shutil.which("npm") is None:
        pytest.skip("there is no npm here")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "axe-core"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install axe-core here: {done.stderr.strip()[-200:]}")
    return folder / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"size": (390, 844)}])
def test_axe_finds_nothing_serious(
    browser: Any, script: ModuleType, report: Path, axe: Path, options: dict[str, Any]
) -> None:
    with script.opened(browser, report, [], "", **options) as page:
        script.scrolled(page)
        assert script.audited(page, axe, "") == []


@pytest.mark.slow
def test_axe_finds_what_is_serious(
    browser: Any, script: ModuleType, report: Path, axe: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "report.html"
    broken.write_text(report.read_text().replace("<h2>Scores</h2>", "<h2><button></button></h2>"))
    with script.opened(browser, broken, [], "") as page:
        assert any("button-name" in found for found in script.audited(page, axe, ""))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("return up ? order : -order;", "return 0;", "sorting: table 0"),
        ('if (wrong !== "" && card.answers[wrong][0]) return false;', "", "filter-wrong"),
        ("return card.text.includes(text);", "return true;", "search"),
        ("more.hidden = found.length <= visible.size;", "more.hidden = true;", "not all are shown"),
        ("<h2>Scores</h2>", "<h2 style='width:900px'>Scores</h2>", "phone: wider"),
        ("<h2>Scores</h2>", "<h2>Scores</h2><img src='x.png'>", "asks for"),
        ("--paper: #fff; --ink: #000;", "--paper: #111; --ink: #fff;", "print: a dark"),
    ],
)
def test_the_script_finds_what_is_wrong(
    browser: Any, script: ModuleType, report: Path, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    page = report.read_text(encoding="utf-8")
    assert old in page
    # The page's policy would not run a changed script, nor load a picture.
    page = page.replace('http-equiv="Content-Security-Policy"', 'name="none"')
    broken = tmp_path / "report.html"
    broken.write_text(page.replace(old, new), encoding="utf-8")
    assert any(problem in found for found in script.check(browser, broken, None, None))


def test_what_a_model_said_is_text_and_nothing_else(browser: Any, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.write_examples("test", [_hostile(i, text) for i, text in enumerate(EVIL.values())])
    for name, right in (("one", [False] * len(EVIL)), ("two", [True] * len(EVIL))):
        for i, text in enumerate(EVIL.values()):
            _answer(run, name, i, text if name == "one" else "fine", right[i])
    run.write_results(results([contender("one", 0.0), contender("two", 1.0)]))
    html, _ = write_report(run)
    assert html.stat().st_size < 3_000_000

    seen: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda said: seen.append(said.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda sent: seen.append(sent.url))
    page.goto(html.as_uri())
    for each in page.locator(".example summary, .example pre").all():
        each.hover(force=True)
        each.click(force=True)
    assert seen == [html.as_uri()]
    assert page.evaluate("window.evil") is None
    allowed = "h3,span,dl,dt,dd,pre,details,summary,mark,del"
    others = page.locator(f".example :not({allowed})")
    assert others.evaluate_all("(all) => all.map((each) => each.outerHTML)") == []
    assert (
        page.locator(".example [onerror], .example [onload], .example [onmouseover]").count() == 0
    )
    shown = page.locator("#examples-list").text_content()
    for name in ("script", "style", "image", "link", "attribute"):
        assert shown.count(EVIL[name]) == 3, name  # as input, as verdict, as answer
    assert "⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[31m⟨U+007F⟩⟨U+0085⟩⟨U+D800⟩" in shown
    assert "abc⟨U+202E⟩def⟨U+202C⟩⟨U+2066⟩ghi⟨U+2069⟩⟨U+200F⟩" in shown
    assert "characters in all)" in shown
    assert page.locator("body").evaluate("(body) => getComputedStyle(body).display") == "block"
    context.close()


def _hostile(i: int, text: str) -> dict[str, object]:
    return {"id": f"e{i}", "inputs": {"question": text}, "completion": "fine", "meta": {}}


def _answer(run: RunDir, name: str, i: int, text: str, right: bool) -> None:
    folder = run.contender(name)
    folder.append_predictions([Prediction(f"e{i}", text)])
    row = ScoredRow(f"e{i}", {METRIC: right}, "right" if right else text)
    append_lines(folder.path / "scores.jsonl", [to_dict(row)])
