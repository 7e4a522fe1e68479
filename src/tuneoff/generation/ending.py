"""Where an answer ends: an end token, a stop text, or its greatest length.

`Ending` says so for token ids, and makes the `Prediction`. Whether a stop text has come
can only be seen in the decoded text; but a token without the text's last character cannot
complete it, so that hardly any step needs to decode anything.
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

# What `Ending.signs` says of a token: it ends an answer; it may complete a stop text.
ENDS, MAY_STOP = 1, 2


@dataclass(frozen=True)
class Ending:
    """What ends the answers of one model to one set of prompts."""

    tokenizer: PreTrainedTokenizerBase
    ends: tuple[int, ...]
    stop: tuple[str, ...]

    def signs(self, vocabulary: int) -> NDArray[np.uint8]:
        """Of every token id: 0, or `ENDS`, or `MAY_STOP`."""
        found = np.zeros(vocabulary, dtype=np.uint8)
        if self.stop:
            known = min(vocabulary, len(self.tokenizer))
            texts = self.tokenizer.batch_decode([[token] for token in range(known)])
            found[:known] = [MAY_STOP if self._may_stop(text) else 0 for text in texts]
        found[[end for end in self.ends if end < vocabulary]] = ENDS
        return found

    def _may_stop(self, text: str) -> bool:
        """Parts of characters decode to U+FFFD, and blanks at the edge may be dropped: there
        one cannot tell, and the whole answer is looked at."""
        lasts = {stop[-1] for stop in self.stop}
        return (
            "\ufffd" in text
            or any(last.isspace() or not last.isascii() for last in lasts)
            or any(last in text for last in lasts)
        )

    def stopped(self, new: Sequence[int]) -> bool:
        """Whether an answer so far holds a stop text."""
        text = self._text(new)
        return any(stop in text for stop in self.stop)

    def prediction(self, id: str, tokens_in: int, new: Sequence[int], seconds: float) -> Prediction:
        """The answer up to where it ends.

        `tokens_out` counts the tokens that the answer needs: neither the end token nor
        those that only belong to a stop text.
        """
        reason = "length"
        ended = next((place for place, token in enumerate(new) if token in self.ends), None)
        if ended is not None:
            new, reason = new[:ended], "stop"
        text = self._text(new)
        cuts = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if cuts:
            text, reason = text[: min(cuts)], "stop"
            # The fewest tokens whose text is as long as what is kept.
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
        return len(self._text(new[:count]))

    def _text(self, new: Sequence[int]) -> str:
        return decode(self.tokenizer, new)


def ending_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]
) -> Ending:
    """What ends this model's answers."""
    return Ending(tokenizer, ends_of(model.generation_config, tokenizer), tuple(stop))


def saved_ends(base: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """`ends_of` a resolved base, or of a folder of weights, that is not loaded here."""
    from transformers import GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(base)
    except OSError:  # not every model has one
        generation = None
    return ends_of(generation, tokenizer)


def ends_of(
    generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Return all tokens that end an answer. They are EOS, with which training closes an answer;
    those that the generation config names; and the one with which the chat template closes the
    assistant's turn, for chat models often end a turn with another than EOS."""
    own = generation.eos_token_id if generation else None
    named = own if isinstance(own, list) else [own]
    found = {tokenizer.eos_token_id, *named, get_turn_end(tokenizer)}
    return tuple(sorted(int(token) for token in found if token is not None))
