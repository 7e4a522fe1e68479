"""One-way imports: a module may import only from the layers below its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import tuneoff
from tuneoff.errors import ProviderError
from tuneoff.scoring.base import ScoringInput

PACKAGE = Path(tuneoff.__file__).parent
# From the top: each layer may import the ones after it, and not its own other entries.
LAYERS = (
    {"cli"},
    {"server", "export"},
    {"bakeoff", "cluster"},
    {"contenders"},
    {"costs", "imports", "inference", "report", "training"},
    {"prefix_sharing", "scoring"},
    {"models", "providers"},
    {"tasks", "tokenization"},
    {"prompts", "storage"},
    {"config", "plugins", "results"},
    {"environment", "errors", "progress", "records"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "ray",
    "openai",
    "together",
    "fastapi",
    "vllm",
    "datasets",
    "altair",
    "pydantic",
)


def entry(path: Path) -> str:
    """The layer entry a file belongs to: its package, or itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Entries of tuneoff that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"tuneoff.{alias.name}" for alias in node.names]
                if node.module == "tuneoff"
                else [node.module]
            )
        found |= {name.split(".")[1] for name in names if name.startswith("tuneoff.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = entry(path)
    if own == "assets":
        return
    assert own in LEVEL, f"{own} has no layer; give it one in this test and in the docs"
    for other in imported(path) - {own}:
        assert LEVEL[other] > LEVEL[own], f"{own} must not import {other}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, tuneoff.cli.main\n"
        "sys.argv = ['tuneoff', '--help']\n"
        "try: tuneoff.cli.main.main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: tuneoff" in done.stdout


def test_checking_a_file_imports_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: functional_representation, source: sample}\n"
        "contenders: [{name: a, id: local}]\n"
    )
    code = f"import sys, tuneoff\ntuneoff.check_file({str(file)!r})\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_few_modules_lie_beside_the_packages() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 9  # eight and __init__


def test_no_file_is_over_500_lines() -> None:
    folders = (PACKAGE, PACKAGE.parent.parent / "recipes", PACKAGE.parent.parent / "benchmarks")
    long = [
        p.name for f in folders for p in f.rglob("*.py") if len(p.read_text().splitlines()) > 500
    ]
    assert long == []


def test_public_names_are_sorted_and_there() -> None:
    assert list(tuneoff.__all__) == sorted(tuneoff.__all__)
    for name in tuneoff.__all__:
        assert getattr(tuneoff, name) is not None
    with pytest.raises(AttributeError):
        tuneoff.no_such_name  # noqa: B018


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest collects them as modules of one namespace: two of one name stop a whole suite."""
    tests = Path(__file__).parent
    counted = Counter(file.name for file in tests.rglob("*.py") if file.name != "conftest.py")
    assert [name for name, times in counted.items() if times > 1 and name != "__init__.py"] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_day_is_asked_of_environment_alone(path: Path) -> None:
    asked = re.findall(r"date\.today\b|datetime\.(?:utc)?now\b", path.read_text())
    assert not asked or entry(path) == "environment", "ask environment; tests set the day there"


def test_names_that_users_files_may_contain_still_work() -> None:
    row = ScoringInput("1", "a", "b")
    with pytest.warns(DeprecationWarning, match="raw_prediction"):
        assert row.given == "b"
    with pytest.warns(DeprecationWarning, match="is_truncated"):
        assert row.is_cut is False
    with pytest.warns(DeprecationWarning, match="not_executed"):
        assert ProviderError("no").certain is False
