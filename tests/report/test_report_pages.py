"""report.html and report.md: complete, self-contained, and text stays text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_results import METRIC, contender, pair, results, score, training, write_answers
from markdown_it import MarkdownIt

from tuneoff.errors import RunDirectoryError
from tuneoff.records import LossRow
from tuneoff.report import write_report
from tuneoff.results import Cost, Recommendation
from tuneoff.storage.run_dir import RunDir


class Page(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.shown: list[str] = []
        self._hidden = False
        self.feed(source)
        self.text = " ".join(" ".join(self.shown).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.shown.append(data)


@pytest.fixture(scope="module")
def written(run: RunDir) -> tuple[Path, Path]:
    return write_report(run)


@pytest.fixture(scope="module")
def page(written: tuple[Path, Path]) -> Page:
    return Page(written[0].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def markdown(written: tuple[Path, Path]) -> str:
    return written[1].read_text(encoding="utf-8")


def test_files_are_where_the_design_says(run: RunDir, written: tuple[Path, Path]) -> None:
    assert written == (run.path / "report.html", run.path / "report.md")
    for name in ("scores", "validation_loss"):
        root = ElementTree.parse(run.charts / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_page_is_small_and_loads_nothing(written: tuple[Path, Path], page: Page) -> None:
    assert written[0].stat().st_size < 3_000_000
    values = dict.fromkeys(name for name, _ in page.attributes)
    assert not {"src", "href", "srcset", "data"} & set(values)
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    policy = next(v for k, v in page.attributes if k == "content" and v and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    script_sources = policy.split("script-src ")[1].split(";")[0]
    assert re.fullmatch(r"'sha256-[\w+/=]+' 'sha256-[\w+/=]+'", script_sources)
    style = written[0].read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    "expected",
    [
        "Use lora.",
        "lora: 81.2%.",
        "81.2%",
        "[76.2, 86.2]",
        "33.3%",
        "40.6%",
        "1,650,321",
        "532,110",
        "2 min 14 s",
        "734 MiB",
        "converged",
        "LoRA r 16, all linear layers",
        "41 ms",
        "24.3",
        "19.8",
        "lora is better than few-shot by 47.9 points [43.5, 52.3], p = 0.0003",
        "unknown column",
        "train 6,400, validation 20, test 40",
        "tuneoff run bakeoff.yaml",
        "c" * 64,
    ],
)
def test_numbers_are_in_both_formats(page: Page, markdown: str, expected: str) -> None:
    assert expected in page.text
    assert expected in markdown.replace("\\", "")


def test_contenders_stand_best_first_and_the_failed_one_says_why(page: Page) -> None:
    scores = page.text.split("Scores")[1]
    assert scores.index("lora") < scores.index("few-shot") < scores.index("hosted")
    assert "Failed: openai refused the key | <b>401</b>." in page.text


def test_hostile_text_is_text_in_html(page: Page, written: tuple[Path, Path]) -> None:
    assert "<script>alert(1)</script>" in page.text
    assert page.tags.count("script") == 5  # three charts' data, the bundle, our own
    assert not {"b", "i", "img"} & set(page.tags)
    assert not set("\x00\x1b\u202e") & set(written[0].read_text(encoding="utf-8"))
    assert "⟨U+202E⟩" in page.text


def test_hostile_text_is_text_in_markdown(markdown: str) -> None:
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    rendered = Page(html)
    assert "<script>alert(1)</script>" in rendered.text
    assert not {"script", "b", "i"} & set(rendered.tags)
    assert {v for k, v in rendered.attributes if k == "src"} == {
        "charts/scores.svg",
        "charts/cost.svg",
        "charts/validation_loss.svg",
    }
    assert "heading | cell" in rendered.text
    assert html.count("<h1>") == 1  # none of the answers' "# heading"
    assert not set("\x00\x1b\u202e") & set(markdown)


def test_markdown_tables_are_rectangular(markdown: str) -> None:
    fences = re.compile(r"^(`{3,})\w*\n.*?^\1$", re.S | re.M)
    for block in re.findall(r"(?:^\|.*\n)+", fences.sub("", markdown), re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_report_again_is_the_same(run: RunDir, written: tuple[Path, Path]) -> None:
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_report(run)] == before


def test_without_loss_or_answers_the_charts_are_left_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    reported = contender("paper", 0.8, id="recorded")
    reported = replace(reported, scores={METRIC: replace(score(0.8), low=None, high=None, n=0)})
    broken = contender("broken", error="no memory")
    run.write_results(results([broken], recommendation=Recommendation(None, ("Nothing scored.",))))
    html, md = write_report(run)
    assert "No contender can be recommended." in Page(html.read_text()).text
    assert html.stat().st_size < 30_000  # no chart, no script
    assert "![" not in md.read_text()
    assert not list(run.charts.glob("*"))

    run.write_results(results([broken, reported]))
    html, md = write_report(run)
    assert (run.charts / "scores.svg").exists()
    assert not (run.charts / "validation_loss.svg").exists()
    assert "validation_loss" not in md.read_text()
    run.write_results(results([broken]))
    write_report(run)
    assert not (run.charts / "scores.svg").exists(), "a chart of an older report stays behind"


def test_money_and_odd_losses(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    diverged = (LossRow(1, 8, 1.0, 0.0), LossRow(2, 16, 1.0, float("nan")))
    run.write_results(
        results(
            [
                contender(
                    "a", 0.5, training=training(), loss=diverged, cost=Cost(training_usd=11.99)
                ),
                contender("b", 1.0, cost=Cost(serving_usd_per_1k_requests=0.0042)),
            ],
            comparisons=(pair("a", "b", "tie", -0.01, 0.41),),
        )
    )
    text = Page(write_report(run)[0].read_text()).text
    assert "$11.99" in text
    assert "$0.0042" in text
    assert "No difference can be shown between a and b: −1.0 points [−5.4, 3.4], p = 0.41" in text


def test_chat_turns_and_a_single_contender(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "x" * 9_000}]
    run.write_examples(
        "test", [{"id": "e0", "inputs": {"messages": turns}, "completion": "yes", "meta": {}}]
    )
    write_answers(run, "only", [False], wrong="")
    run.write_results(results([contender("only", 0.0)]))
    html, md = write_report(run)
    text = Page(html.read_text()).text
    assert "Wrong answers" in md.read_text()
    assert "tell the contenders apart" not in text
    assert "Be short." in text
    assert "(empty)" in text
    assert "… (9,000 characters in all)" in text


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"no results\.json"):
        write_report(RunDir(tmp_path))
