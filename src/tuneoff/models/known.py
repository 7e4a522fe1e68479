"""The configuration of a base without network access.

It comes from the base's own file where it is here, else from the list of well-known bases
(`architectures.yaml`).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tuneoff.tokenization.offline import find_file

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES = Path(__file__).parent / "architectures.yaml"


def find_base_config(base: str) -> PretrainedConfig | None:
    """Return the configuration of a folder, a cached hub id, or a well-known base.

    None if it is none of these, or of a model type that this version of transformers lacks.
    """
    from transformers import CONFIG_MAPPING

    file = find_file(base, "config.json")
    values = dict(json.loads(file.read_text()) if file else load_architectures().get(base, {}))
    kind = values.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        return None
    config: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(values)
    return config


@cache
def load_architectures() -> dict[str, dict[str, Any]]:
    """Return the well-known bases and the contents of their config.json."""
    known: dict[str, dict[str, Any]] = yaml.safe_load(ARCHITECTURES.read_text())
    return known
