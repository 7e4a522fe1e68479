"""The page in headless Chromium, against a real server process with the shipped base: a job
appears, its curve grows while it trains, its model answers, and nothing that anybody wrote is
more than text."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from running import examples, request, server, upload

pytest.importorskip("fastapi")
playwright_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)

WAIT_MS = 240_000
MESSAGE = "role=textbox[name='Message']"
EVIL = "<img src=x onerror=alert(1)>"
# Notes, at every change, the state of the newest job and how many points its curve has.
WATCH = """() => {
  window.marked = true;
  window.seen = [];
  new MutationObserver(() => {
    const job = document.querySelector("details.job");
    const line = job?.querySelector(".curve .training polyline");
    const entry = [job?.className, line ? line.points.numberOfItems : 0];
    if (String(seen.at(-1)) !== String(entry)) seen.push(entry);
  }).observe(document.getElementById("content"),
             {subtree: true, childList: true, attributes: true});
}"""
# Notes how long the answer was at every change.
LENGTHS = """() => {
  window.lengths = [];
  const answer = document.getElementById("answer");
  new MutationObserver(() => lengths.push(answer.textContent.length))
    .observe(answer, {childList: true, characterData: true, subtree: true});
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, as in a container.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with server(tmp_path_factory.mktemp("browsed") / "data") as (port, _):
        yield port


class Watched:
    """A tab; what it said on the console, and where it sent requests."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        # Chromium reports answers that are no 2xx; a test says which it provokes.
        self.refusals: tuple[int, ...] = ()
        self.hosts: set[str] = set()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda sent: self.hosts.add(urlsplit(sent.url).hostname or ""))

    def _console(self, message: Any) -> None:
        provoked = any(f"status of {status}" in message.text for status in self.refusals)
        if message.type in ("error", "warning") and not provoked:
            self.problems.append(message.text)

    def open(self, port: int) -> Any:
        self.page.goto(f"http://127.0.0.1:{port}/")
        self.page.locator("#jobs").wait_for()
        return self.page


@pytest.fixture
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A tab that must have had nothing to complain of, and must have stayed on this machine."""
    found = Watched(browser, **getattr(request, "param", {}))
    yield found
    found.context.close()
    assert found.problems == []
    assert found.hosts <= {"127.0.0.1", ""}


def until(page: Any, done: Callable[[], bool]) -> None:
    """Waits; the page's policy lets no test's script wait inside it."""
    end = time.monotonic() + WAIT_MS / 1000
    while not done():
        assert time.monotonic() < end
        page.wait_for_timeout(50)


def training_file(folder: Path, name: str, answer: str) -> Path:
    path = folder / name
    path.write_bytes(examples(24, answer))
    return path


def tuned(port: int) -> str:
    models = request(port, "GET", "/v1/models")[1]["data"]
    named = (str(model["id"]) for model in models)
    return next(name for name in named if name.startswith("ft:") and ":ckpt-" not in name)


def test_from_an_upload_to_an_answer(tab: Watched, port: int, tmp_path: Path) -> None:
    tab.refusals = (400,)  # to the wrong file
    page = tab.open(port)
    page.get_by_text("No jobs yet.").wait_for()
    page.evaluate(WATCH)

    upload_a_file(page, tmp_path)
    start_a_job(page)
    page.locator("details.job.succeeded").wait_for()
    seen = page.evaluate("seen")
    points = [count for name, count in seen if name == "job running"]
    assert points == sorted(points), seen
    assert len(set(points)) >= 3, seen
    assert page.evaluate("marked"), "the page was loaded again"
    assert not page.locator(".curve .validation").count()

    answer = ask_the_model(page, tuned(port))
    # What the model says looks like an element, and is none.
    assert EVIL in answer
    assert page.locator("#answer *").count() == 0
    assert page.locator("img[src=x]").count() == 0


def upload_a_file(page: Any, folder: Path) -> None:
    """A wrong file is refused with its line, a good one appears under its (hostile) name."""
    wrong = folder / "wrong.jsonl"
    wrong.write_bytes(examples(3) + b'{"messages": []}\n')
    chosen = page.get_by_label("Training or validation file")
    chosen.set_input_files(wrong)
    page.get_by_role("button", name="Upload").click()
    page.locator("#upload-form .problem").get_by_text("Line 4").wait_for()
    assert page.get_by_text("No files yet.").count() == 1
    chosen.set_input_files(training_file(folder, f"{EVIL}.jsonl", EVIL))
    page.get_by_role("button", name="Upload").click()
    page.locator("#files .rows").get_by_text(f"{EVIL}.jsonl").wait_for()
    page.locator("#files .rows").get_by_text("24 examples").wait_for()


def start_a_job(page: Any) -> None:
    page.locator("#new-job-summary").click()
    page.get_by_label("Epochs").fill("10")
    page.get_by_label("Batch size").fill("8")
    page.get_by_label("Learning rate").fill("50")
    page.get_by_label("Suffix").fill("not/allowed")
    page.get_by_role("button", name="Start").click()
    assert page.locator("details.job").count() == 0
    page.get_by_label("Suffix").fill("shown")
    page.get_by_role("button", name="Start").click()
    page.locator("details.job").get_by_text("shown", exact=True).wait_for()


def ask_the_model(page: Any, model: str) -> str:
    page.locator("details.job").get_by_role("button", name="Try the model").click()
    assert page.get_by_role("combobox", name="Model", exact=True).input_value() == model
    page.evaluate(LENGTHS)
    page.locator(MESSAGE).fill("Is 7 a number?")
    page.get_by_label("Max tokens").fill("60")
    page.get_by_role("button", name="Ask").click()
    page.locator("#counts").get_by_text("tokens in").wait_for()
    lengths = page.evaluate("lengths.filter(Boolean)")
    assert len(set(lengths)) >= 3, "the answer did not stream in"
    body = {"model": model, "messages": [{"role": "user", "content": "Is 7 a number?"}],
            "temperature": 0, "max_tokens": 60}  # fmt: skip
    port = urlsplit(page.url).port
    status, expected = request(port, "POST", "/v1/chat/completions", body)
    assert status == 200
    answer = str(page.locator("#answer").text_content())
    assert answer == expected["choices"][0]["message"]["content"]
    usage = expected["usage"]
    counts = f"{usage['prompt_tokens']} tokens in, {usage['completion_tokens']} out"
    assert counts in page.locator("#counts").text_content()
    return answer


def queued_job(port: int, **asked: Any) -> str:
    """The id of a job that lasts for as long as a test may."""
    file = upload(port, examples(24))[1]["id"]
    numbers = {"n_epochs": 50, "batch_size": 1}
    body = {"model": "tiny", "training_file": file, "hyperparameters": numbers, **asked}
    status, job = request(port, "POST", "/v1/fine_tuning/jobs", body)
    assert status == 200, job
    return str(job["id"])


def state_of(port: int, job: str) -> str:
    return str(request(port, "GET", f"/v1/fine_tuning/jobs/{job}")[1]["status"])


def test_buttons_do_what_the_api_does(tab: Watched, port: int) -> None:
    job = queued_job(port, suffix="buttons")
    page = tab.open(port)
    line, said = page.locator(f"#{job}"), []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.accept()))
    for button, state in (("Pause", "paused"), ("Resume", "running"), ("Cancel", "cancelled")):
        line.get_by_role("button", name=button).click()
        page.locator(f"#{job}.{state}").wait_for()
        assert state_of(port, job) == state
    assert len(said) == 1
    assert "Cancel this job?" in said[0]

    with page.expect_download() as downloading:
        line.get_by_role("link", name="Events").click()
    events = json.loads(downloading.value.path().read_text())["data"]
    assert "The job was cancelled" in [event["message"] for event in events]

    file = upload(port, examples(10))[1]["id"]
    page.locator(f"#{file}").get_by_role("button", name="Delete").click()
    page.locator(f"#{file}").wait_for(state="detached")
    assert request(port, "GET", f"/v1/files/{file}")[0] == 404
    assert len(said) == 2


