"""Checks that a contender's base can take the examples, before anything is loaded or spent: their
lengths, their tokens, their chat turns, and the EOS token.

Tokens are counted without torch (`tokens.py`). No text has more tokens than bytes, so only long
examples are tokenized here; encoding for training counts every one again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuneoff import prompts
from tuneoff.contender_settings import LocalSettings, PromptedSettings, Rendering
from tuneoff.contenders import Work, template_for
from tuneoff.contenders.shots import NO_SHOTS, Shots, shots_of
from tuneoff.errors import ConfigError, DataError
from tuneoff.models.embedding import count_rows, explain_beyond, find_beyond
from tuneoff.models.loading import check_end, rendering_of, resolve_base
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.tokenization.chat_template import TemplateError
from tuneoff.tokenization.text_tokenizer import SpellingError
from tuneoff.tokens import TokenCounter, counter_of
from tuneoff.training.cutting import cut_line, emptied, no_room
from tuneoff.training.encoding import WHAT_TO_DO
from tuneoff.training.tune import max_length

# Special tokens around a text.
AROUND = 8


def check(settings: object, work: Work) -> list[str]:
    """Check lengths, tokens and turns; return warnings as sentences.

    A contender without a base on this machine has none.

    Raises:
        ConfigError: `max_length` or `rendering` do not fit the base, it has no EOS token, or its
            chat template cannot render turns that the examples have.
        DataError: an example fits neither into `train.max_length` nor into the base, or has a token
            that the base has no embedding for.
    """
    if not isinstance(settings, LocalSettings | PromptedSettings) or settings.base is None:
        return []
    base = resolve_base(settings.base, work.folder)
    check_end(base, settings.base)
    counter = counter_of(base)
    if counter is None:
        return [_unchecked(settings.base, "its tokenizer is not in the local cache")]
    view = _View(
        counter,
        template_for(settings, work),
        rendering_of(counter, settings.rendering),  # type: ignore[arg-type]
        shots_of(settings, work),
    )
    try:
        _check_tokens(settings, work, view, count_rows(base))
        if isinstance(settings, LocalSettings):
            warnings = list(_tuned(settings, work, view))
        else:
            warnings = _without_answer(settings.name, work, view)
    except SpellingError as error:
        raise DataError(f"contender {settings.name}, base {settings.base!r}: {error}") from None
    except TemplateError as error:
        raise ConfigError(
            f"contender {settings.name}: the chat template of base {settings.base} {error.why}; "
            "set rendering: text, name another base, or take such turns out."
        ) from None
    return [*warnings, *view.forgotten(settings.name, settings.base)]


@dataclass(frozen=True, slots=True)
class _View:
    """How a contender sees an example."""

    counter: TokenCounter
    template: Template
    rendering: Rendering
    shots: Shots
    thoughtless: set[str] = field(default_factory=set)

    def asked(self, example: Example) -> str | list[prompts.Message]:
        """Return the prompt, as a text or as chat turns."""
        if self.rendering == "text":
            return prompts.text(example, self.template, self.shots.of(example))
        return prompts.messages(example, self.template, self.shots.of(example))

    def size(self, example: Example) -> int:
        """Return the UTF-8 bytes of the rendered prompt, plus room for special tokens."""
        prompt = self.asked(example)
        text = prompt if isinstance(prompt, str) else self._rendered(prompt, example)
        return len(text.encode()) + AROUND

    def _rendered(self, turns: Sequence[prompts.Message], example: Example) -> str:
        """Render chat turns as the model sees them; every turn must be in the result."""
        text = self.counter.rendered(turns, self.template.today)
        for turn in turns:
            if turn["content"].strip() not in text:
                self._misses(turn, text, example)
        return text

    def _misses(self, turn: Mapping[str, str], text: str, example: Example) -> None:
        """Record that a turn's thoughts are left out, which templates do on purpose.

        Raises:
            TemplateError: more than the thoughts is missing.
        """
        _, end, answer = turn["content"].rpartition("</think>")
        if not end or turn["role"] != "assistant" or answer.strip() not in text:
            raise TemplateError(
                f"leaves out or changes what the {turn['role']} turn of example {example.id!r} says"
            )
        self.thoughtless.add(example.id)

    def forgotten(self, name: str, base: str) -> list[str]:
        """Return a warning about thoughts that are left out."""
        if not self.thoughtless:
            return []
        return [
            f"{name}: the chat template of {base} leaves the thoughts (up to </think>) of earlier "
            f"assistant turns out of {len(self.thoughtless)} prompts."
        ]

    def ids(self, example: Example) -> list[int]:
        """Return the token ids of the prompt."""
        return self.counter.prompt_ids(self.asked(example), self.template.today)

    def prompt(self, example: Example, max_tokens: int) -> int:
        """Return the prompt's tokens; 0 if they are certainly at most `max_tokens`."""
        if self.size(example) <= max_tokens:
            return 0
        return len(self.ids(example))

    def whole(self, example: Example, max_tokens: int) -> int:
        """Return the tokens of prompt and answer; 0 if they are certainly at most `max_tokens`."""
        answer = example.completion
        if self.size(example) + len(answer.encode()) <= max_tokens:
            return 0
        return len(self.ids(example)) + self.counter.completion(answer)


