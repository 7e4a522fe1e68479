"""Tokens as hosted providers bill them, and their default epochs: offline, without torch.

OpenAI (and Azure): each message is 3 tokens, those of its role word and of its content (with
a name, those of the name and one more), each conversation 3 more; an example beyond what a
model can be trained on is cut there. Encodings by `bpe-openai`, which holds the vocabularies
itself. Sources: OpenAI's cookbook, "Data preparation and analysis for chat model fine-tuning"
and "How to count tokens"; checked against the seed experiment's bills. What is cached: its guide
"Prompt caching".

What a job goes over, and how often, is the provider's to know (`providers/`).
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
# Everything newer, gpt-4o the first of it, has the larger vocabulary.
_OLDER = ("gpt-3.5", "gpt-35", "gpt-4-", "davinci-", "babbage-")
# Tokens of one training example, from the fine-tuning guide; 65,536 for all newer models.
_TRAINED_ON = {"gpt-3.5-turbo-0613": 4_096, "gpt-3.5": 16_385, "gpt-35": 16_385}
NEWER_TRAINED_ON = 65_536

# Prompts from so many tokens on are kept in the provider's cache, without being asked to.
CACHED_FROM = 1024
USUAL_EPOCHS, FEWEST_EPOCHS, MOST_EPOCHS = 3, 1, 25
FEWEST_SEEN, MOST_SEEN = 100, 25_000
# Whose models are counted with OpenAI's encodings; the others' are open, with tokenizers of
# their own.
COUNTED_AS_OPENAI = ("openai", "azure")


@dataclass(frozen=True, slots=True)
class HostedCounter:
    """Counts as OpenAI does, for models of one encoding."""

    encoding: Encoding

    def text(self, text: str) -> int:
        """Tokens of a text, of any length; what looks like a special token is text."""
        try:
            return _count(self.encoding)(text)
        except UnicodeEncodeError:
            return _count(self.encoding)(_whole(text))

    def ids(self, text: str) -> list[int]:
        """The tokens themselves."""
        return list(_tokenizer(self.encoding).encode(_whole(text)))

    def raw(self, messages: Iterable[Mapping[str, str]]) -> int:
        """Tokens of the turns' contents alone (`tokens_raw`)."""
        return sum(self.text(message["content"]) for message in messages)

    def message(self, message: Mapping[str, str]) -> int:
        """Tokens of one turn, with what is around it."""
        found = PER_MESSAGE + _word(self.encoding, message["role"]) + self.text(message["content"])
        name = message.get("name")
        return found + (PER_NAME + self.text(name) if name else 0)

    def conversation(self, messages: Iterable[Mapping[str, str]]) -> int:
        """Tokens of turns as the model sees them (`tokens_templated`): a whole training
        example, or a prompt up to the answer."""
        return PER_CONVERSATION + sum(map(self.message, messages))


def counter_for(model: str) -> HostedCounter:
    """The counter of a model of OpenAI; `ft:` and what follows the base are left aside."""
    base = _base(model)
    return HostedCounter(
        "cl100k_base" if base == "gpt-4" or base.startswith(_OLDER) else "o200k_base"
    )


def billed(counter: HostedCounter, model: str, messages: Iterable[Mapping[str, str]]) -> int:
    """What OpenAI bills for one training example in one epoch (`tokens_billed`)."""
    return min(counter.conversation(messages), trained_on(model))


def trained_on(model: str) -> int:
    """The tokens of an example beyond which it is cut when a model of OpenAI is trained."""
    base = _base(model)
    found = (limit for name, limit in _TRAINED_ON.items() if base.startswith(name))
    return next(found, NEWER_TRAINED_ON)


def default_epochs(examples: int) -> int:
    """Return OpenAI's `n_epochs: auto`: 3; of few examples as many whole ones as show at most 100,
    of many as few as show at most 25,000; 1 to 25."""
    if examples * USUAL_EPOCHS < FEWEST_SEEN:
        return min(MOST_EPOCHS, FEWEST_SEEN // max(1, examples))
    if examples * USUAL_EPOCHS > MOST_SEEN:
        return max(FEWEST_EPOCHS, MOST_SEEN // examples)
    return USUAL_EPOCHS


def _base(model: str) -> str:
    return model.split(":")[1] if model.startswith("ft:") else model


def _whole(text: str) -> str:
    """Half surrogate pairs as the replacement signs that they are sent as."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _tokenizer(encoding: Encoding) -> Any:
    # The package's documented class refuses texts of a million characters and more, and
    # makes lists only to be counted; the tokenizer underneath does neither.
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
def _count(encoding: Encoding) -> Callable[[str], int]:
    count: Callable[[str], int] = _tokenizer(encoding).count
    return count


@cache
def _word(encoding: Encoding, role: str) -> int:
    return _count(encoding)(role)
