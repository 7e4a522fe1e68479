"""A hosted run that dies at each of its writes, right before, after or in the middle of it, and is
carried out again: what was paid for is there, and nothing is paid for twice.

The process only seems to die: from then on nothing is written any more, and the run ends. So every
write can be tried (real kills, at some moments: `test_hosted_kills.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child import PAUSES
from world import KEY, PRICE, Trainer, bakeoff_file, hosted, job_of, rows, run, trainer

from tuneoff import environment
from tuneoff.bakeoff import run as bakeoff
from tuneoff.costs import ledger
from tuneoff.costs.ledger import Ledger
from tuneoff.storage import files, run_dir

pytestmark = pytest.mark.slow
pytest.importorskip("openai")
TESTS = 3


class Died(BaseException):
    """What a killed process does not come back from."""


class Writes:
    """Knows what is written, in its order, and dies at the nth of it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.nth, self.how, self.dead = -1, "", False

    def around(self, name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Path, *content: Any) -> Any:
            if self.dead:
                raise Died
            self.told.append(f"{name} {path.name}")
            if len(self.told) - 1 != self.nth:
                return write(path, *content)
            self.dead = True
            if self.how != "before":
                write(path, *content)
            if self.how == "inside":
                whole = path.read_bytes()
                path.write_bytes(whole[: -len(whole.splitlines()[-1]) // 2])
            raise Died

        return wrapped


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    found = Writes()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(bakeoff, "write_report", lambda run: (run.path, run.path))
    monkeypatch.setattr(bakeoff, "score_baselines", lambda *_: None)  # they are made anew each time
    monkeypatch.setattr(environment, "describe_machine", lambda: "a machine")
    for module, name, seconds in PAUSES:
        monkeypatch.setattr(module, name, seconds / 5)
    monkeypatch.setattr(files, "_write_atomically", found.around("write", files._write_atomically))
    monkeypatch.setattr(run_dir, "remove_folder", found.around("remove", run_dir.remove_folder))
    append = found.around("append", run_dir.append_lines)
    for module in (run_dir, ledger):
        monkeypatch.setattr(module, "append_lines", append)
    return found


def dies(writes: Writes, nth: int, how: str, file: Path, **options: Any) -> str:
    """Carries a file out until it dies; where that was, or nothing if it came to its end."""
    writes.told, writes.nth, writes.how, writes.dead = [], nth, how, False
    try:
        run(file, **options)
    except Died:
        return f"{how} write {nth}: {writes.told[nth]}"
    finally:
        writes.nth, writes.dead = -1, False
    return ""


def ends_well(fake: Trainer, file: Path, where: str) -> None:
    """The same command ends, every answer is there once, and the ledger holds."""
    results = run(file)
    assert results.contenders[0].error is None, where
    found = rows(file)
    assert len(found) == len({row["id"] for row in found}) == TESTS, where
    assert all(row["error"] is None and row["prediction"] for row in found), where
    assert len(rows(file, what="loss")) == 10, where
    assert job_of(file)["tuned_model"], where
    books = Ledger(file.parent / "run" / "events.jsonl")
    spent, billed, rounding = books.spent(), fake.billed_usd(), 1e-9
    assert float(spent.known) <= billed + rounding, where
    assert billed <= float(spent.known + spent.uncertain) + rounding, where
    assert books.spent(what="training").uncertain == 0, where


def chosen(told: list[str], how: str, since: str = "") -> list[int]:
    """Numbers of the writes to die at, from the first one of a file on: by turns before and after
    one, and inside each. Only what is appended can be torn; files that are written whole are
    renamed into their places."""
    first = next(n for n, each in enumerate(told) if since in each)
    if how != "inside":
        return list(range(first + (how == "after"), len(told), 2))
    return [n for n in range(first, len(told)) if "append" in told[n]]


@pytest.mark.parametrize("how", ["before", "inside", "after"])
@pytest.mark.parametrize("batch", [False, True])
def test_a_first_run(writes: Writes, tmp_path: Path, how: str, batch: bool) -> None:
    def one_run(name: str, nth: int) -> str:
        with trainer(tmp_path / name / "fake") as fake:
            one = hosted(fake.url, concurrency=1, price=PRICE, batch=batch)
            file = bakeoff_file(tmp_path / name / "b", one, test=TESTS)
            where = dies(writes, nth, how, file)
            told.extend(writes.told)
            ends_well(fake, file, where)
            saw = fake.saw()
        sent = [n for name, n in saw["uploads"].items() if name.startswith("tuneoff-")]
        assert sent == [1] * (2 + batch), where
        assert len(saw["jobs"]) == 1, where
        assert len(saw["batches"]) == batch, where
        asked = saw["billed"]["completions"] + saw["billed"]["batch_completions"]
        # One answer may be under way, another not be written down yet.
        assert TESTS <= asked <= TESTS + 2 * (not batch), where
        return where

    told: list[str] = []
    assert not one_run("whole", -1)
    points = chosen(list(told), how, "batch.json" if batch else "")
    assert len(points) > 4
    for nth in points:
        assert one_run(f"{nth}", nth)


@pytest.mark.parametrize("how", ["before", "after"])
def test_one_that_begins_anew(writes: Writes, tmp_path: Path, how: str) -> None:
    """`--only NAME --fresh` pays again, once, and what was paid before stays in the ledger."""

    def one_run(name: str, nth: int) -> str:
        with trainer(tmp_path / name / "fake") as fake:
            one = hosted(fake.url, concurrency=1, price=PRICE)
            file = bakeoff_file(tmp_path / name / "b", one, test=TESTS)
            run(file)
            where = dies(writes, nth, how, file, only="tuned", fresh=True, yes=True)
            told.extend(writes.told)
            ends_well(fake, file, where)
            saw = fake.saw()
        assert len(saw["jobs"]) <= 2, where
        assert all(n == 1 for f, n in saw["uploads"].items() if f.startswith("tuneoff-")), where
        assert saw["billed"]["completions"] <= 2 * TESTS + 2, where
        return where

    told: list[str] = []
    assert not one_run("whole", -1)
    # What comes after the job's intent is as in a first run.
    last = next(n for n, each in enumerate(told) if "job.json" in each)
    assert any("remove" in each for each in told[:last])
    for nth in range(last + 1):
        assert one_run(f"{nth}", nth)
