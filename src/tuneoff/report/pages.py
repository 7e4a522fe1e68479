"""The pages themselves: view, examples and charts put into the two templates.

Text from models, data and files is never markup. In HTML jinja2's autoescape sees to it,
and a content security policy lets only the page's own two scripts run, by their hashes,
and nothing be loaded from anywhere. In Markdown every value is escaped (`markdown.py`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneoff.records import ContenderResult, Results
from tuneoff.report import charts, learning, markdown
from tuneoff.report import format as f
from tuneoff.report.break_even import break_even_chart
from tuneoff.report.examples import Shown, choose
from tuneoff.report.view import View, ranked, view
from tuneoff.rundir import RunDir, write_text

MAX_CHARACTERS = 2000


def write_pages(run: RunDir, with_examples: bool) -> tuple[Path, Path]:
    """Writes charts, Markdown and HTML; returns the paths of the HTML and the Markdown."""
    results = run.results()
    contenders = ranked(results)
    examples = choose(run, contenders, results.primary_metric) if with_examples else []
    content = view(results) | {"examples": [_example(shown) for shown in examples]}
    drawn = _write_charts(run, results, contenders)
    md, html = run.path / "report.md", run.path / "report.html"
    write_text(md, render_markdown(content | {"charts": drawn}))
    write_text(html, render_html(content, results, contenders))
    return html, md


def _write_charts(run: RunDir, results: Results, contenders: Sequence[ContenderResult]) -> set[str]:
    """Writes charts/NAME.svg; returns the names, and removes a chart that has no data now."""
    specs = {
        "scores": charts.score_chart(contenders, results.primary_metric),
        "learning_curve": learning.curve_chart(contenders, results.primary_metric),
        "validation_loss": charts.loss_chart(contenders),
        "break_even": break_even_chart(results, contenders),
    }
    for name, spec in specs.items():
        path = run.charts / f"{name}.svg"
        if spec is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, charts.to_svg(spec))
    return {name for name, spec in specs.items() if spec is not None}


def _example(shown: Shown) -> View:
    """An example's texts, cut to what a reader can take in."""
    return {
        "id": f.shorten(shown.id, 200),
        "inputs": [(name, f.shorten(text, MAX_CHARACTERS)) for name, text in shown.inputs],
        "reference": f.shorten(shown.reference, MAX_CHARACTERS),
        "answers": [
            {
                "name": answer.contender,
                "text": f.shorten(answer.text, MAX_CHARACTERS),
                "right": answer.right,
                "verdict": f.shorten(_verdict(answer.right, answer.verdict, answer.error), 200),
            }
            for answer in shown.answers
        ],
    }


def _verdict(right: bool, verdict: str, error: str | None) -> str:
    """What is worth saying beside right or wrong."""
    if error:
        return f"no answer: {error}"
    return verdict.removeprefix("right" if right else "wrong").strip()


def render_markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown; `charts` in the content are the names of the files there are."""
    environment = _environment(autoescape=False, finalize=markdown.finalize)
    environment.filters |= {"code": markdown.code, "fence": markdown.fence}
    return str(environment.get_template("report.md.j2").render(content))


def render_html(
    content: Mapping[str, Any], results: Results, contenders: Sequence[ContenderResult]
) -> str:
    """The report as one HTML page that needs nothing outside itself."""
    from markupsafe import Markup

    environment = _environment(autoescape=True, finalize=_finalize)
    drawn = {}
    for name, draw in _drawings(results, contenders).items():
        still, live = draw(charts.WIDTH), draw("container")
        if still and live:
            drawn[name] = {"svg": Markup(charts.to_svg(still)), "spec": Markup(_script_json(live))}
    scripts = [charts.javascript(), _source("report.js")] if drawn else []
    with_curve = [c.name for c in contenders if c.learning_curve and not c.error]
    with_loss = [c.name for c in contenders if any(r.validation is not None for r in c.loss)]
    paired = {name for pair in results.break_even for name in (pair.own, pair.hosted)}
    template = environment.get_template("report.html.j2")
    return str(
        template.render(
            content,
            charts=drawn,
            color=charts.colors(contenders),
            with_curve=with_curve,
            with_loss=with_loss,
            with_month=[c.name for c in contenders if c.name in paired],
            style=Markup(_source("report.css")),
            scripts=[Markup(script) for script in scripts],
            hashes=[_csp_hash(script) for script in scripts],
        )
    )


def _drawings(
    results: Results, contenders: Sequence[ContenderResult]
) -> dict[str, Callable[[int | str], charts.Spec | None]]:
    """The page's charts by name, each for a given width; the page has its own legend."""
    return {
        "scores": lambda width: charts.score_chart(contenders, results.primary_metric, width),
        "learning_curve": lambda width: learning.curve_chart(
            contenders, results.primary_metric, width, legend=False
        ),
        "validation_loss": lambda width: charts.loss_chart(contenders, width, legend=False),
        "break_even": lambda width: break_even_chart(results, contenders, width, legend=False),
    }


def _environment(autoescape: bool, finalize: Any) -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("tuneoff.report", "templates"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """Makes odd characters visible in every value that is not our own markup."""
    return f.clean(value) if type(value) is str else value


def _source(name: str) -> str:
    from importlib.resources import files

    return files("tuneoff.report").joinpath("templates", name).read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that can stand in a <script> element: nothing in it can end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
