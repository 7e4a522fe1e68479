"""Counts tokens of open models' tokenizers, offline and without torch.

The counts use the `tokenizers` library and a model's `tokenizer.json`: the same library, file and
chat template as in transformers, whose import takes seconds. A hub id is looked up in the local
cache and never downloaded.
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

from tuneoff.tokenization.chat_template import ChatTemplate, find_template_source
from tuneoff.tokenization.encode import Encoder, build_offline_encoder

UNLIMITED_POSITIONS = 2**31
# Keys of the number of positions in a config.json; GPT-2 and its relatives use the second.
POSITION_KEYS = ("max_position_embeddings", "n_positions")


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens with a model's tokenizer."""

    tokenizer: Tokenizer
    positions: int
    """The number of positions of the model."""
    chat_template: str | None
    """The source of its chat template; None if it has none."""
    adds_bos: bool
    """Whether a plain text begins with the BOS token."""
    special: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by name (`bos_token`: `<s>`)."""

    def _template(self, today: datetime.date | None = None) -> ChatTemplate:
        """Return the model's chat template; an empty one if it has none."""
        return ChatTemplate(self.chat_template or "", self.special, today)

    @cached_property
    def encoder(self) -> Encoder:
        """Return the encoder of prompts and answers."""
        return build_offline_encoder(self.tokenizer, self.special, self._template())

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, without special ones."""
        return len(self.encoder.encode_text(text))

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> str:
        """Return chat turns as the model sees them, up to where the assistant begins to answer.

        Raises:
            TemplateError: the template refuses the turns, or fails.
        """
        return self._template(today).render(messages)

    def encode_prompt(
        self, prompt: str | Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> list[int]:
        """Return the token ids of a prompt, a plain text or chat turns.

        A chat template writes its own BOS; plain text gets one here.

        Raises:
            TemplateError: the template refuses the turns, or fails.
            SpellingError: it spells a special token that the tokenizer cannot write as text.
        """
        if not isinstance(prompt, str):
            return self.encoder.encode_turns(self._template(today), prompt)
        bos = self.tokenizer.token_to_id(self.special["bos_token"]) if self.adds_bos else None
        return [*([] if bos is None else [bos]), *self.encoder.encode_text(prompt)]

    def count_prompt(
        self, prompt: str | Sequence[Mapping[str, str]], today: datetime.date | None = None
    ) -> int:
        """Return the number of tokens of a prompt, a plain text or chat turns."""
        return len(self.encode_prompt(prompt, today))

    @property
    def vocabulary_size(self) -> int:
        """Return the number of ids that the tokenizer may produce: the greatest plus one."""
        added = self.tokenizer.get_added_tokens_decoder()
        return max(
            [self.tokenizer.get_vocab_size(with_added_tokens=False), *(n + 1 for n in added)]
        )

    def encode_completion(self, text: str) -> list[int]:
        """Return the token ids of an answer, with the end token if the settings name one."""
        eos = self.tokenizer.token_to_id(self.special.get("eos_token", ""))
        return [*self.encoder.encode_text(text), *([] if eos is None else [eos])]

    def count_completion(self, text: str) -> int:
        """Return the number of tokens of an answer, with its end token."""
        return self.count(text) + 1


@cache
def load_counter(base: str) -> TokenCounter | None:
    """Return the counter of a folder or a cached hub id; None without a `tokenizer.json`."""
    config, file = find_file(base, "config.json"), find_file(base, "tokenizer.json")
    if config is None or file is None:
        return None
    tokenizer = Tokenizer.from_file(str(file))
    # A file may request truncation; then no text would ever be too long.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    settings = _read_settings(base)
    special = _find_special_tokens(settings)
    # Transformers also reads special tokens from the settings.
    tokenizer.add_special_tokens([special[role] for role in _ROLES if role in special])
    return TokenCounter(
        tokenizer=tokenizer,
        positions=_find_positions(json.loads(config.read_text())),
        chat_template=_find_chat_template(settings, find_file(base, "chat_template.jinja")),
        adds_bos=_needs_bos(tokenizer, special.get("bos_token")),
        special=special,
    )


def find_file(base: str, name: str) -> Path | None:
    """Return a file of a folder or a cached hub id; None if it is not there."""
    folder = Path(base)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(base, name)
    return Path(cached) if isinstance(cached, str) else None


_ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# Tokenizers of these classes have only the special tokens that their files name.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")


def has_eos_token(base: str) -> bool | None:
    """Return whether a base's tokenizer files name an end-of-sequence token; None if unknown."""
    settings = _read_settings(base)
    if _find_special_tokens(settings).get("eos_token"):
        return True
    has_token_map = find_file(base, "special_tokens_map.json") is not None
    plain = settings.get("tokenizer_class") in _PLAIN_CLASSES
    return False if plain and not has_token_map else None


def _read_settings(base: str) -> dict[str, Any]:
    """Return the contents of tokenizer_config.json; empty if there is none."""
    file = find_file(base, "tokenizer_config.json")
    return dict(json.loads(file.read_text())) if file else {}


def _find_positions(config: Mapping[str, Any]) -> int:
    """Return the number of positions in a config.json."""
    return next(
        (int(config[name]) for name in POSITION_KEYS if config.get(name)), UNLIMITED_POSITIONS
    )


def _find_special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of special tokens by name (`bos_token`), as chat templates write them."""
    tokens = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _find_chat_template(settings: Mapping[str, Any], file: Path | None) -> str | None:
    """Return the source of the chat template; None if there is none."""
    if file is not None:
        return file.read_text(encoding="utf-8")
    return find_template_source(settings.get("chat_template"))


def _needs_bos(tokenizer: Tokenizer, bos: str | None) -> bool:
    """Return whether a text begins with the BOS token.

    `tokenizer.json` decides; transformers ignores `add_bos_token` in the settings beside it.
    """
    first = tokenizer.encode("a", add_special_tokens=True).ids[:1]
    return bos is not None and first == [tokenizer.token_to_id(bos)]
