"""The key is nowhere: not in a file of a run, not in what is printed at the highest log level, not
in the process list; though the server says it in errors, events and files, and all is recorded."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from world import KEY, Trainer, bakeoff_file, hosted, prompted, rows, tuneoff_process

pytest.importorskip("openai")
LOUD = {"OPENAI_API_KEY": KEY, "OPENAI_LOG": "debug", "TOGETHER_LOG": "debug",
        "HTTPX_LOG_LEVEL": "trace", "PYTHONFAULTHANDLER": "1"}  # fmt: skip
SECONDS = 180


def forms() -> dict[str, bytes]:
    """What of the key must be nowhere. As base64 it looks in three ways, by what is before it; of
    each the part that does not depend on its neighbours."""
    found = {"the key": KEY.encode(), "its end": KEY[-8:].encode()}
    for shift in range(3):
        text = base64.b64encode(b"x" * shift + KEY.encode()).rstrip(b"=")
        found[f"base64, {shift}"] = text[4 if shift else 0 : -2]
    return found


def holding_it(folder: Path, **printed: str) -> list[str]:
    """Where a form of the key is."""
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts |= {name: text.encode() for name, text in printed.items()}
    return [
        f"{form} in {name}"
        for name, text in texts.items()
        for form, wanted in forms().items()
        if wanted in text
    ]


def loud(folder: Path, *arguments: str, report: bool = False) -> tuple[int, str, str]:
    """`tuneoff` at the highest log level; its arguments are looked at while it is there."""
    flags = ["--loud", "--held"] + ["--bare"] * (not report)
    child = tuneoff_process(folder, *flags, "--debug", *arguments, env=LOUD)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        shown = Path(f"/proc/{child.pid}/cmdline")
        if shown.exists():
            assert arguments[0].encode() in shown.read_bytes()
            assert not any(form in shown.read_bytes() for form in forms().values())
        out, err = child.communicate("go\n", timeout=SECONDS)
    except (AssertionError, subprocess.TimeoutExpired):
        child.kill()
        child.communicate()
        raise
    assert "DEBUG" in err
    assert "chat/completions" in err or "/v1/models" in err  # the libraries do tell what they send
    return child.returncode, out, err


def run_of(file: Path, report: bool = False) -> tuple[int, str, str]:
    return loud(file.parent, "run", file.name, "--run-dir", "run", report=report)


def everything(file: Path) -> str:
    return "".join(
        path.read_text(errors="replace")
        for path in (file.parent / "run").rglob("*")
        if path.is_file()
    )


def test_forms_are_found() -> None:
    """The search finds what it looks for."""
    for shift in range(6):
        for after in (b"", b"?", b"??"):
            text = base64.b64encode(b"?" * shift + KEY.encode() + after)
            assert any(form in text for form in forms().values())


def test_a_hosted_run(fake: Trainer, tmp_path: Path) -> None:
    """Errors, an event and the file of metrics say it."""
    fake.set(echo=7, event=f"used key {KEY}, ending in {KEY[-8:]}", leaky_files=True)
    file = bakeoff_file(tmp_path / "b", hosted(fake.url, record=True))
    code, out, err = run_of(file, report=True)
    assert code == 0, err[-2000:]
    assert fake.saw()["behaviour"]["echo"] == 0
    assert holding_it(file.parent, out=out, err=err) == []
    # It was said, and struck out.
    assert "used key [key], ending in [key]" in everything(file)
    recorded = file.parent / "run" / "contenders" / "tuned" / "exchanges.jsonl"
    exchanges = [json.loads(line) for line in recorded.read_text().splitlines()]
    (binary,) = [base64.b64decode(each["base64"]) for each in exchanges if "base64" in each]
    assert binary.startswith(b"\xff")
    assert not any(form in binary for form in forms().values())
    assert sum("Bearer [key]" in each.get("content", "") for each in exchanges) >= 2
    assert len(rows(file)) == 8


@pytest.mark.parametrize("why", ["the key is refused", "the job fails"])
def test_a_run_that_fails(fake: Trainer, tmp_path: Path, why: str) -> None:
    """Errors and tracebacks of both contenders are written down."""
    refused = why == "the key is refused"
    fake.set(refuse_key=refused, states=["queued", "failed"],
             job_error=f"{KEY} may not; neither may sk-...{KEY[-4:]}")  # fmt: skip
    contenders = hosted(fake.url, record=True), prompted(fake.url, record=True)
    file = bakeoff_file(tmp_path / "b", *contenders)
    code, out, err = run_of(file, report=True)
    assert code == 4, err[-2000:]
    assert holding_it(file.parent, out=out, err=err) == []
    said = "Incorrect API key provided: [key]" if refused else "failed ([key] may not; neither may"
    assert said in err
    assert said in everything(file)


def test_a_prompted_run(fake: Trainer, tmp_path: Path) -> None:
    fake.set(echo=5)
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, record=True), test=12)
    code, out, err = run_of(file)
    assert code == 0, err[-2000:]
    assert holding_it(file.parent, out=out, err=err) == []
    assert len(rows(file, "asked")) == 12


def test_migrate(fake: Trainer, tmp_path: Path) -> None:
    """A listing, a capture (always recorded), and one whose key is refused."""
    bench = bakeoff_file(tmp_path / "b", hosted(fake.url))
    tuned = _tuned(bench, fake)
    place = tmp_path / "migrating"
    place.mkdir()
    at = ("--base-url", fake.url)
    fake.set(echo=2)
    listed = loud(place, "migrate", *at)
    assert tuned in listed[1]
    fake.set(echo=6)
    captured = loud(place, "migrate", tuned, "--out", "saved", *at)
    fake.set(refuse_key=True)
    refused = loud(place, "migrate", tuned, "--out", "elsewhere", *at)
    assert [listed[0], captured[0]] == [0, 0], captured[2][-2000:]
    assert refused[0] != 0
    assert "Incorrect API key provided: [key]" in refused[2]
    for _, out, err in (listed, captured, refused):
        assert holding_it(place, out=out, err=err) == []
    assert (place / "saved" / "answers.jsonl").read_text().count("\n") == 4


def _tuned(file: Path, fake: Trainer) -> str:
    child: Any = tuneoff_process(file.parent, "--bare", "run", file.name, "--run-dir", "run",
                                 env={"OPENAI_API_KEY": KEY})  # fmt: skip
    _, err = child.communicate(timeout=SECONDS)
    assert child.returncode == 0, err
    return str(fake.saw()["jobs"][0]["fine_tuned_model"])
