"""Opens a run's report in headless Chromium as people will: light, dark, on a phone, on paper, by
click and by keyboard; says what is wrong with it, and takes pictures.

    python docs/check_report.py RUN_DIR [--out docs/img] [--name report]

Exit code 1 and a line for each problem: anything on the console, a request that leaves the file, a
chart that is not drawn, something wider than a phone, sorting, filtering or search that does not
work, a dark background on paper, anything serious that axe-core finds. Without axe-core (`npm
install axe-core`) that part is left out, and it says so. Needs the `dev` extra and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

WIDE, PHONE = (1080, 1000), (390, 844)
AXE = Path("node_modules/axe-core/axe.min.js")
SERIOUS = ("serious", "critical")
# The height of a picture: what a reader of the README is to see, not the whole page.
TALL = 1330
# Whatever is wider than the window and does not scroll inside itself.
WIDER = """() => [...document.querySelectorAll("body *")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width && box.right > innerWidth + 1 && !each.closest(".box, pre, svg");
}).map((each) => each.outerHTML.slice(0, 120))"""
# Every chart has marks with a size, whether it is live or still.
UNDRAWN = """() => [...document.querySelectorAll(".chart")].filter((chart) => {
  const marks = [...chart.querySelectorAll("svg .role-mark path, svg .role-mark line")];
  const boxes = marks.map((mark) => mark.getBoundingClientRect());
  return !boxes.some((box) => box.width || box.height);
}).map((chart) => chart.outerHTML.slice(0, 120))"""
BACKGROUNDS = """() => [...document.querySelectorAll("body, main, .answer, pre, td, th, button")]
  .map((each) => getComputedStyle(each).backgroundColor)
  .filter((color) => {
    const [r, g, b, a = 1] = color.match(/[0-9.]+/g).map(Number);
    return a > 0 && r + g + b < 3 * 170;
  })"""
COLUMN = """([table, column]) =>
  [...document.querySelectorAll("table.sortable")[table].tBodies[0].rows]
  .map((row) => row.cells[column])
  .map((cell) => cell && cell.colSpan === 1 ? cell.dataset.sort ?? cell.textContent.trim() : "")"""
VISIBLE = """() => [...document.querySelectorAll(".example:not([hidden])")].map((card) => ({
  answers: JSON.parse(card.dataset.answers), groups: JSON.parse(card.dataset.groups),
  text: card.textContent.toLowerCase()}))"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, help="where pictures go (none without it)")
    parser.add_argument("--name", default="report", help="what pictures' names begin with")
    parser.add_argument("--axe", type=Path, default=AXE)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is needed, and not installed.")
    if not asked.axe.is_file():
        print(f"{asked.axe}: not here, so axe-core is left out.", file=sys.stderr)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        problems = check(browser, asked.run / "report.html", asked.out, asked.axe, asked.name)
        browser.close()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems", file=sys.stderr)
    sys.exit(1 if problems else 0)


def check(
    browser: Browser, file: Path, out: Path | None, axe: Path | None, name: str = "report"
) -> list[str]:
    """What is wrong with a report; nothing where all is well. `out`: where pictures go."""
    problems: list[str] = []
    with opened(browser, file, problems, "light") as page:
        problems += [f"sorting: {found}" for found in sorting(page)]
        problems += [f"examples: {found}" for found in filtering(page)]
        scrolled(page)
        problems += [f"not drawn: {chart}" for chart in page.evaluate(UNDRAWN)]
        problems += audited(page, axe, "light")
        page.reload()
        scrolled(page)
        shoot(page, out, f"{name}-light")
    with opened(browser, file, problems, "dark", color_scheme="dark") as page:
        scrolled(page)
        problems += audited(page, axe, "dark")
        shoot(page, out, f"{name}-dark")
    with opened(browser, file, problems, "phone", size=PHONE) as page:
        scrolled(page)
        problems += [f"phone: wider than the window: {each}" for each in page.evaluate(WIDER)]
        if page.evaluate("document.documentElement.scrollWidth") > PHONE[0]:
            problems.append("phone: the page scrolls sideways")
        problems += [f"phone: not drawn: {chart}" for chart in page.evaluate(UNDRAWN)]
        problems += audited(page, axe, "phone")
        shoot(page, out, f"{name}-phone")
    with opened(browser, file, problems, "print", color_scheme="dark") as page:
        page.emulate_media(media="print")
        problems += [f"print: a dark background: {c}" for c in page.evaluate(BACKGROUNDS)]
        problems += [f"print: not drawn: {chart}" for chart in page.evaluate(UNDRAWN)]
        if not page.pdf(format="A4").startswith(b"%PDF"):
            problems.append("print: no PDF")
    with opened(browser, file, problems, "no script", java_script_enabled=False) as page:
        hidden = page.locator(".example, .chart svg").all()
        if not all(each.is_visible() for each in hidden):
            problems.append("no script: something cannot be read")
        if page.locator(".filter").is_visible() if page.locator(".filter").count() else False:
            problems.append("no script: a filter is shown that does nothing")
    return problems


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    problems: list[str],
    how: str,
    size: tuple[int, int] = WIDE,
    **options: Any,
) -> Iterator[Page]:
    """A tab with the report; what it says on the console and asks for is added to problems."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, **{"color_scheme": "light", **options})  # type: ignore[arg-type]
    page = context.new_page()
    address = file.resolve().as_uri()

    def note(problem: str) -> None:
        problems.append(f"{how}: {problem}")

    def said(message: Any) -> None:
        if message.type in ("error", "warning"):
            note(f"console: {message.text}")

    def asked(request: Any) -> None:
        if request.url != address:
            note(f"asks for {request.url[:200]}")

    def dialog(shown: Any) -> None:
        note(f"a dialog: {shown.message}")
        shown.dismiss()

    page.on("console", said)
    page.on("pageerror", lambda error: note(str(error)))
    page.on("dialog", dialog)
    page.on("request", asked)
    page.goto(address)
    yield page
    context.close()


def scrolled(page: Page) -> None:
    """Shows every part of the page once, so that every chart comes alive."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator("xpath=self::*[@data-drawn]").wait_for(timeout=30_000)
    page.evaluate("scrollTo(0, 0)")


