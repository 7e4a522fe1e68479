"""From a hosted fine-tune that is ending to what follows it, with proof that it is as good.

Three steps, each of which can be repeated without paying twice. `listing` says what an account
has, when it ends and what is still there of it, `new_jobs` whether it can tune new ones. `saving`
fetches what a provider has of a model, or of all (`artifacts`), and has it answer a test set while
it still can (`capture`; its answers are kept for good as a `recorded` contender); `exits` writes
the bake-off file of what may follow it. `verdicts` says, when that has run, whether the others
match: by non-inferiority, for "no difference was found" proves nothing.
"""

from tuneoff.migration.exits import USUAL_BASES
from tuneoff.migration.listing import Source, list_models
from tuneoff.migration.saving import Wishes, migrate, migrate_all
from tuneoff.migration.verdicts import parity_of

__all__ = [
    "USUAL_BASES",
    "Source",
    "Wishes",
    "list_models",
    "migrate",
    "migrate_all",
    "parity_of",
]
