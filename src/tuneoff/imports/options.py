"""The options of `tuneoff import`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal, cast, get_args

from tuneoff.errors import ConfigError, explain_unknown
from tuneoff.imports.personal_data import KINDS

Repeats = Literal["latest", "all"]
TEST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The user's choices for an import."""

    test_share: float = TEST_SHARE
    """The share of the rows, the newest ones, that become test rows: from 0 to below 1."""
    test_from: datetime.datetime | None = None
    """Rows from this time on are test rows; it replaces `test_share`."""
    repeats: Repeats = "latest"
    """Which of different answers to one prompt are kept: the `latest`, or `all`."""
    model: str | None = None
    """Keep the answers of this model alone."""
    limit: int | None = None
    """Max rows, the newest ones."""
    redact: tuple[str, ...] = ()
    """The kinds of personal data to replace by their name in brackets."""
    reference: str | None = None
    """The field of an eval's item that is its reference."""


def read_options(
    test_share: float,
    test_from: datetime.datetime | None,
    repeats: str,
    model: str | None,
    limit: int | None,
    redact: str | None,
    reference: str | None = None,
) -> ImportOptions:
    """Return the options of the command line.

    Raises:
        ConfigError: one of them is not allowed.
    """
    if not 0 <= test_share < 1:
        raise ConfigError(f"--test-share is {test_share:g}; it must be from 0 to below 1.")
    if repeats not in get_args(Repeats):
        raise ConfigError(f"--repeats: {explain_unknown('choice', repeats, get_args(Repeats))}.")
    kinds = tuple(dict.fromkeys(kind.strip() for kind in (redact or "").split(",") if kind.strip()))
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--redact: {explain_unknown('kind', kind, KINDS)}.")
    if test_from is not None and test_from.tzinfo is None:
        test_from = test_from.replace(tzinfo=datetime.UTC)
    kept = cast("Repeats", repeats)
    return ImportOptions(test_share, test_from, kept, model, limit, kinds, reference)
