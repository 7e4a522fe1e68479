"""Results → report.html, report.md and charts/*.svg in the run directory.

`write_report` can be called again at any time; it reads only the run directory. Every number that
is shown comes from `results.json`, every text from the run directory.
"""

from __future__ import annotations

from pathlib import Path

from tuneoff.report.recommendation import recommend
from tuneoff.storage.run_dir import RunDir

__all__ = ["recommend", "write_report"]


def write_report(run: RunDir, with_examples: bool = True) -> tuple[Path, Path]:
    """Write the report of a finished run; return the paths of the HTML and the Markdown.

    `with_examples=False` omits the examples and answers, for data that may not be shared.

    Raises:
        RunDirectoryError: the run directory holds no usable results.json.
    """
    from tuneoff.report.render import write_pages

    return write_pages(run, with_examples)