def _check_tokens(
    settings: LocalSettings | PromptedSettings, work: Work, view: _View, rows: int | None
) -> None:
    """Check that every token of the examples has an embedding.

    Raises:
        DataError: one has none; the first is named.
    """
    counter = view.counter
    known = counter.known
    if rows is None or known <= rows:
        return
    training_examples = (
        [*work.train, *work.validation] if isinstance(settings, LocalSettings) else []
    )
    for index, example in enumerate((*training_examples, *work.test)):
        ids = view.ids(example)
        if index < len(training_examples):
            ids += counter.completion_ids(example.completion)
        token = find_beyond(ids, rows)
        if token is not None:
            text = counter.tokenizer.id_to_token(token) or ""
            reason = explain_beyond(str(settings.base), text, token, known, rows)
            raise DataError(f"contender {settings.name}: example {example.id!r}: {reason}")


def find_too_long(base: str, examples: Iterable[Example]) -> tuple[Example, int, int] | None:
    """Find the first chat example that is too long to train a resolved base on.

    Returns:
        The example, its tokens and the base's positions; None where there is none, or tokens cannot
        be counted here.
    """
    counter = counter_of(base)
    if counter is None:
        return None
    rendering = rendering_of(counter, None)  # type: ignore[arg-type]
    view = _View(counter, prompts.CHAT_PASS_THROUGH, rendering, NO_SHOTS)
    max_tokens = counter.positions
    for example in examples:
        try:
            tokens = view.whole(example, max_tokens)
        except (TemplateError, SpellingError):  # the training reports it
            continue
        if tokens > max_tokens:
            return example, tokens, max_tokens
    return None


def _tuned(settings: LocalSettings, work: Work, view: _View) -> Iterator[str]:
    """Check the lengths of a tuned contender's examples and yield warnings; raise DataError."""
    positions = view.counter.positions
    max_tokens = max_length(settings, positions)
    examples: dict[Split, Sequence[Example]] = {"train": work.train, "validation": work.validation}
    truncated = {
        split: _too_long(settings, split, examples[split], max_tokens, view) for split in examples
    }
    if settings.train.truncate:
        room = positions - work.max_new_tokens
        long = [example for example in work.test if view.prompt(example, room) > room]
        for example in long:
            if view.prompt(emptied(example), room) > room:
                raise DataError(f"contender {settings.name}, test: {no_room(example)}")
        truncated["test"] = len(long)
    else:
        _too_long(settings, "test", work.test, positions, view)
        yield from _without_answer(settings.name, work, view)
    if any(truncated.values()):
        yield cut_line(settings.name, truncated)


def _too_long(
    settings: LocalSettings, split: Split, examples: Sequence[Example], max_tokens: int, view: _View
) -> int:
    """Return how many examples have more than `max_tokens` tokens and will be truncated.

    Raises:
        DataError: they may not be truncated, or truncation would not help.
    """
    count = 0
    for example in examples:
        tokens = view.whole(example, max_tokens)
        if tokens <= max_tokens:
            continue
        where = f"contender {settings.name}, {split}"
        if not settings.train.truncate:
            positions = f"{view.counter.positions} positions"
            limit = f"the base's {positions}"
            if max_tokens < view.counter.positions:
                limit = f"train.max_length {max_tokens} (the base has {positions})"
            raise DataError(
                f"{where}: example {example.id!r} has {tokens} tokens, more than {limit}; "
                f"{WHAT_TO_DO}"
            )
        if view.whole(emptied(example), max_tokens) > max_tokens:
            raise DataError(f"{where}: {no_room(example)}")
        count += 1
    return count


def _without_answer(name: str, work: Work, view: _View) -> list[str]:
    """Return a warning about test prompts that leave no room for an answer.

    It is no error: an untuned base with many shots may simply be too small.
    """
    positions = view.counter.positions
    room = positions - work.max_new_tokens
    count = sum(view.prompt(example, room) > room for example in work.test)
    if not count:
        return []
    return [
        f"{name}: {count} test prompts leave no room for task.max_new_tokens "
        f"({work.max_new_tokens}) in the base's {positions} positions; they get no answer and "
        "count as wrong."
    ]


def _unchecked(base: str, why: str) -> str:
    """Return a warning that lengths were not checked."""
    return f"lengths were not checked for {base}: {why}."
