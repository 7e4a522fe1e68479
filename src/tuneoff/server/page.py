"""The page at `/`: jobs with their loss curves, files, models, a box to try one.

`/` is a shell that knows nothing of this server: with keys it is what asks for one. All that
there is to see comes from `/page/content`, which the guard lets nobody read without a key; the
page's script fetches it with the key and again every few seconds. Changes go to the API
itself. Whatever a client or a model wrote is text: the templates escape it, odd characters are
made visible, and no script runs but the page's own.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from tuneoff.report import format as f
from tuneoff.server.errors import not_found
from tuneoff.server.page_view import Wanted, page_view

router = APIRouter(include_in_schema=False)
FEW, MANY = 24, 600
SCRIPT, STYLE = "text/javascript", "text/css"
# What the page is made of, with its kind; none of it knows anything of this server.
ASSETS = {
    "report.css": STYLE, "page.css": STYLE, "page.js": SCRIPT, "send.js": SCRIPT,
    "morph.js": SCRIPT, "try.js": SCRIPT, "icon.svg": "image/svg+xml",
}  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Limit = Annotated[int, Query(ge=1, le=MANY)]
Ids = Annotated[list[str], Query()]


@router.get("/")
def shell() -> Response:
    """The page without what is on it."""
    return _answer(_environment().get_template("shell.html.j2").render(), "text/html")


@router.get("/page/assets/{name}")
def asset(name: str) -> Response:
    """A style sheet, a script, the icon."""
    if name not in ASSETS:
        raise not_found("file", name)
    return _answer(_source(name), ASSETS[name], "no-cache")


@router.get("/page/content")
def content(
    request: Request,
    jobs: Limit = FEW,
    files: Limit = FEW,
    models: Limit = FEW,
    opened: Ids = [],  # noqa: B006
    shut: Ids = [],  # noqa: B006
) -> Response:
    """What is on the page now."""
    state, wanted = request.app.state, Wanted(jobs, files, models, opened, shut)
    template = _environment().get_template("content.html.j2")
    view = page_view(state.store, state.settings, wanted)
    return _answer(template.render(view, few=FEW, many=MANY, wanted=wanted), "text/html")


def _answer(text: str, kind: str, cached: str = "no-store") -> Response:
    return Response(text, headers={**_HEADERS, "Cache-Control": cached}, media_type=kind)


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("tuneoff.server", "pages"),
        autoescape=True,
        finalize=lambda value: f.clean(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _source(name: str) -> str:
    # The page looks like the report.
    package = "tuneoff.report" if name == "report.css" else "tuneoff.server"
    folder = "templates" if name == "report.css" else "pages"
    return files(package).joinpath(folder, name).read_text(encoding="utf-8")
