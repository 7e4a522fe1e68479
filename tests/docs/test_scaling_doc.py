"""docs/scaling.md shows what its script derives from the formulas and the price book of today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_the_tables_are_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("scaling_table", DOCS / "scaling_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    shown = (DOCS / "scaling.md").read_text()
    between = shown.partition(script.BEGINS)[2].partition(script.ENDS)[0]
    assert between.strip() == script.text().strip(), "run docs/scaling_table.py --write"
