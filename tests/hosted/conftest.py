"""A fake trainer for each test that asks for one, and pauses that are short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from child import PAUSES
from world import KEY, Trainer, trainer

from tuneoff import environment
from tuneoff.bakeoff import run as bakeoff


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Trainer]:
    with trainer(tmp_path / "fake") as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return KEY


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about the report, which takes longer than all else (`child.py --bare`)."""
    monkeypatch.setattr(bakeoff, "write_report", lambda run: (run.path, run.path))
    monkeypatch.setattr(environment, "describe_machine", lambda: "a machine")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `child.py` has them."""
    for module, name, seconds in PAUSES:
        monkeypatch.setattr(module, name, seconds)
