"""Moves from a hosted fine-tune that is ending to a successor that is shown to be as good.

There are three steps, each of which can be repeated without paying twice. `listing` lists an
account's models, when they end and which of their files still exist; `new_jobs` says whether the
account can tune new ones. `saving` downloads the files of a model, or of all (`artifacts`), and has
it answer a test set while it still can (`capture`; its answers are kept as a `recorded` contender);
`exits` writes the bake-off file with the exits from it. After that has run, `verdicts` says which
exits hold, what they cost a month and until when they last.
"""

from tuneoff.bakeoff.migration.exits import ExitOptions
from tuneoff.bakeoff.migration.listing import ProviderAccount, list_models
from tuneoff.bakeoff.migration.saving import MigrationOptions, migrate, migrate_all
from tuneoff.bakeoff.migration.verdicts import judge_exits, summarize_exits

__all__ = [
    "ExitOptions",
    "MigrationOptions",
    "ProviderAccount",
    "judge_exits",
    "list_models",
    "migrate",
    "migrate_all",
    "summarize_exits",
]
