"""The guides for contributors: the picture shows today's imports, and what they name is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tuneoff

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(tuneoff.__file__).parent
SCRIPT = ROOT / "docs" / "draw_packages.py"
# `scoring/`, `scoring/base.py` and `scoring/base.py:Scorer.score_rows`, but not `report.md`: only
# Python files are named without a folder.
FOLDERS, FILE = r"(?:[\w.-]+/)+", r"[\w.-]*\w\.(?:py|md|yaml|json|txt)"
PLACE = re.compile(rf"`({FOLDERS}(?:{FILE})?|\w+\.py)(?::([\w.]+))?`")


def draw(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, root, *options], capture_output=True, text=True)


def test_the_picture_shows_the_imports_of_today() -> None:
    done = draw(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_arrows_that_follow_from_others_and_those_to_the_last_row_are_left_out(
    tmp_path: Path,
) -> None:
    checkout = write_checkout(tmp_path, {"a": "b, c", "b": "c", "c": "d", "d": ""})
    page = checkout / "docs" / "architecture.md"
    assert draw(checkout, "--check").returncode == 1
    assert draw(checkout).returncode == 0
    text = page.read_text()
    assert [line.strip() for line in text.splitlines() if "-->" in line and "<" not in line] == [
        "a --> b",
        "b --> c",
    ]
    assert text.startswith("Before\n")
    assert text.endswith("After\n")
    assert draw(checkout, "--check").returncode == 0


def test_an_import_that_leads_up_is_refused(tmp_path: Path) -> None:
    done = draw(write_checkout(tmp_path, {"a": "", "b": "a", "c": "", "d": ""}))
    assert (done.returncode, done.stderr) == (
        1, "b imports a, which is not in a layer below its own.\n",
    )  # fmt: skip


def write_checkout(folder: Path, imports: dict[str, str]) -> Path:
    """Write modules `a` to `d` in layers of this order, and a page with empty markers."""
    for name, imported in imports.items():
        module = folder / "src" / "tuneoff" / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(f"from tuneoff import {imported}\n" if imported else "")
    for name, text in {
        "tests/test_layers.py": 'LAYERS = ({"a"}, {"b"}, {"c"}, {"d"})\n',
        "docs/architecture.md": "Before\n<!-- packages: drawn by docs/draw_packages.py -->\n"
        "<!-- packages: end -->\nAfter\n",
    }.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_and_names_of_a_guide_are_there(page: str) -> None:
    named = PLACE.findall((ROOT / page).read_text())
    assert named, "the pattern finds nothing"
    missing = [f"{path}:{name}" for path, name in named if not is_there(path, name)]
    assert missing == []


def is_there(path: str, name: str) -> bool:
    """Return whether a file exists (in the package or the repository) and defines a name."""
    file = next((base / path for base in (PACKAGE, ROOT) if (base / path).exists()), None)
    if file is None or not name:
        return file is not None
    body = ast.parse(file.read_text()).body
    for part in name.split("."):
        found = [node for node in body if part in list_defined(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def list_defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines: a function, a class, a constant or a field."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
