"""A fake trainer for each test that asks for one, and pauses that are short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import KEY, Trainer, trainer

from tuneoff.contenders import hosted_job, once
from tuneoff.providers import calls


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


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `child.py` has them."""
    monkeypatch.setattr(calls, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_SECONDS", 0.2)
    for name, seconds in (
        ("FIRST_LOOK_SECONDS", 0.02), ("LAST_LOOK_SECONDS", 0.2), ("UPLOADED_SECONDS", 1.0),
    ):  # fmt: skip
        monkeypatch.setattr(hosted_job, name, seconds)
    monkeypatch.setattr(once, "LOOK_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(once, "SETTLED_SECONDS", 1.0)