def sorting(page: Page) -> Iterator[str]:
    """Every column of every table, the first by keyboard."""
    for place, table in enumerate(page.locator("table.sortable").all()):
        heads = table.locator("thead th")
        for column in range(heads.count()):
            head, button = heads.nth(column), heads.nth(column).locator("button")
            for turn in range(2):
                if column == 0 or turn == 1:
                    button.focus()
                    page.keyboard.press("Enter" if turn else "Space")
                else:
                    button.click()
                said = head.get_attribute("aria-sort")
                values = page.evaluate(COLUMN, [place, column])
                if not _sorted(values, said):
                    yield f"table {place}, column {column}, {said}: {values}"
            if table.locator("[aria-sort]").count() != 1:
                yield f"table {place}, column {column}: aria-sort is not on one head"


def _sorted(values: list[str], said: str | None) -> bool:
    """Whether a column's known values go as its head says, the unknown ones behind."""
    known = [value for value in values if value != ""]
    if said not in ("ascending", "descending") or known != values[: len(known)]:
        return False
    try:
        numbers = [float(value) for value in known]
    except ValueError:
        return sorted(known, key=str.lower, reverse=said == "descending") == known or len(known) < 2
    return sorted(numbers, reverse=said == "descending") == numbers


def filtering(page: Page) -> Iterator[str]:
    """Every filter, search and the button for more; by click, and by keyboard alone."""
    if not page.locator("#examples").count():
        return
    every = page.locator(".example").count()
    more = page.locator("#examples-more")
    while more.is_visible():
        more.focus()
        page.keyboard.press("Enter")
    if page.locator(".example:not([hidden])").count() != every:
        yield "not all are shown after the last 'Show more'"
    for select in page.locator(".filter select").all():
        for option in range(1, select.locator("option").count()):
            select.select_option(index=option)
            yield from _unfit(page, select)
        page.locator("#filter-reset").click()
    yield from _keyboard(page)
    word = (page.locator(".example pre").first.text_content() or "").split()[0].lower()
    page.locator("#filter-text").fill(word)
    found = page.evaluate(VISIBLE)
    if not found or not all(word in card["text"] for card in found):
        yield f"search for {word!r}: {len(found)} shown"
    page.locator("#filter-text").fill("no such words anywhere, surely")
    if page.evaluate(VISIBLE) or not page.locator("#examples-count").inner_text().startswith("0 "):
        yield "search for what is nowhere finds something"
    page.locator("#filter-reset").press("Enter")
    if not page.evaluate(VISIBLE):
        yield "nothing is shown after the reset"


def _keyboard(page: Page) -> Iterator[str]:
    """From one control to the next by Tab, and a choice made with the arrow keys."""
    controls = page.locator(".filter select, .filter input, .filter button")
    controls.first.focus()
    for place in range(1, controls.count()):
        page.keyboard.press("Tab")
        if not controls.nth(place).evaluate("(each) => each === document.activeElement"):
            yield f"control {place} of the filter is not reached by Tab"
    select = page.locator("#filter-wrong")
    select.focus()
    page.keyboard.press("ArrowDown")
    if select.input_value() != "0":
        yield "the arrow keys choose nothing"
    yield from _unfit(page, select)
    page.keyboard.press("ArrowUp")


def _unfit(page: Page, select: Any) -> Iterator[str]:
    """Shown cards that a filter's choice should have hidden."""
    key, value = select.get_attribute("data-group"), select.input_value()
    name = select.get_attribute("id")
    for card in page.evaluate(VISIBLE):
        if key is not None:
            fits = card["groups"].get(key) == value
        elif name == "filter-class":
            fits = any(kind == value for _, kind in card["answers"])
        else:
            fits = bool(card["answers"][int(value)][0]) == (name == "filter-right")
        if not fits:
            yield f"{name or key} = {value!r} shows what it should hide"
            return


def audited(page: Page, axe: Path | None, how: str) -> list[str]:
    """What axe-core finds that is serious."""
    if axe is None or not axe.is_file():
        return []
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{how}: axe: {rule['id']} ({len(rule['nodes'])}): {rule['nodes'][0]['html'][:160]}"
        for rule in found["violations"]
        if rule["impact"] in SERIOUS
    ]


def shoot(page: Page, out: Path | None, name: str) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(200)
    width = page.viewport_size["width"] if page.viewport_size else WIDE[0]
    whole = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": min(TALL, whole)}
    page.screenshot(path=out / f"{name}.png", full_page=True, clip=clip)  # type: ignore[arg-type]
    print(out / f"{name}.png", file=sys.stderr)


if __name__ == "__main__":
    main()
