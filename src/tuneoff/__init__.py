"""tuneoff: for this task, which fine-tuned model should I use?

import tuneoff
results = tuneoff.run(tuneoff.load("bakeoff.yaml"))
print(results.recommendation.choice)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneoff.bakeoff.check import check_file
    from tuneoff.bakeoff.parity import parity
    from tuneoff.bakeoff.plan.plan import plan
    from tuneoff.bakeoff.run import run
    from tuneoff.bakeoff.score import score
    from tuneoff.config.load import load
    from tuneoff.config.schema import BakeOff
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
    from tuneoff.export.export import Exported, export_contender
    from tuneoff.records import Example, Prediction
    from tuneoff.report import write_report
    from tuneoff.results import Results, Score

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
    "bakeoff.check": ("check_file",),
    "bakeoff.parity": ("parity",),
    "bakeoff.plan.plan": ("plan",),
    "bakeoff.run": ("run",),
    "bakeoff.score": ("score",),
    "config.load": ("load",),
    "config.schema": ("BakeOff",),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "export.export": ("Exported", "export_contender"),
    "records": ("Example", "Prediction"),
    "report": ("write_report",),
    "results": ("Results", "Score"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tuneoff' has no attribute {name!r}")
    return getattr(import_module(f"tuneoff.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
