"""Writes the report: view, examples and charts rendered with the two templates.

Text from models, data and files is never markup. In HTML, jinja2's autoescape ensures that; a
content security policy runs only the page's own two scripts, by their hashes, and loads nothing
from anywhere. In Markdown `finalize` runs on every value that a template
shows, and escapes it for a line or a table cell, as autoescape does in HTML.
`format_code` and `format_fence` show text literally and return `Markup`, which `finalize` passes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneoff.report import example_browser
from tuneoff.report import format as f
from tuneoff.report.charts import base, learning_curve
from tuneoff.report.charts.breakdown import build_breakdown_chart, has_intervals
from tuneoff.report.charts.breakdown import list_chart_keys as breakdown_keys
from tuneoff.report.charts.cost import build_break_even_chart, build_cost_chart, select_comparable
from tuneoff.report.examples import FIRST_EXAMPLES, AnsweredExamples
from tuneoff.report.tables import render_csv
from tuneoff.report.view import View, build_view, rank_contenders
from tuneoff.results import ContenderResult, Results
from tuneoff.storage.files import write_text
from tuneoff.storage.run_dir import RunDir

STYLES = ("report.css", "browser.css")
Draw = Callable[[bool], base.Spec | None]


def write_pages(run: RunDir, with_examples: bool) -> tuple[Path, Path]:
    """Write charts, Markdown, HTML and CSV; return the paths of the HTML and the Markdown."""
    results = run.results()
    contenders = rank_contenders(results)
    drawings = _list_drawings(results, contenders)
    drawn = _write_charts(run, drawings)
    examples = example_browser.load_answered(run, results) if with_examples else None
    content = build_view(results) | {"breakdowns": breakdown_keys(contenders)}
    first = example_browser.build_first_examples(examples, FIRST_EXAMPLES) if examples else []
    md, html = run.path / "report.md", run.path / "report.html"
    write_text(md, render_markdown(content | {"charts": drawn, "examples": first}))
    write_text(run.path / "results.csv", render_csv(results.contenders))
    environment = _build_environment(autoescape=True, finalize=_clean_value)
    cards = _build_browser(environment, examples, contenders)
    content["browser"] = cards
    write_text(html, _render_html(environment, content, results, contenders, drawings))
    example_browser.write_all_examples(run, examples, len(cards["cards"]))
    return html, md


def _write_charts(run: RunDir, drawings: Mapping[str, Draw]) -> set[str]:
    """Write charts/NAME.svg; return the names, and remove charts that have no data now."""
    specs = {name: draw(True) for name, draw in drawings.items()}
    drawn = {name: spec for name, spec in specs.items() if spec is not None}
    for path in run.charts.glob("*.svg"):
        if path.stem not in drawn:
            path.unlink()
    for name, spec in drawn.items():
        write_text(run.charts / f"{name}.svg", base.render_svg(spec))
    return set(drawn)


def _build_browser(
    environment: Any, examples: AnsweredExamples | None, contenders: Sequence[ContenderResult]
) -> View:
    """Return the example browser with its cards rendered."""
    from markupsafe import Markup

    if examples is None:
        return example_browser.build_empty_browser()
    template, color = environment.get_template("example.html.j2"), base.assign_colors(contenders)
    content = example_browser.build_browser(
        examples, lambda card: str(template.render(card, color=color))
    )
    return content | {"cards": [Markup(card) for card in content["cards"]]}


def render_markdown(content: Mapping[str, Any]) -> str:
    """Return the report as Markdown; `charts` in the content are the names of existing files."""
    environment = _build_environment(autoescape=False, finalize=finalize)
    environment.filters |= {"code": format_code, "fence": format_fence}
    return str(environment.get_template("report.md.j2").render(content))


def _render_html(
    environment: Any,
    content: Mapping[str, Any],
    results: Results,
    contenders: Sequence[ContenderResult],
    drawings: Mapping[str, Draw],
) -> str:
    """Return the report as one HTML page that loads nothing."""
    from markupsafe import Markup

    drawn = {}
    for name, draw in drawings.items():
        still = draw(False)
        if still:
            live = Markup(_dump_script_json(base.make_fluid(still)))
            drawn[name] = {"svg": Markup(base.render_svg(still)), "spec": live}
    scripts = [*([base.load_javascript()] if drawn else []), _read_source("report.js")]
    paired = {name for pair in results.break_even for name in (pair.own, pair.hosted)}
    shown = [c for c in contenders if not c.error]
    template = environment.get_template("report.html.j2")
    return str(
        template.render(
            content,
            charts=drawn,
            color=base.assign_colors(contenders),
            with_curve=[c.name for c in shown if c.learning_curve],
            with_loss=[c.name for c in contenders if any(r.validation is not None for r in c.loss)],
            with_month=[c.name for c in contenders if c.name in paired],
            with_cost=[
                c.name for c in select_comparable(contenders) if results.primary_metric in c.scores
            ],
            with_groups=[c.name for c in shown if c.breakdowns],
            with_intervals=lambda key: has_intervals(contenders, key, results.primary_metric),
            style=Markup("".join(_read_source(name) for name in STYLES)),
            scripts=[Markup(script) for script in scripts],
            hashes=[_compute_csp_hash(script) for script in scripts],
        )
    )


def _list_drawings(results: Results, contenders: Sequence[ContenderResult]) -> dict[str, Draw]:
    """Return the charts by name, each with a legend of its own or without."""
    metric = results.primary_metric

    def by(key: str) -> Draw:
        return lambda legend: build_breakdown_chart(contenders, key, metric, legend=legend)

    return {
        "scores": lambda _: base.build_score_chart(contenders, metric),
        "cost": lambda legend: build_cost_chart(contenders, metric, legend=legend),
        **{name: by(key) for name, key in breakdown_keys(contenders).items()},
        "learning_curve": lambda legend: learning_curve.build_curve_chart(
            contenders, metric, legend=legend
        ),
        "validation_loss": lambda legend: base.build_loss_chart(contenders, legend=legend),
        "break_even": lambda legend: build_break_even_chart(results, contenders, legend=legend),
    }


def _build_environment(autoescape: bool, finalize: Any) -> Any:
    """Return the jinja2 environment of the templates."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("tuneoff.report", "templates"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _clean_value(value: Any) -> Any:
    """Return a shown value, with invisible characters made visible in all but our own markup."""
    return f.clean(value) if type(value) is str else value


