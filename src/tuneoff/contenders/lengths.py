"""Whether the examples fit into a contender's base, before anything is loaded or spent.

Counted without torch (`tokens.py`). No text of this world has more tokens than bytes, so only
long ones are counted at all; encoding for training counts every one again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tuneoff import prompts
from tuneoff.config import LocalSettings, PromptedSettings, Rendering
from tuneoff.contenders import Work, template_for
from tuneoff.contenders.answering import shots_of
from tuneoff.errors import DataError
from tuneoff.models.loading import rendering_of, resolve_base
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.tokenization.chat_template import TemplateError
from tuneoff.tokens import TokenCounter, counter_of
from tuneoff.training.cutting import cut_line, emptied, no_room
from tuneoff.training.encoding import WHAT_TO_DO
from tuneoff.training.tune import max_length

# Special tokens around a text.
AROUND = 8


def check(settings: object, work: Work) -> list[str]:
    """Warnings about lengths, as sentences; none for a contender that has no base here.

    Raises:
        ConfigError: `max_length` or `rendering` do not fit the base.
        DataError: an example fits neither into `train.max_length` nor into the base.
    """
    if not isinstance(settings, LocalSettings | PromptedSettings) or settings.base is None:
        return []
    counter = counter_of(resolve_base(settings.base, work.folder))
    if counter is None:
        return [_unchecked(settings.base, "its tokenizer is not in the local cache")]
    view = _View(
        counter,
        template_for(settings, work),
        rendering_of(counter, settings.rendering),  # type: ignore[arg-type]
        shots_of(settings, work),
    )
    try:
        if isinstance(settings, LocalSettings):
            return list(_tuned(settings, work, view))
        return _without_answer(settings.name, work, view)
    except TemplateError as error:
        return [_unchecked(settings.base, f"its chat template could not be used: {error}")]


@dataclass(frozen=True, slots=True)
class _View:
    """How a contender sees an example."""

    counter: TokenCounter
    template: Template
    rendering: Rendering
    shots: Sequence[Example]

    def text(self, example: Example) -> str:
        """The prompt as the tokenizer gets it."""
        if self.rendering == "text":
            return prompts.text(example, self.template, self.shots)
        return self.counter.rendered(prompts.messages(example, self.template, self.shots))

    def prompt(self, example: Example, most: int) -> int:
        """Tokens of the prompt; 0 where it is certainly not longer than `most`."""
        text = self.text(example)
        if len(text.encode()) + AROUND <= most:
            return 0
        return self.counter.prompt(text, self.rendering)

    def whole(self, example: Example, most: int) -> int:
        """The same of prompt and answer."""
        text, answer = self.text(example), example.completion
        if len(text.encode()) + len(answer.encode()) + AROUND <= most:
            return 0
        return self.counter.prompt(text, self.rendering) + self.counter.completion(answer)


def find_too_long(base: str, examples: Iterable[Example]) -> tuple[Example, int, int] | None:
    """Return the first chat example that is too long to train a resolved base on, its tokens, and
    the base's positions; None where there is none, or that cannot be counted here."""
    counter = counter_of(base)
    if counter is None:
        return None
    rendering = rendering_of(counter, None)  # type: ignore[arg-type]
    view, most = _View(counter, prompts.CHAT_PASS_THROUGH, rendering, ()), counter.positions
    try:
        for example in examples:
            tokens = view.whole(example, most)
            if tokens > most:
                return example, tokens, most
    except TemplateError:  # which is told by whoever trains
        return None
    return None


def _tuned(settings: LocalSettings, work: Work, view: _View) -> Iterator[str]:
    positions = view.counter.positions
    most = max_length(settings, positions)
    examples: dict[Split, Sequence[Example]] = {"train": work.train, "validation": work.validation}
    cut = {split: _too_long(settings, split, examples[split], most, view) for split in examples}
    if settings.train.truncate:
        room = positions - work.max_new_tokens
        long = [example for example in work.test if view.prompt(example, room) > room]
        for example in long:
            if view.prompt(emptied(example), room) > room:
                raise DataError(f"contender {settings.name}, test: {no_room(example)}")
        cut["test"] = len(long)
    else:
        _too_long(settings, "test", work.test, positions, view)
        yield from _without_answer(settings.name, work, view)
    if any(cut.values()):
        yield cut_line(settings.name, cut)


def _too_long(
    settings: LocalSettings, split: Split, examples: Sequence[Example], most: int, view: _View
) -> int:
    """How many examples have more than `most` tokens, and will be cut.

    Raises:
        DataError: they may not be cut, or that would not help.
    """
    found = 0
    for example in examples:
        tokens = view.whole(example, most)
        if tokens <= most:
            continue
        where = f"contender {settings.name}, {split}"
        if not settings.train.truncate:
            positions = f"{view.counter.positions} positions"
            limit = f"the base's {positions}"
            if most < view.counter.positions:
                limit = f"train.max_length {most} (the base has {positions})"
            raise DataError(
                f"{where}: example {example.id!r} has {tokens} tokens, more than {limit}; "
                f"{WHAT_TO_DO}"
            )
        if view.whole(emptied(example), most) > most:
            raise DataError(f"{where}: {no_room(example)}")
        found += 1
    return found


def _without_answer(name: str, work: Work, view: _View) -> list[str]:
    """A warning about test prompts that leave no room for an answer: nobody is to be refused
    for what an untuned base with many shots cannot do."""
    positions = view.counter.positions
    room = positions - work.max_new_tokens
    found = sum(view.prompt(example, room) > room for example in work.test)
    if not found:
        return []
    return [
        f"{name}: {found} test prompts leave no room for task.max_new_tokens "
        f"({work.max_new_tokens}) in the base's {positions} positions; they get no answer and "
        "count as wrong."
    ]


def _unchecked(base: str, why: str) -> str:
    return f"lengths were not checked for {base}: {why}."
