"""Token counts of an open model's tokenizer, offline and without torch.

Counted with the `tokenizers` library from a model's `tokenizer.json`: the same library, file
and chat template that transformers uses, which would take seconds to import. A hub id is
looked up in the local cache and never downloaded.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tuneoff.config import Rendering
from tuneoff.tokenization.chat_template import ChatTemplate, template_source

UNLIMITED = 2**31
# Names of the number of positions in a config.json; GPT-2 and its kin have the second.
POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """A model's tokenizer and how many `positions` the model has."""

    tokenizer: Tokenizer
    positions: int
    chat_template: str | None
    adds_bos: bool
    special: Mapping[str, str] = field(default_factory=dict)

    def count(self, text: str) -> int:
        """Tokens of a text, without any special ones."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def rendered(
        self, messages: Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> str:
        """Chat turns as the model sees them, up to where the assistant begins to answer.

        Raises:
            TemplateError: the template refuses the turns, or cannot be carried out.
        """
        return ChatTemplate(self.chat_template or "", self.special, today).render(messages)

    def prompt(self, text: str, rendering: Rendering) -> int:
        """Tokens of a prompt: a chat template writes its own BOS, plain text has none yet."""
        return self.count(text) + (rendering == "text" and self.adds_bos)

    def completion(self, text: str) -> int:
        """Tokens of an answer, with the one that ends it."""
        return self.count(text) + 1


@cache
def counter_of(base: str) -> TokenCounter | None:
    """The counter of a folder or of a hub id in the local cache; None where there is none,
    or no `tokenizer.json` in it."""
    config, file = file_of(base, "config.json"), file_of(base, "tokenizer.json")
    if config is None or file is None:
        return None
    tokenizer = Tokenizer.from_file(str(file))
    # A file may ask for truncation, and a text would then never be too long.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings_file = file_of(base, "tokenizer_config.json")
    settings = json.loads(settings_file.read_text()) if settings_file else {}
    special = _special_tokens(settings)
    return TokenCounter(
        tokenizer=tokenizer,
        positions=_positions(json.loads(config.read_text())),
        chat_template=_chat_template(settings, file_of(base, "chat_template.jinja")),
        adds_bos=_adds_bos(tokenizer, special.get("bos_token")),
        special=special,
    )


def file_of(base: str, name: str) -> Path | None:
    """A file of a folder, or of a hub id in the local cache; None where it is not there."""
    folder = Path(base)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, name)
    return Path(found) if isinstance(found, str) else None


def _positions(config: Mapping[str, Any]) -> int:
    return next((int(config[name]) for name in POSITIONS if config.get(name)), UNLIMITED)


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Names like `bos_token` with their text, which chat templates write out."""
    found = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _chat_template(settings: Mapping[str, Any], file: Path | None) -> str | None:
    if file is not None:
        return file.read_text(encoding="utf-8")
    return template_source(settings.get("chat_template"))


def _adds_bos(tokenizer: Tokenizer, bos: str | None) -> bool:
    """Whether a text begins with the BOS token. `tokenizer.json` decides; transformers does not
    look at `add_bos_token` of the settings beside it."""
    first = tokenizer.encode("a", add_special_tokens=True).ids[:1]
    return bos is not None and first == [tokenizer.token_to_id(bos)]
