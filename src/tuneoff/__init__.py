"""tuneoff: for this task, which fine-tuned model should I use?

import tuneoff
results = tuneoff.run(tuneoff.load("bakeoff.yaml"))
print(results.recommendation.choice)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneoff.bakeoff import run
    from tuneoff.bakeoff_file import load
    from tuneoff.check import check_file
    from tuneoff.config import BakeOff
    from tuneoff.errors import (
        BudgetError,
        ConfigError,
        ContenderError,
        DataError,
        MissingExtraError,
        ProviderError,
        RunDirectoryError,
        TuneoffError,
        UserError,
    )
    from tuneoff.export import Exported, export_contender
    from tuneoff.parity_check import parity
    from tuneoff.planning import plan
    from tuneoff.records import Example, Prediction
    from tuneoff.report import write_report
    from tuneoff.results import Results, Score
    from tuneoff.score_file import score

__all__ = [
    "BakeOff",
    "BudgetError",
    "ConfigError",
    "ContenderError",
    "DataError",
    "Example",
    "Exported",
    "MissingExtraError",
    "Prediction",
    "ProviderError",
    "Results",
    "RunDirectoryError",
    "Score",
    "TuneoffError",
    "UserError",
    "check_file",
    "export_contender",
    "load",
    "parity",
    "plan",
    "run",
    "score",
    "write_report",
]

# Resolved when first used, so that `import tuneoff` and `tuneoff --help` load no torch.
_HOMES = {
    "bakeoff": ("run",),
    "check": ("check_file",),
    "bakeoff_file": ("load",),
    "config": ("BakeOff",),
    "parity_check": ("parity",),
    "planning": ("plan",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "export": ("Exported", "export_contender"),
    "records": ("Example", "Prediction"),
    "report": ("write_report",),
    "results": ("Results", "Score"),
    "score_file": ("score",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tuneoff' has no attribute {name!r}")
    return getattr(import_module(f"tuneoff.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
