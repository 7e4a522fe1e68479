"""Makes `docs/img/serve.png`: a real server with the shipped base, two jobs on the functional
sample, one finished and one under way, and an answer of the tuned model.

    python docs/screenshots.py [--out docs/img] [--all]

`--all` adds dark, phone and empty ones. Needs the `dev` extra and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI
from playwright.sync_api import Browser, Page, sync_playwright

from tuneoff.tasks.samples import functional

SECONDS = 900
POINTS = 7
WIDE, PHONE = (1080, 900), (390, 844)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "img")
    parser.add_argument("--all", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is needed, and not installed.")
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder)) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if asked.all:
            shoot(opened(browser, address, WIDE), asked.out / "empty.png")
        question = fill(OpenAI(base_url=f"{address}/v1", api_key="any"))
        page = opened(browser, address, WIDE)
        ask(page, question)
        page.locator(f".running .training circle:nth-of-type({POINTS})").wait_for(
            timeout=SECONDS * 1000
        )
        shoot(page, asked.out / "serve.png")
        if asked.all:
            page.emulate_media(color_scheme="dark")
            shoot(page, asked.out / "dark.png")
            phone = opened(browser, address, PHONE)
            ask(phone, question)
            shoot(phone, asked.out / "phone.png")
        browser.close()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a `tuneoff serve` that is ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "serve",
               "--port", str(port), "--data-dir", str(folder / "data")]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "TUNEOFF_API_KEYS"}
    process = subprocess.Popen(command, env=environment)
    try:
        until(lambda: answers(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(done: Any) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > end:
            sys.exit("It took too long.")
        time.sleep(0.2)


def fill(client: OpenAI) -> str:
    """Uploads, a finished job, one that starts; gives a question for the tuned model."""
    sample = functional.generate()
    train, validation = (
        client.files.create(file=(name, lines(sample[split][:count])), purpose="fine-tune").id
        for name, split, count in (("huts-train.jsonl", "train", 600),
                                   ("huts-validation.jsonl", "validation", 60))
    )  # fmt: skip

    def start(suffix: str, epochs: int) -> str:
        numbers = {"n_epochs": epochs, "batch_size": 8, "learning_rate_multiplier": 25}
        return client.fine_tuning.jobs.create(
            model=client.models.list().data[0].id, training_file=train, validation_file=validation,
            suffix=suffix, seed=1, method={"type": "supervised", "supervised": {
                "hyperparameters": numbers}},  # type: ignore[typeddict-item]
        ).id  # fmt: skip

    first = start("huts", 3)
    until(lambda: client.fine_tuning.jobs.retrieve(first).status == "succeeded")
    start("huts-longer", 8)
    return f"{functional.INSTRUCTION}\n\n{sample['test'][1].inputs['sentence']}"


def lines(examples: Any) -> bytes:
    rows = (
        {"messages": [
            {"role": "user", "content": f"{functional.INSTRUCTION}\n\n{e.inputs['sentence']}"},
            {"role": "assistant", "content": e.completion},
        ]}
        for e in examples
    )  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def opened(browser: Browser, address: str, size: tuple[int, int]) -> Page:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme="light")
    page.goto(address)
    page.locator("#jobs").wait_for()
    return page


def ask(page: Page, question: str) -> None:
    """Has the tuned model answer in the box."""
    page.locator("[data-try^='ft:']").first.click()
    page.locator("[name=message]").fill(question)
    page.locator("#ask").click()
    page.get_by_text("tokens in").wait_for(timeout=SECONDS * 1000)


def shoot(page: Page, path: Path) -> None:
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.screenshot(path=path, full_page=True)
    print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
