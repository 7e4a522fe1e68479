"""The tuned models of an account, and when each of them ends."""

from __future__ import annotations

import datetime
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tuneoff.costs.pricebook import book
from tuneoff.providers import Provider, connect
from tuneoff.providers.calls import repeated


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tuned models are."""

    provider: str = "openai"
    base_url: str | None = None
    key_variable: str | None = None

    def connect(self) -> Provider:
        """The provider; raises ConfigError without a key."""
        return connect(self.provider, self.base_url, self.key_variable)

    def written(self) -> dict[str, str]:
        """As a contender's keys."""
        found = {"provider": self.provider, "base_url": self.base_url}
        found["key_variable"] = self.key_variable
        return {key: value for key, value in found.items() if value is not None}


def tuned_models(source: Source) -> list[dict[str, Any]]:
    """An account's tuned models, those that end first at the top: `model`, `base`, `ends`,
    `replacement`, `training_file`, `validation_file` (ids; None: not known)."""
    prices, found = book(), []
    with closing(source.connect()) as provider:
        models = repeated(provider.tuned_models)
    for each in models:
        end = None
        if source.base_url is None or source.provider == "azure":
            end = prices.end_of(source.provider, each.base, tuned=True)
        found.append(
            {
                "model": each.model,
                "base": each.base,
                "ends": end.ends.isoformat() if end and end.ends else None,
                "replacement": end.replacement if end else None,
                "training_file": each.training_file,
                "validation_file": each.validation_file,
            }
        )
    return sorted(found, key=lambda row: row["ends"] or datetime.date.max.isoformat())