def test_an_answer_comes_as_it_is_made_and_can_be_stopped(tab: Watched, port: int) -> None:
    page = tab.open(port)
    page.get_by_role("combobox", name="Model", exact=True).select_option("tiny")
    page.get_by_label("plain text").check()
    assert page.get_by_label("System text").is_hidden()
    page.locator(MESSAGE).fill("a a a a a a a a a a")  # the base goes on and on
    page.get_by_label("Max tokens").fill("1900")
    page.get_by_role("button", name="Ask").click()
    until(page, lambda: len(page.locator("#answer").text_content()) > 20)
    page.get_by_role("button", name="Stop").click()
    page.locator("#counts").get_by_text("stopped after").wait_for()
    assert page.get_by_role("button", name="Stop").is_disabled()
    part = page.locator("#answer").text_content()
    assert 20 < len(part) < 3_000
    # Nobody goes on making what nobody reads.
    until(page, lambda: b"_answers 0.0" in request(port, "GET", "/metrics")[1])


def test_what_is_wrong_is_said(tab: Watched, port: int) -> None:
    tab.refusals = (400,)
    page = tab.open(port)
    page.locator(MESSAGE).fill("x")
    page.get_by_label("Max tokens").fill("1000000")
    page.get_by_role("button", name="Ask").click()
    page.locator("#try-problem").get_by_text("lower max_tokens").wait_for()


