"""The web page at `/`: jobs with loss curves, files, models, and a form to try a model.

`/` is a shell without any data of this server; with keys, it asks for one. All data come from
`/page/content`, which needs a key like every other request. The page's script fetches it with the
key, and again every few seconds. Changes go through the API itself. Everything that a client or a
model wrote is text: the templates escape it, odd characters are made visible, and no script runs
except the page's own.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from tuneoff.report import format as f
from tuneoff.server.errors import build_not_found
from tuneoff.server.page_view import PageRequest, build_page_view

router = APIRouter(include_in_schema=False)
DEFAULT_LIMIT, MAX_LIMIT = 24, 600
SCRIPT, STYLE = "text/javascript", "text/css"
# The page's assets with their media types; they hold no data of this server.
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
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Ids = Annotated[list[str], Query()]


@router.get("/")
def render_shell() -> Response:
    """Return the page without its content."""
    return _build_response(_build_environment().get_template("shell.html.j2").render(), "text/html")


@router.get("/page/assets/{name}")
def get_asset(name: str) -> Response:
    """Return a style sheet, a script or the icon."""
    if name not in ASSETS:
        raise build_not_found("file", name)
    return _build_response(_read_asset(name), ASSETS[name], "no-cache")


@router.get("/page/content")
def render_content(
    request: Request,
    jobs: Limit = DEFAULT_LIMIT,
    files: Limit = DEFAULT_LIMIT,
    models: Limit = DEFAULT_LIMIT,
    opened: Ids = [],  # noqa: B006
    shut: Ids = [],  # noqa: B006
) -> Response:
    """Return the current content of the page."""
    state, wanted = request.app.state, PageRequest(jobs, files, models, opened, shut)
    template = _build_environment().get_template("content.html.j2")
    view = build_page_view(state.store, state.settings, wanted)
    return _build_response(
        template.render(view, few=DEFAULT_LIMIT, many=MAX_LIMIT, wanted=wanted), "text/html"
    )


def _build_response(text: str, kind: str, cached: str = "no-store") -> Response:
    """Return a response with the page's security headers."""
    return Response(text, headers={**_HEADERS, "Cache-Control": cached}, media_type=kind)


@cache
def _build_environment() -> Any:
    """Return the template environment."""
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
def _read_asset(name: str) -> str:
    """Return the text of an asset."""
    # The page shares the report's style sheet.
    package = "tuneoff.report" if name == "report.css" else "tuneoff.server"
    folder = "templates" if name == "report.css" else "pages"
    return files(package).joinpath(folder, name).read_text(encoding="utf-8")
