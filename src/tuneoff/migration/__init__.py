"""From a hosted fine-tune that is ending to what follows it, with proof that it is as good.

Three steps, each of which can be repeated without paying twice. `listing` says what an account has
and when it ends. `saving` fetches the examples that a model was tuned on and has it answer a test
set while it still can (kept for good as a `recorded` contender); `exits` writes the bake-off file
of what may follow it. `verdicts` says, when that has run, whether the others match: by
non-inferiority, for "no difference was found" proves nothing.
"""

from tuneoff.migration.exits import Choices
from tuneoff.migration.listing import Source, tuned_models
from tuneoff.migration.saving import migrate
from tuneoff.migration.verdicts import parity_of, summarize_exits

__all__ = ["Choices", "Source", "migrate", "parity_of", "summarize_exits", "tuned_models"]