def test_the_code_that_is_shown_runs(tab: Watched, port: int) -> None:
    pytest.importorskip("openai")
    page = tab.open(port)
    page.get_by_role("combobox", name="Model", exact=True).select_option("tiny")
    page.get_by_label("System text").fill('Say "yes"\\n.')
    page.locator(MESSAGE).fill("Is 7 a number?\nReally — 💡?")
    page.get_by_label("Max tokens").fill("30")
    page.get_by_role("button", name="Ask").click()
    page.locator("#counts").get_by_text("tokens in").wait_for()
    page.locator("#code-summary").click()
    command = [sys.executable, "-X", "utf8", "-c", page.locator("#snippet").text_content()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == page.locator("#answer").text_content() + "\n"


def test_a_key_is_asked_for_once_and_kept_in_the_tab(
    tab: Watched, tmp_path: Path, tiny_base: Path
) -> None:
    tab.refusals = (401,)
    with server(tmp_path / "data", "--base", str(tiny_base), keys="one, two") as (port, _):
        key = {"Authorization": "Bearer one"}
        assert upload(port, examples(10), headers=key)[0] == 200
        page = tab.page
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("API key").fill("three")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("That key is not known here.").wait_for()
        assert "x.jsonl" not in page.content()
        page.get_by_label("API key").fill("two")
        page.get_by_role("button", name="Open").click()
        page.locator("#files").get_by_text("x.jsonl").first.wait_for()
        assert 'os.environ["TUNEOFF_API_KEY"]' in page.locator("#snippet").text_content()
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Download x.jsonl").click()
        assert downloading.value.path().read_bytes() == examples(10)
        page.reload()
        page.locator("#files").get_by_text("x.jsonl").first.wait_for()
        assert tab.context.cookies() == []
        other = tab.context.new_page()
        other.goto(f"http://127.0.0.1:{port}/")
        other.get_by_label("API key").wait_for()
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_label("API key").wait_for()
        assert "x.jsonl" not in page.content()


def test_a_server_that_is_gone_and_back(browser: Any, tmp_path: Path, tiny_base: Path) -> None:
    tab = Watched(browser)
    base = ("--base", str(tiny_base))
    with server(tmp_path / "data", *base) as (port, _):
        page = tab.open(port)
        page.locator(MESSAGE).fill("what I was writing")
    page.get_by_text("The server does not answer.").wait_for()
    with server(tmp_path / "data", *base, port=port):
        page.get_by_text("The server does not answer.").wait_for(state="hidden")
    assert page.locator(MESSAGE).input_value() == "what I was writing"
    tab.context.close()


@pytest.mark.parametrize(
    "tab", [{"viewport": {"width": 360, "height": 700}}], indirect=True, ids=["phone"]
)
def test_a_phone_shows_it_without_scrolling_sideways(tab: Watched, port: int) -> None:
    job = queued_job(port, suffix="w" * 64)
    assert request(port, "POST", f"/v1/fine_tuning/jobs/{job}/cancel")[0] == 200
    page = tab.open(port)
    page.locator("#new-job-summary").click()
    page.locator("#code-summary").click()
    shut = "[...document.querySelectorAll('details.job:not([open])')].map((job) => job.id)"
    for id in page.evaluate(shut):
        page.locator(f"#summary-{id}").click()
    until(page, lambda: not page.locator(".job:not(:has(.body)), .job:not([open])").count())
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("tab", [{"color_scheme": "dark"}], indirect=True, ids=["dark"])
def test_the_dark_can_be_read(tab: Watched, port: int) -> None:
    page = tab.open(port)
    assert page.evaluate(CONTRAST, [["body", "body"]])[0] > 12
    pairs = [[".subtitle", "body"], ["label", "body"], [".state", "body"], ["button", "button"]]
    assert min(page.evaluate(CONTRAST, pairs)) > 4.5
    page.emulate_media(color_scheme="light")
    assert min(page.evaluate(CONTRAST, pairs)) > 4.5


# The contrast of an element's text with another's background, as WCAG reckons it.
CONTRAST = """(pairs) => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map(Number).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = (selector) => getComputedStyle(document.querySelector(selector));
  return pairs.map(([text, ground]) => {
    const two = [light(style(text).color), light(style(ground).backgroundColor)];
    return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
  });
}"""


def test_everything_has_a_name_and_the_keyboard_suffices(tab: Watched, port: int) -> None:
    page = tab.open(port)
    nameless = page.evaluate("""() => [
      ...[...document.querySelectorAll("input, select, textarea")].filter((e) => !e.labels.length),
      ...[...document.querySelectorAll("button, a, summary")].filter((e) => !e.textContent.trim()),
      ...[...document.querySelectorAll("[id]")].filter(
        (e) => document.querySelectorAll("#" + CSS.escape(e.id)).length > 1),
    ].map((e) => e.outerHTML)""")
    assert nameless == []
    job = page.locator("details.job").first
    opened = job.get_attribute("open") is not None
    job.locator("summary").focus()
    page.keyboard.press("Enter")
    job.locator(".body").wait_for(state="detached" if opened else "visible")
    assert page.evaluate("document.activeElement.id") == job.locator("summary").get_attribute("id")
    page.locator(MESSAGE).fill("Is 7 a number?")
    page.keyboard.press("Control+Enter")
    page.locator("#counts").get_by_text("tokens in").wait_for()


class _Attack(http.server.BaseHTTPRequestHandler):
    """A page of another site that does what a page can to the server at its query's port."""

    def do_GET(self) -> None:
        port, job = urlsplit(self.path).query.split("&")
        victim = f"http://127.0.0.1:{port}"
        page = f"""<!doctype html><iframe src="{victim}/" name="framed"></iframe>
          <iframe name="target"></iframe>
          <form method="post" target="target"
                action="{victim}/v1/fine_tuning/jobs/{job}/cancel"></form>
          <script>
            const send = (path, options) => fetch("{victim}" + path, options)
              .then((answer) => answer.text(), () => "").then((text) => told.push(text));
            window.told = [];
            document.forms[0].submit();
            send("/v1/fine_tuning/jobs/{job}/cancel", {{method: "POST", mode: "no-cors"}});
            send("/v1/fine_tuning/jobs/{job}/cancel", {{method: "POST"}});
            send("/v1/fine_tuning/jobs/{job}", {{mode: "no-cors"}});
            send("/page/content");
            navigator.sendBeacon("{victim}/v1/fine_tuning/jobs/{job}/pause", "x");
          </script>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])  # another site, the same one
def test_another_origin_drives_and_reads_nothing(browser: Any, port: int, name: str) -> None:
    job = queued_job(port)
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Attack)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()

    def is_form(answer: Any) -> bool:
        return bool(answer.request.is_navigation_request()) and answer.url.endswith("/cancel")

    with page.expect_response(is_form) as sent:
        page.goto(f"http://{name}:{other.server_port}/?{port}&{job}")
    assert sent.value.status == 403
    page.wait_for_function("told.length === 4")
    assert page.evaluate("told.join('')") == ""
    assert page.frame("framed").url.startswith("chrome-error:")
    assert state_of(port, job) in ("queued", "running")
    context.close()
    other.shutdown()
    other.server_close()
    assert request(port, "POST", f"/v1/fine_tuning/jobs/{job}/cancel")[0] == 200
