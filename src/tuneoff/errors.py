"""Every error that tuneoff raises on purpose, with its exit code.

    TuneoffError                  exit 1   base class; never raised itself
    ├── UserError                 exit 2   the user's input is wrong; nothing was lost
    │   ├── ConfigError           exit 2   (ValueError)   a bake-off file, an option
    │   ├── DataError             exit 2   (ValueError)   examples, predictions, databases
    │   ├── RunDirectoryError     exit 2   (ValueError)   a run directory of another file
    │   └── MissingExtraError     exit 2   (ImportError)  an optional dependency is not installed
    ├── BudgetError               exit 3   the next paid step could exceed the budget
    ├── ContenderError            exit 4   one contender failed; the others continue
    └── ProviderError             exit 4   (RuntimeError) a hosted API refused, or is out of reach
        ├── RejectedError         exit 4   rejected for good
        ├── RateLimitedError      exit 4   rate limited; the same request may work later
        └── UnknownOutcomeError   exit 4   unknown outcome: it may have been carried out
            └── UnreachableError  exit 4   no connection could be made

A message is one sentence: what was given, where, what is allowed, what to do next. Each class also
subclasses the standard exception that a caller would expect, so that `except ValueError` works for
people who do not know this tree.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class TuneoffError(Exception):
    """Base class of every error that is raised on purpose."""

    exit_code = 1


class UserError(TuneoffError):
    """The user's input is wrong; the message says what to change."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A bake-off file or an option that cannot be used as it stands."""


class DataError(UserError, ValueError):
    """Examples, predictions or databases that cannot be used as they stand."""


class RunDirectoryError(UserError, ValueError):
    """A run directory of another bake-off file, or a folder that is none."""


class MissingExtraError(UserError, ImportError):
    """An optional dependency is missing; the message holds the install command."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed: "
            f'run `pip install "tuneoff[{extra}]"`.'
        )


class BudgetError(TuneoffError):
    """The next paid step could exceed `budget_usd`; everything done so far is kept."""

    exit_code = 3


class ContenderError(TuneoffError):
    """One contender failed. Its error is stored, and the others continue."""

    exit_code = 4


class ProviderError(TuneoffError, RuntimeError):
    """A hosted API refused a request, or could not be reached. What was paid before is kept.

    `not_executed`: the request was not carried out.
    """

    exit_code = 4
    not_executed = False
    tell: Callable[[str], None] | None = None
    """Shows a line to whoever waits, once per outage."""

    @property
    def certain(self) -> bool:
        """Return `not_executed`, under the name that it had before."""
        warn_renamed("ProviderError.certain", "not_executed")
        return self.not_executed


# Codes that concern every request: no credit left at the provider; a model that its owner must
# deploy first.
NOT_DEPLOYED = "not_deployed"
ACCOUNT_CODES = ("insufficient_quota", NOT_DEPLOYED)


class RejectedError(ProviderError):
    """A request that the provider rejects for good.

    `code` and `param` are the provider's words: why, and for which part of the request.
    """

    not_executed = True

    def __init__(
        self, message: str, status: int, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def concerns_all(self) -> bool:
        """Return whether every other request of this kind would be rejected too.

        The key, the account, the address or the model is then the cause, not the content of the
        request.
        """
        return self.status in (401, 402, 403, 404, 405) or self.code in ACCOUNT_CODES


class RateLimitedError(ProviderError):
    """A request that was rate limited, and may be retried.

    `retry_after` is how many seconds the provider asks to wait; None where it does not say.
    `status` is 429 or 503. With a 503 the outcome is unknown: it may be a gateway's answer, with
    the request carried out behind it.
    """

    def __init__(
        self, message: str, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after, self.status = retry_after, status
        self.not_executed = status == 429


class UnknownOutcomeError(ProviderError):
    """A request whose outcome is unknown: it may have been carried out, and billed.

    `status` is the server's; None where it sent nothing readable.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(UnknownOutcomeError):
    """No connection could be made.

    `seen`: the server has answered before, so it is likely to come back. `not_executed` is
    false where a redirect may lie in between: what was sent may have been carried out.
    """

    def __init__(self, message: str, seen: bool = False, not_executed: bool = True) -> None:
        super().__init__(message)
        self.seen, self.not_executed = seen, not_executed


# Max names that are suggested for a prefix. All of them are in the list before.
MAX_SUGGESTIONS = 5


def explain_unknown(what: str, got: str, allowed: Iterable[str]) -> str:
    """Return the beginning of an "unknown id" sentence: what was given, and what is allowed.

    >>> explain_unknown("task", "text_2_sql", ["chat", "text_to_sql"])
    "unknown task 'text_2_sql' (allowed: chat, text_to_sql; did you mean text_to_sql?)"
    >>> explain_unknown("model", "small", ["small-1", "large-1", "small-2"])
    "unknown model 'small' (allowed: large-1, small-1, small-2; did you mean small-1 or small-2?)"
    """
    names = sorted(allowed)
    near = find_near_names(got, names)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {what} {got!r} (allowed: {', '.join(names)}{hint})"


def find_near_names(got: str, names: Iterable[str]) -> list[str]:
    """Return the names that may have been meant, whatever their case.

    They are those that begin with what was given, else the most similar one.
    """
    folded = {name.casefold(): name for name in names}
    start = got.strip().casefold()
    begun = [name for each, name in folded.items() if start and each.startswith(start)]
    return begun[:MAX_SUGGESTIONS] or [folded[n] for n in get_close_matches(start, folded, n=1)]


def warn_renamed(old: str, new: str) -> None:
    """Warn that a name which users' files may contain has changed."""
    warnings.warn(f"{old} is now called {new}.", DeprecationWarning, stacklevel=3)
