"""Checks that a contender's base can take the examples, before anything is loaded or spent: their
lengths, their tokens, their chat turns, and the EOS token.

Tokens are counted without torch (`tokenization/offline.py`). No text has more tokens than bytes, so
only long examples are tokenized here; encoding for training counts every one again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tuneoff import prompts
from tuneoff.config.contenders import LocalConfig, PromptedConfig, Rendering
from tuneoff.contenders.base import ContenderContext, choose_template
from tuneoff.contenders.shots import NO_SHOTS, Shots, select_shots
from tuneoff.errors import ConfigError, DataError
from tuneoff.models.embedding import count_rows, explain_unknown_token, find_unknown_token
from tuneoff.models.loading import check_eos_token, choose_rendering, resolve_base
from tuneoff.prompts import Template
from tuneoff.records import Example, Split
from tuneoff.tokenization.chat_template import TemplateError
from tuneoff.tokenization.examples import (
    TRUNCATION_HINT,
    describe_truncation,
    explain_no_room,
    truncate_fully,
)
from tuneoff.tokenization.offline import TokenCounter, load_counter
from tuneoff.tokenization.text_tokenizer import SpellingError
from tuneoff.training.fine_tune import resolve_max_length

# Special tokens around a text.
SPECIAL_TOKENS = 8


def check_lengths(settings: object, work: ContenderContext) -> list[str]:
    """Check lengths, tokens and turns; return warnings as sentences.

    A contender without a base on this machine has none.

    Raises:
        ConfigError: `max_length` or `rendering` do not fit the base, it has no EOS token, or its
            chat template cannot render turns that the examples have.
        DataError: an example fits neither into `train.max_length` nor into the base, or has a token
            that the base has no embedding for.
    """
    if not isinstance(settings, LocalConfig | PromptedConfig) or settings.base is None:
        return []
    base = resolve_base(settings.base, work.folder)
    check_eos_token(base, settings.base)
    counter = load_counter(base)
    if counter is None:
        return [_explain_unchecked(settings.base, "its tokenizer is not in the local cache")]
    view = _PromptView(
        counter,
        choose_template(settings, work),
        choose_rendering(counter, settings.rendering),  # type: ignore[arg-type]
        select_shots(settings, work),
    )
    try:
        _check_tokens(settings, work, view, count_rows(base))
        if isinstance(settings, LocalConfig):
            warnings = list(_check_tuned(settings, work, view))
        else:
            warnings = _warn_no_room(settings.name, work, view)
    except SpellingError as error:
        raise DataError(f"contender {settings.name}, base {settings.base!r}: {error}") from None
    except TemplateError as error:
        raise ConfigError(
            f"contender {settings.name}: the chat template of base {settings.base} {error.why}; "
            "set rendering: text, name another base, or take such turns out."
        ) from None
    return [*warnings, *view.warn_omitted_thoughts(settings.name, settings.base)]


@dataclass(frozen=True, slots=True)
class _PromptView:
    """How a contender sees an example."""

    counter: TokenCounter
    template: Template
    rendering: Rendering
    shots: Shots
    without_thoughts: set[str] = field(default_factory=set)

    def asked(self, example: Example) -> str | list[prompts.Message]:
        """Return the prompt, as a text or as chat turns."""
        if self.rendering == "text":
            return prompts.render_text(example, self.template, self.shots.select_for(example))
        return prompts.render_messages(example, self.template, self.shots.select_for(example))

    def size(self, example: Example) -> int:
        """Return the UTF-8 bytes of the rendered prompt, plus room for special tokens."""
        prompt = self.asked(example)
        text = prompt if isinstance(prompt, str) else self._render(prompt, example)
        return len(text.encode()) + SPECIAL_TOKENS

    def _render(self, turns: Sequence[prompts.Message], example: Example) -> str:
        """Render chat turns as the model sees them; every turn must be in the result."""
        text = self.counter.render_chat(turns, self.template.today)
        for turn in turns:
            if turn["content"].strip() not in text:
                self._record_omission(turn, text, example)
        return text

    def _record_omission(self, turn: Mapping[str, str], text: str, example: Example) -> None:
        """Record that a turn's thoughts are left out, which templates do on purpose.

        Raises:
            TemplateError: more than the thoughts is missing.
        """
        _, end, answer = turn["content"].rpartition("</think>")
        if not end or turn["role"] != "assistant" or answer.strip() not in text:
            raise TemplateError(
                f"leaves out or changes what the {turn['role']} turn of example {example.id!r} says"
            )
        self.without_thoughts.add(example.id)

    def warn_omitted_thoughts(self, name: str, base: str) -> list[str]:
        """Return a warning about thoughts that are left out."""
        if not self.without_thoughts:
            return []
        return [
            f"{name}: the chat template of {base} leaves the thoughts (up to </think>) of earlier "
            f"assistant turns out of {len(self.without_thoughts)} prompts."
        ]

    def ids(self, example: Example) -> list[int]:
        """Return the token ids of the prompt."""
        return self.counter.encode_prompt(self.asked(example), self.template.today)

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
        return len(self.ids(example)) + self.counter.count_completion(answer)


def _check_tokens(
    settings: LocalConfig | PromptedConfig,
    work: ContenderContext,
    view: _PromptView,
    rows: int | None,
) -> None:
    """Check that every token of the examples has an embedding.

    Raises:
        DataError: one has none; the first is named.
    """
    counter = view.counter
    known = counter.vocabulary_size
    if rows is None or known <= rows:
        return
    training_examples = [*work.train, *work.validation] if isinstance(settings, LocalConfig) else []
    for index, example in enumerate((*training_examples, *work.test)):
        ids = view.ids(example)
        if index < len(training_examples):
            ids += counter.encode_completion(example.completion)
        token = find_unknown_token(ids, rows)
        if token is not None:
            text = counter.tokenizer.id_to_token(token) or ""
            reason = explain_unknown_token(str(settings.base), text, token, known, rows)
            raise DataError(f"contender {settings.name}: example {example.id!r}: {reason}")


def find_too_long(base: str, examples: Iterable[Example]) -> tuple[Example, int, int] | None:
    """Find the first chat example that is too long to train a resolved base on.

    Returns:
        The example, its tokens and the base's positions; None where there is none, or tokens cannot
        be counted here.
    """
    counter = load_counter(base)
    if counter is None:
        return None
    rendering = choose_rendering(counter, None)  # type: ignore[arg-type]
    view = _PromptView(counter, prompts.CHAT_PASS_THROUGH, rendering, NO_SHOTS)
    max_tokens = counter.positions
    for example in examples:
        try:
            tokens = view.whole(example, max_tokens)
        except (TemplateError, SpellingError):  # the training reports it
            continue
        if tokens > max_tokens:
            return example, tokens, max_tokens
    return None


def _check_tuned(settings: LocalConfig, work: ContenderContext, view: _PromptView) -> Iterator[str]:
    """Check the lengths of a tuned contender's examples and yield warnings; raise DataError."""
    positions = view.counter.positions
    max_tokens = resolve_max_length(settings, positions)
    examples: dict[Split, Sequence[Example]] = {"train": work.train, "validation": work.validation}
    truncated = {
        split: _count_too_long(settings, split, examples[split], max_tokens, view)
        for split in examples
    }
    if settings.train.truncate:
        room = positions - work.max_new_tokens
        long = [example for example in work.test if view.prompt(example, room) > room]
        for example in long:
            if view.prompt(truncate_fully(example), room) > room:
                raise DataError(f"contender {settings.name}, test: {explain_no_room(example)}")
        truncated["test"] = len(long)
    else:
        _count_too_long(settings, "test", work.test, positions, view)
        yield from _warn_no_room(settings.name, work, view)
    if any(truncated.values()):
        yield describe_truncation(settings.name, truncated)


def _count_too_long(
    settings: LocalConfig,
    split: Split,
    examples: Sequence[Example],
    max_tokens: int,
    view: _PromptView,
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
                f"{TRUNCATION_HINT}"
            )
        if view.whole(truncate_fully(example), max_tokens) > max_tokens:
            raise DataError(f"{where}: {explain_no_room(example)}")
        count += 1
    return count


def _warn_no_room(name: str, work: ContenderContext, view: _PromptView) -> list[str]:
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


def _explain_unchecked(base: str, why: str) -> str:
    """Return a warning that lengths were not checked."""
    return f"lengths were not checked for {base}: {why}."
