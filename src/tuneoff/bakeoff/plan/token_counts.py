"""Counting a bake-off's tokens, example by example, without holding the examples.

A view is how a contender's model sees an example. Hosted bills are counted to the last example. An
open model's tokens are counted on a sample of at most 20,000 per split: its tokenizer is slower,
and nothing is billed by them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuneoff import prompts
from tuneoff.config.contenders import Rendering
from tuneoff.contenders.shots import Shots
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.tokenization.offline import TokenCounter
from tuneoff.tokenization.openai import MIN_CACHED_PROMPT, HostedCounter

MAX_SAMPLED = 20_000
EMPTY_ANSWER = {"role": "assistant", "content": ""}


@dataclass(frozen=True, slots=True)
class ExampleTokens:
    """Tokens of one example."""

    prompt: int
    """The prompt, up to the answer."""
    completion: int
    """The answer."""
    whole: int
    """Both as trained."""


class TokenView(Protocol):
    """How a model sees an example. `exact`: count every example. `most`: maximum tokens of an
    example; longer ones are truncated."""

    @property
    def exact(self) -> bool: ...

    @property
    def most(self) -> int: ...

    def size(self, example: Example) -> ExampleTokens:
        """Return the example's tokens, not truncated."""
        ...


@dataclass(frozen=True)
class HostedView:
    """An example as OpenAI counts it."""

    counter: HostedCounter
    template: Template
    shots: Shots
    most: int
    exact: bool = True

    def size(self, example: Example) -> ExampleTokens:
        turns = prompts.render_messages(example, self.template, self.shots.select_for(example))
        prompt = self.counter.count_conversation(turns)
        completion = self.counter.count_text(example.completion)
        answer = self.counter.count_message(EMPTY_ANSWER) + completion
        return ExampleTokens(prompt, completion, prompt + answer)


@dataclass(frozen=True)
class OpenView:
    """An example as counted by an open model's tokenizer on this machine."""

    counter: TokenCounter
    template: Template
    rendering: Rendering
    shots: Shots
    most: int
    exact: bool = False

    def size(self, example: Example) -> ExampleTokens:
        prompt = self.counter.count_prompt(self.asked(example), self.template.today)
        completion = self.counter.count_completion(example.completion)
        return ExampleTokens(prompt, completion, prompt + completion)

    def asked(self, example: Example) -> str | list[prompts.Message]:
        """Return the prompt, as a text or as chat turns."""
        if self.rendering == "text":
            return prompts.render_text(example, self.template, self.shots.select_for(example))
        return prompts.render_messages(example, self.template, self.shots.select_for(example))

    def ids(self, example: Example) -> list[int]:
        """Return prompt and answer as token ids."""
        encode = self.counter.encoder.encode_text
        return [
            *self.counter.encode_prompt(self.asked(example), self.template.today),
            *encode(example.completion),
        ]


@dataclass(frozen=True)
class ApproximateView:
    """An example counted as plain text by a hosted model's tokenizer, for want of the open model's
    own."""

    counter: HostedCounter
    template: Template
    shots: Shots
    most: int
    exact: bool = False

    def size(self, example: Example) -> ExampleTokens:
        prompt = self.counter.count_text(
            prompts.render_text(example, self.template, self.shots.select_for(example))
        )
        completion = self.counter.count_text(example.completion) + 1
        return ExampleTokens(prompt, completion, prompt + completion)

    def ids(self, example: Example) -> list[int]:
        """Return prompt and answer as token ids."""
        text = prompts.render_text(example, self.template, self.shots.select_for(example))
        return [*self.counter.encode(text), *self.counter.encode(example.completion)]


@dataclass(slots=True)
class TokenTally:
    """Sums over a split."""

    examples: int = 0
    counted: int = 0
    """Examples that were counted."""
    prompt: int = 0
    completion: int = 0
    whole: int = 0
    longest: int = 0
    longest_prompt: int = 0
    """Tokens of the longest prompt."""
    cut: int = 0
    cacheable: int = 0
    """Tokens of prompts that are long enough for a provider's cache."""

    def add(self, size: ExampleTokens, max_tokens: int) -> None:
        """Count one more example."""
        self.counted += 1
        self.prompt += size.prompt
        self.completion += size.completion
        self.whole += min(size.whole, max_tokens)
        self.longest = max(self.longest, min(size.whole, max_tokens))
        self.longest_prompt = max(self.longest_prompt, size.prompt)
        self.cut += size.whole > max_tokens
        self.cacheable += size.prompt if size.prompt >= MIN_CACHED_PROMPT else 0

    def scale_to_split(self, tokens: int) -> int:
        """Return a sum over counted examples, scaled to the whole split."""
        return round(tokens * self.examples / max(1, self.counted))


@dataclass(frozen=True, slots=True)
class SplitExamples(Sequence[Example]):
    """The examples of one split, iterated anew each time, because a large file is not held."""

    rows: Iterable[tuple[Split, Example]]
    split: Split
    size: int
    known: Mapping[int, Example]
    """The examples that can be accessed by index."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Example]:
        return (example for split, example in self.rows if split == self.split)

    def __getitem__(self, place: Any) -> Any:
        return self.known[place]


SplitTallies = Mapping[Split, TokenTally]


def count_tokens(
    rows: Iterable[tuple[Split, Example]], sizes: Mapping[Split, int], views: Sequence[TokenView]
) -> list[SplitTallies]:
    """Return the counts of each view, in one pass over the examples; equal views count once."""
    distinct_views: list[TokenView] = []
    for view in views:
        if view not in distinct_views:
            distinct_views.append(view)
    counts = [{split: TokenTally(examples=n) for split, n in sizes.items()} for _ in distinct_views]
    steps = {split: max(1, math.ceil(n / MAX_SAMPLED)) for split, n in sizes.items()}
    seen = dict.fromkeys(sizes, 0)
    for split, example in rows:
        sampled = seen[split] % steps[split] == 0
        seen[split] += 1
        for view, tallies in zip(distinct_views, counts, strict=True):
            if view.exact or sampled:
                tallies[split].add(view.size(example), view.most)
    return [counts[distinct_views.index(view)] for view in views]


def sample_training(
    rows: Iterable[tuple[Split, Example]], sizes: Mapping[Split, int], max_count: int
) -> list[Example]:
    """Return at most `max_count` training examples, evenly spaced over the split."""
    step = max(1, math.ceil(sizes["train"] / max_count))
    return [example for i, example in enumerate(_iterate_training(rows)) if i % step == 0]


def _iterate_training(rows: Iterable[tuple[Split, Example]]) -> Iterator[Example]:
    """Yield the training examples."""
    return (example for split, example in rows if split == "train")
