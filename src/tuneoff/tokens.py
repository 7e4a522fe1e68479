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
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tuneoff.tokenization.chat_template import ChatTemplate, template_source
from tuneoff.tokenization.encode import Encoder, offline_encoder

UNLIMITED = 2**31
# Names of the number of positions in a config.json; GPT-2 and its kin have the second.
POSITIONS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class TokenCounter:
    """A model's tokenizer and how many `positions` the model has."""

    tokenizer: Tokenizer
    positions: int
    chat_template: str | None
    adds_bos: bool
    special: Mapping[str, str] = field(default_factory=dict)

    def _template(self, today: datetime.date | None = None) -> ChatTemplate:
        """Return the model's chat template; an empty one where it has none."""
        return ChatTemplate(self.chat_template or "", self.special, today)

    @cached_property
    def encoder(self) -> Encoder:
        """Return the encoder of prompts and answers."""
        return offline_encoder(self.tokenizer, self.special, self._template())

    def count(self, text: str) -> int:
        """Tokens of a text, without any special ones."""
        return len(self.encoder.encode_text(text))

    def rendered(
        self, messages: Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> str:
        """Chat turns as the model sees them, up to where the assistant begins to answer.

        Raises:
            TemplateError: the template refuses the turns, or cannot be carried out.
        """
        return self._template(today).render(messages)

    def prompt_ids(
        self, prompt: str | Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> list[int]:
        """Encode a prompt, a plain text or chat turns. A chat template writes its own BOS, plain
        text has none yet.

        Raises:
            TemplateError: the template refuses the turns, or cannot be carried out.
            SpellingError: the tokenizer cannot write as text what the prompt spells.
        """
        if not isinstance(prompt, str):
            return self.encoder.encode_turns(self._template(today), prompt)
        bos = self.tokenizer.token_to_id(self.special["bos_token"]) if self.adds_bos else None
        return [*([] if bos is None else [bos]), *self.encoder.encode_text(prompt)]

    def prompt(
        self, prompt: str | Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> int:
        """Count the tokens of a prompt, a plain text or chat turns."""
        return len(self.prompt_ids(prompt, today))

    @property
    def known(self) -> int:
        """Return how many ids the tokenizer may give: one more than the greatest."""
        added = self.tokenizer.get_added_tokens_decoder()
        return max(
            [self.tokenizer.get_vocab_size(with_added_tokens=False), *(n + 1 for n in added)]
        )

    def completion_ids(self, text: str) -> list[int]:
        """Encode an answer, with the token that ends it where the settings name it."""
        eos = self.tokenizer.token_to_id(self.special.get("eos_token", ""))
        return [*self.encoder.encode_text(text), *([] if eos is None else [eos])]

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
    settings = _settings(base)
    special = _special_tokens(settings)
    # As transformers does, which knows special tokens by the settings, too.
    tokenizer.add_special_tokens([special[role] for role in _ROLES if role in special])
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


_ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# Tokenizers of these classes have no special tokens but those that their files name.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")


def names_end(base: str) -> bool | None:
    """Say whether the files of a base's tokenizer name an end-of-sequence token; None where they do
    not say, or are not here."""
    settings = _settings(base)
    if _special_tokens(settings).get("eos_token"):
        return True
    told_elsewhere = file_of(base, "special_tokens_map.json") is not None
    plain = settings.get("tokenizer_class") in _PLAIN_CLASSES
    return False if plain and not told_elsewhere else None


def _settings(base: str) -> dict[str, Any]:
    file = file_of(base, "tokenizer_config.json")
    return dict(json.loads(file.read_text())) if file else {}


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