def _read_source(name: str) -> str:
    """Return the text of a style sheet or a script."""
    from importlib.resources import files

    return files("tuneoff.report").joinpath("templates", name).read_text(encoding="utf-8")


def _dump_script_json(value: Any) -> str:
    """Return JSON for a <script> element: nothing in it can end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _compute_csp_hash(script: str) -> str:
    """Return the hash of a script for the content security policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_PUNCTUATION = re.compile(r"([\\`*_{}\[\]#~|$!])")


def escape(text: str) -> str:
    """Return one line of text that no Markdown reader takes for markup."""
    line = " ".join(f.clean(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _PUNCTUATION.sub(r"\\\1", line)
    # Where a report is pasted, bare addresses would become links, and @names would notify people.
    return line.replace("://", ":&#47;/").replace("www.", "www&#46;").replace("@", "&#64;")


def finalize(value: Any) -> Any:
    """Return a shown value, escaped if it is a plain string (jinja2's hook)."""
    return escape(value) if type(value) is str else value


def format_code(text: str) -> Any:
    """Return text as a code span for a table cell, the pipe escaped, line breaks as spaces."""
    from markupsafe import Markup

    line = " ".join(f.clean(text).split()).replace("|", "\\|")
    ticks = "`" * (_count_longest_run(line, "`") + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{ticks}{pad}{line}{pad}{ticks}" if line else "")


def format_fence(text: str, language: str = "text") -> Any:
    """Return text as a fenced block; the fence is longer than any run of backticks in it."""
    from markupsafe import Markup

    shown = f.clean(text)
    ticks = "`" * max(3, _count_longest_run(shown, "`") + 1)
    return Markup(f"{ticks}{language}\n{shown.rstrip(chr(10))}\n{ticks}")


def _count_longest_run(text: str, character: str) -> int:
    """Return the length of the longest run of a character."""
    return max((len(run) for run in re.findall(re.escape(character) + "+", text)), default=0)
