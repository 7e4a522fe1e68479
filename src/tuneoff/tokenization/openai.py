"""Counts tokens as hosted providers bill them, and their default epochs: offline, without torch.

OpenAI (and Azure) bill each message with 3 tokens, the tokens of its role and the tokens of its
content. A name adds its tokens and one more. Each conversation adds 3. An example longer than a
model's training limit is truncated there. Encodings come from `bpe-openai`, which contains the
vocabularies. Sources: OpenAI's cookbook, "Data preparation and analysis for chat model fine-tuning"
and "How to count tokens"; checked against the seed experiment's bills. For cached prompts: its
guide "Prompt caching".

Which examples a job trains on, and for how many epochs, is known to the provider module
(`providers/`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from typing import Any, Literal

Encoding = Literal["cl100k_base", "o200k_base"]
PER_MESSAGE, PER_CONVERSATION, PER_NAME = 3, 3, 1
# Models with the smaller vocabulary; gpt-4o and all newer ones have the larger one.
_OLDER = ("gpt-3.5", "gpt-35", "gpt-4-", "davinci-", "babbage-")
# Maximum tokens of one training example, from the fine-tuning guide; 65,536 for newer models.
_TRAINING_LIMITS = {"gpt-3.5-turbo-0613": 4_096, "gpt-3.5": 16_385, "gpt-35": 16_385}
NEWER_TRAINING_LIMIT = 65_536

# Minimum tokens of a prompt that the provider caches automatically.
MIN_CACHED_PROMPT = 1024
USUAL_EPOCHS, MIN_EPOCHS, MAX_EPOCHS = 3, 1, 25
MIN_SEEN, MAX_SEEN = 100, 25_000
# Providers whose models use OpenAI's encodings; the others' models are open, with their own
# tokenizers.
COUNTED_AS_OPENAI = ("openai", "azure")


@dataclass(frozen=True, slots=True)
class HostedCounter:
    """Counts tokens as OpenAI does, for models of one encoding."""

    encoding: Encoding

    def count_text(self, text: str) -> int:
        """Return the number of tokens of a text; special tokens in it count as text."""
        try:
            return _get_count_function(self.encoding)(text)
        except UnicodeEncodeError:
            return _get_count_function(self.encoding)(_replace_surrogates(text))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(_load_tokenizer(self.encoding).encode(_replace_surrogates(text)))

    def count_contents(self, messages: Iterable[Mapping[str, str]]) -> int:
        """Return the tokens of the turns' contents alone (`tokens_raw`)."""
        return sum(self.count_text(message["content"]) for message in messages)

    def count_message(self, message: Mapping[str, str]) -> int:
        """Return the tokens of one turn, with its role, name and framing."""
        count = (
            PER_MESSAGE
            + _count_word(self.encoding, message["role"])
            + self.count_text(message["content"])
        )
        name = message.get("name")
        return count + (PER_NAME + self.count_text(name) if name else 0)

    def count_conversation(self, messages: Iterable[Mapping[str, str]]) -> int:
        """Return the tokens of turns as the model sees them (`tokens_templated`).

        The turns are a whole training example, or a prompt up to the answer.
        """
        return PER_CONVERSATION + sum(map(self.count_message, messages))


def build_counter(model: str) -> HostedCounter:
    """Return the counter of an OpenAI model; `ft:` and a suffix are ignored."""
    base = _get_base_model(model)
    return HostedCounter(
        "cl100k_base" if base == "gpt-4" or base.startswith(_OLDER) else "o200k_base"
    )


def count_billed_tokens(
    counter: HostedCounter, model: str, messages: Iterable[Mapping[str, str]]
) -> int:
    """Return the tokens that OpenAI bills for one training example in one epoch
    (`tokens_billed`)."""
    return min(counter.count_conversation(messages), find_training_limit(model))


def find_training_limit(model: str) -> int:
    """Return the tokens at which OpenAI truncates a training example of a model."""
    base = _get_base_model(model)
    limits = (limit for name, limit in _TRAINING_LIMITS.items() if base.startswith(name))
    return next(limits, NEWER_TRAINING_LIMIT)


def compute_default_epochs(examples: int) -> int:
    """Return the epochs of OpenAI's `n_epochs: auto`: 3 in general, and always 1 to 25.

    Few examples get as many epochs as show at most 100 examples; many get as few as show at most
    25,000.
    """
    if examples * USUAL_EPOCHS < MIN_SEEN:
        return min(MAX_EPOCHS, MIN_SEEN // max(1, examples))
    if examples * USUAL_EPOCHS > MAX_SEEN:
        return max(MIN_EPOCHS, MAX_SEEN // examples)
    return USUAL_EPOCHS


def _get_base_model(model: str) -> str:
    """Return the base of a model name without `ft:` and suffix."""
    return model.split(":")[1] if model.startswith("ft:") else model


def _replace_surrogates(text: str) -> str:
    """Return a text with half surrogate pairs replaced, as they are sent."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _load_tokenizer(encoding: Encoding) -> Any:
    """Return the tokenizer of an encoding."""
    # The package's documented class refuses texts of a million characters and more, and builds
    # lists only to count them. The tokenizer underneath does neither.
    return _load_bindings().tokenizer_for_encoding(encoding)


def _load_bindings() -> Any:
    """Return the compiled module of `bpe_openai` alone.

    The package around it reads 450,000 tokens into dictionaries when it is imported, which takes
    seconds in every process and which nobody here looks at.
    """
    name = "bpe_openai._bindings"
    if name not in sys.modules:
        package = importlib.util.find_spec("bpe_openai")
        folders = package.submodule_search_locations if package else None
        spec = PathFinder.find_spec(name, folders)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


@cache
def _get_count_function(encoding: Encoding) -> Callable[[str], int]:
    """Return the counting function of an encoding."""
    count: Callable[[str], int] = _load_tokenizer(encoding).count
    return count


@cache
def _count_word(encoding: Encoding, role: str) -> int:
    """Return the tokens of a role's name; cached."""
    return _get_count_function(encoding)(role)
