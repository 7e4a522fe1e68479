"""`docs/count_style.py` on a small tree, with values counted by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "docs" / "count_style.py"
CONFIG = '''
class LocalSettings:
    """What users write."""


class GradeConfig:
    """Another."""
'''
WORK = '''
from typing import Any, overload
from pretrained import ForeignConfig


def load_rows(settings: Any, kind: Any, limit: LocalSettings) -> Any:
    """Return the rows. A second sentence is not counted, even if it makes the docstring long.
    """
    getattr(settings, "data", None)
    getattr(kind, "value", kind)
    hasattr(limit, "train")
    getattr(model.config, "head_dim", None)
    hasattr(first, "failing")
    isinstance(settings, LocalSettings | GradeConfig)
    isinstance(config, ForeignConfig)


def price_tokens(price: int) -> int:
    """The price of tokens."""
    def inner() -> int:
        return price
    return inner()


def price_for(settings: Any) -> int:
    return 1


def _rows(config: Any, model: Any) -> None:
    """Whether one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty."""


@overload
def load(name: str) -> None: ...


def __getattr__(name: str) -> None: ...


class Rows:
    def first(self) -> int:
        return 0

    def _second(self) -> int:
        """`Return` a number."""
        return 0
'''
CLI = '''
from tuneoff.cli import rows

for each in (rows.show, rows.demo):
    app.command()(each)


@app.callback()
def options() -> None:
    """A callback."""


def main() -> None:
    app()
'''
ROWS = '''
def show() -> None:
    """Show rows."""


def demo() -> None:
    """Show a demo."""


def helper() -> None:
    """Help."""
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "tuneoff"
    files = {
        "__init__.py": "",
        "config.py": CONFIG,
        "work.py": WORK,
        "long.py": "x = 1\n" * 401,
        "cli/__init__.py": CLI,
        "cli/rows.py": ROWS,
        "assets/table.yaml": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return tmp_path


def count(root: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, SCRIPT, root, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


def test_every_count_of_a_small_tree(checkout: Path) -> None:
    assert count(checkout) == {
        "files": 6,
        "files_over_400_lines": 1,
        "files_over_500_lines": 0,
        "modules_at_root": 3,
        "packages_at_root": 1,
        "layers": None,
        "functions": 14,
        "median_function_lines": 2,
        "p90_function_lines": 5,
        "module_level_functions": 5,
        "module_level_entries": 4,
        "begin_with_verb": 2,
        "begin_with_verb_share": 0.4,
        "function_docstrings": 8,
        "open_with_article": 3,
        "open_with_article_share": 0.375,
        "first_sentence_too_long": 1,
        "public_without_docstring": 4,
        "settings_any": 2,
        "config_any": 1,
        "contender_any": 0,
        "scorer_any": 0,
        "getattr_on_ours": 3,
        "isinstance_on_settings": 1,
    }


def test_places_are_listed_by_module(checkout: Path) -> None:
    places = count(checkout, "--list")["places"]
    assert places["no_verb"] == {
        "tuneoff/cli/rows.py": ["helper"],
        "tuneoff/work.py": ["price_for", "_rows"],
    }
    assert places["entries"] == {
        "tuneoff/cli/__init__.py": ["options", "main"],
        "tuneoff/cli/rows.py": ["show", "demo"],
    }
    assert [each.split(": ", 1)[1] for each in places["getattr"]["tuneoff/work.py"]] == [
        "getattr(settings, 'data', None)",
        "hasattr(limit, 'train')",
        "hasattr(first, 'failing')",
    ]


def test_layers_are_those_of_the_layer_test(checkout: Path) -> None:
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_layers.py").write_text('LAYERS = ({"cli"}, {"work", "config"})\n')
    assert count(checkout)["layers"] == 2
