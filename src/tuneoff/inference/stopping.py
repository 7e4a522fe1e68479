"""Stop criteria: an answer ends at an end token, a stop text, or its maximum length.

`StopCriteria` checks token ids and builds the `Prediction`. Only decoded text shows whether a stop
text has appeared. But a token without the stop text's last character cannot complete it, so hardly
any step decodes anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneoff.records import Prediction
from tuneoff.tokenization.decode import decode
from tuneoff.tokenization.encode import get_turn_end

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

# Flags of a token: it ends an answer; it may complete a stop text.
ENDS_ANSWER, MAY_STOP = 1, 2


@dataclass(frozen=True)
class StopCriteria:
    """The stop criteria of one model's answers."""

    tokenizer: PreTrainedTokenizerBase
    """Decodes answers to find stop texts."""
    end_tokens: tuple[int, ...]
    """The tokens that end an answer."""
    stop: tuple[str, ...]
    """The texts that end an answer; they are not part of it."""

    def flag_tokens(self, vocabulary: int) -> NDArray[np.uint8]:
        """Return the flag of every token id: 0, `ENDS_ANSWER`, or `MAY_STOP`."""
        flags = np.zeros(vocabulary, dtype=np.uint8)
        if self.stop:
            known = min(vocabulary, len(self.tokenizer))
            texts = self.tokenizer.batch_decode([[token] for token in range(known)])
            flags[:known] = [MAY_STOP if self._may_stop(text) else 0 for text in texts]
        flags[[end for end in self.end_tokens if end < vocabulary]] = ENDS_ANSWER
        return flags

    def _may_stop(self, text: str) -> bool:
        """Return whether a token's text may complete a stop text.

        Parts of characters decode to U+FFFD, and blanks at the edge may be dropped. Such tokens
        count as possible, and the whole answer is then checked.
        """
        lasts = {stop[-1] for stop in self.stop}
        return (
            "\ufffd" in text
            or any(last.isspace() or not last.isascii() for last in lasts)
            or any(last in text for last in lasts)
        )

    def has_stop_text(self, new: Sequence[int]) -> bool:
        """Return whether an unfinished answer contains a stop text."""
        text = self._text(new)
        return any(stop in text for stop in self.stop)

    def build_prediction(
        self, id: str, tokens_in: int, new: Sequence[int], seconds: float
    ) -> Prediction:
        """Return the prediction with the answer up to where it ends.

        `tokens_out` counts the tokens that the answer needs, without the end token and without
        tokens that belong only to a stop text.
        """
        reason = "length"
        ended = next((place for place, token in enumerate(new) if token in self.end_tokens), None)
        if ended is not None:
            new, reason = new[:ended], "stop"
        text = self._text(new)
        cuts = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if cuts:
            text, reason = text[: min(cuts)], "stop"
            # The fewest tokens whose text is as long as the kept text.
            new = new[: bisect_left(range(len(new)), len(text), key=lambda n: self._length(new, n))]
        return Prediction(
            id=id,
            prediction=text,
            tokens_in=tokens_in,
            tokens_out=len(new),
            seconds=round(seconds, 6),
            finish_reason=reason,
        )

    def _length(self, new: Sequence[int], count: int) -> int:
        """Return the characters of the first `count` tokens' text."""
        return len(self._text(new[:count]))

    def _text(self, new: Sequence[int]) -> str:
        return decode(self.tokenizer, new)


def build_stop_criteria(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]
) -> StopCriteria:
    """Return the stop criteria of a loaded model."""
    return StopCriteria(tokenizer, find_end_tokens(model.generation_config, tokenizer), tuple(stop))


def load_end_tokens(base: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the end tokens of a resolved base or a weights folder that is not loaded."""
    from transformers import GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(base)
    except OSError:  # not every model has one
        generation = None
    return find_end_tokens(generation, tokenizer)


def find_end_tokens(
    generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Return all tokens that end an answer.

    They are EOS, with which training closes an answer; those named in the generation config; and
    the token with which the chat template closes an assistant turn. Chat models often end a turn
    with a token other than EOS.
    """
    own = generation.eos_token_id if generation else None
    named = own if isinstance(own, list) else [own]
    ends = {tokenizer.eos_token_id, *named, get_turn_end(tokenizer)}
    return tuple(sorted(int(token) for token in ends if token is not None))
