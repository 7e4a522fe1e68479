"""What several tests share: the day, the real data where it is, a base that trains in seconds."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path[:0] = [
    str(Path(__file__).parent),
    *(str(Path(__file__).parent / f) for f in ("day", "scoring/sql", "server", "hosted")),
]
import days  # noqa: E402

ROOT = Path(__file__).parent.parent
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# How long an example takes says nothing on a machine that others use, too.
settings.register_profile("tuneoff", deadline=None)
settings.load_profile("tuneoff")


@pytest.fixture(scope="session", autouse=True)
def session_day() -> Iterator[None]:
    """Lets all tests, and the processes they start, take TUNEOFF_TEST_DAY for today."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get(days.VARIABLE):
            days.travel(patch, os.environ[days.VARIABLE])
        yield


@pytest.fixture(autouse=True)
def little_to_collect() -> None:
    """Keeps what is there before a test from the collector. A run calls it for each training, and
    it would look through all imports, 600,000 objects, each time: a third of some tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def on_day(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the day (`2026-11-30`) for what a test does next, and for the processes it starts."""
    return functools.partial(days.travel, monkeypatch)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: TUNEOFF_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("TUNEOFF_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "viggo").is_dir():
        pytest.skip("the real data is not here (set TUNEOFF_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer Llama whose tokenizer knows the functional sample's words."""
    from helpers import write_base

    from tuneoff.tasks.samples import functional

    examples = functional.generate()["train"][:200]
    texts = [f"{e.inputs['sentence']} {e.completion}" for e in examples]
    return write_base(tmp_path_factory.mktemp("bases") / "random", [functional.INSTRUCTION, *texts])


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    from tuneoff.cli.main import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tuneoff", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
