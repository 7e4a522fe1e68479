"""The lowest versions: what `make test-lowest` installs is what pyproject.toml allows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def lowest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lowest", ROOT / ".ci" / "lowest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_floors_are_those_that_are_tried(lowest: ModuleType) -> None:
    text = (ROOT / "constraints-lowest.txt").read_text()
    assert text == lowest.floors(), "run `python .ci/lowest.py write`, then `make test-lowest`"
    # No older build of torch for CPUs is to be had than the one that all tests run with.
    floor = next(line for line in text.splitlines() if line.startswith("torch=="))
    tried = (ROOT / "constraints.txt").read_text().splitlines()
    assert any(line == floor or line == f"{floor}.0" for line in tried)


def test_a_requirement_without_a_floor_is_refused(lowest: ModuleType, tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    whole = (ROOT / "pyproject.toml").read_text()
    project.write_text(whole.replace('"peft>=0.21"', '"peft>=0.20,<1"'))
    assert "peft==0.20\n" in lowest.floors(project)
    project.write_text(whole.replace('"peft>=0.21"', '"peft"'))
    with pytest.raises(ValueError, match="peft: give it a floor"):
        lowest.floors(project)
