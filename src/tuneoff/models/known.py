"""The configuration of a base without network: its own file where it is here, else that of a
well-known base (`architectures.yaml`)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tuneoff.tokens import file_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES = Path(__file__).parent / "architectures.yaml"


def config_of(base: str) -> PretrainedConfig | None:
    """The configuration of a folder, of a hub id in the local cache, or of a well-known base;
    None where it is none of these, or of a kind that this version of transformers lacks."""
    from transformers import CONFIG_MAPPING

    file = file_of(base, "config.json")
    values = dict(json.loads(file.read_text()) if file else architectures().get(base, {}))
    kind = values.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        return None
    found: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(values)
    return found


@cache
def architectures() -> dict[str, dict[str, Any]]:
    """Well-known bases and what their config.json says."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(ARCHITECTURES.read_text())
    return found
