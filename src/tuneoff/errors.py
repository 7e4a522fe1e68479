"""Everything tuneoff raises on purpose, and the exit code each one means.

    TuneoffError                  exit 1   base of all; never raised itself
    ├── UserError                 exit 2   what the user gave is wrong; nothing was lost
    │   ├── ConfigError           exit 2   (ValueError)   a bake-off file
    │   ├── DataError             exit 2   (ValueError)   examples, predictions, databases
    │   ├── RunDirectoryError     exit 2   (ValueError)   a run directory of another file
    │   └── MissingExtraError     exit 2   (ImportError)  an optional dependency is not installed
    ├── BudgetError               exit 3   the next paid step would pass the budget
    ├── ContenderError            exit 4   one contender failed; the others go on
    └── ProviderError             exit 4   (RuntimeError) a hosted API refused, or is out of reach
        ├── RefusedError          exit 4   the answer is no, and will be no again
        ├── BusyError             exit 4   not carried out; the same call may work later
        └── LostError             exit 4   no proper answer came: it may have been carried out
            └── UnreachableError  exit 4   no connection could be made

A message is one sentence: what was got, where, what is allowed, what to do next.
Each class also subclasses the standard exception a caller would expect, so that
`except ValueError` keeps working for people who do not know this tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class TuneoffError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class UserError(TuneoffError):
    """What the user gave is wrong; the message says what to change."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A bake-off file that cannot be carried out as it stands."""


class DataError(UserError, ValueError):
    """Examples, predictions or databases that cannot be used as they stand."""


class RunDirectoryError(UserError, ValueError):
    """A run directory that belongs to another bake-off file, or is not one."""


class MissingExtraError(UserError, ImportError):
    """An optional dependency is missing; the message holds the install command."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed: "
            f'run `pip install "tuneoff[{extra}]"`.'
        )


class BudgetError(TuneoffError):
    """The next paid step would pass `budget_usd`; everything done so far is kept."""

    exit_code = 3


class ContenderError(TuneoffError):
    """One contender failed; its error is written down and the others go on."""

    exit_code = 4


class ProviderError(TuneoffError, RuntimeError):
    """A hosted API refused, or could not be reached; what was paid for before is kept. `certain`:
    the request was not carried out. `tell` says a line to whoever waits, once an outage."""

    exit_code = 4
    certain = False
    tell: Callable[[str], None] | None = None


# The provider has no money left for us; the model must be deployed by its owner before it answers.
NOT_DEPLOYED = "not_deployed"
CONCERN_ALL = ("insufficient_quota", NOT_DEPLOYED)


class RefusedError(ProviderError):
    """A request that the provider refuses for good. `code` and `param` are the provider's words
    for why and for which part of it."""

    certain = True

    def __init__(
        self, message: str, status: int, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def concerns_all(self) -> bool:
        """Whether no other request of this kind would fare better: the key, the account, the
        address or the model is the trouble, not what was asked."""
        return self.status in (401, 402, 403, 404, 405) or self.code in CONCERN_ALL


class BusyError(ProviderError):
    """A request that the provider has no room for, to be sent again. `retry_after` is how many
    seconds it asks to wait; None where it does not say. `status` is 429 or 503; a 503 may be a
    gateway's word, the request carried out behind it."""

    def __init__(
        self, message: str, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after, self.status = retry_after, status
        self.certain = status == 429


class LostError(ProviderError):
    """A request without a proper answer. It may have been carried out, and billed. `status` is
    the server's; None where it sent nothing that can be read."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(LostError):
    """No connection could be made. `seen`: the server has answered before, so it is likely to come
    back. Not `certain` where a redirect may lie between, for what was sent may have been done."""

    def __init__(self, message: str, seen: bool = False, certain: bool = True) -> None:
        super().__init__(message)
        self.seen, self.certain = seen, certain


# Names that are offered for one that begins them; all of them are in the list before.
MOST_OFFERED = 5


def unknown(what: str, got: str, allowed: Iterable[str]) -> str:
    """Begin an "unknown id" sentence: what was got, and what is allowed.

    >>> unknown("task", "text_2_sql", ["chat", "text_to_sql"])
    "unknown task 'text_2_sql' (allowed: chat, text_to_sql; did you mean text_to_sql?)"
    >>> unknown("model", "small", ["small-1", "large-1", "small-2"])
    "unknown model 'small' (allowed: large-1, small-1, small-2; did you mean small-1 or small-2?)"
    """
    names = sorted(allowed)
    near = near_names(got, names)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {what} {got!r} (allowed: {', '.join(names)}{hint})"


def near_names(got: str, names: Iterable[str]) -> list[str]:
    """Return the names that may have been meant: those that begin with what was got, else the one
    that is most like it. Upper and lower case are the same."""
    folded = {name.casefold(): name for name in names}
    start = got.strip().casefold()
    begun = [name for each, name in folded.items() if start and each.startswith(start)]
    return begun[:MOST_OFFERED] or [folded[n] for n in get_close_matches(start, folded, n=1)]
