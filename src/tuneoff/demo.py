"""The demo: both sample tasks, four contenders each, from files that ship with tuneoff."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from tuneoff import bakeoff
from tuneoff.bakeoff_file import load
from tuneoff.progress import Progress
from tuneoff.records import Results

FILES = ("demo-functional.yaml", "demo-sql.yaml")


def run_demo(folder: Path, progress: Progress) -> list[tuple[Path, Results]]:
    """Carries out (or goes on with) the demo's bake-offs below `folder`."""
    finished = []
    for name in FILES:
        with as_file(files("tuneoff.assets") / name) as path:
            settings = load(path)
        run_dir = folder / settings.name
        results = bakeoff.run(settings, run_dir, progress=progress, command="tuneoff demo")
        finished.append((run_dir, results))
    return finished
