"""One answer with `transformers.generate`, for models that our engine does not serve exactly.

Tokens are chosen, ended and told as the engine's are (`answer.py`): what chooses them is put
before `generate` as a processor that leaves one token, what ends them as a criterion. `generate`
gives nothing away before its end, so it runs on a thread of its own, which stands still but while
`advance` waits for the next token: others that use the model have their turns in between.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from tuneoff.generation.ending import Ending
from tuneoff.generation.plain import greedy
from tuneoff.server.answer import Answer, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Alone:
    """An answer under way. One thread advances it, and closes it if it is not complete."""

    def __init__(self, model: PreTrainedModel, ending: Ending, request: Request) -> None:
        self.request, self.complete = request, False
        self._model, self._ending = model, ending
        self._answer = Answer(request, ending.tokenizer)
        self._error: Exception | None = None
        self._closing = False
        # Whose turn it is: the answer's, or that of whoever advances it.
        self._ours, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="answering-alone", daemon=True)

    def advance(self) -> None:
        """One token more, told. The model must be in the same state each time.

        Raises:
            Exception: whatever kept the model from answering.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._ours.release()
        self._theirs.acquire()
        if self.complete:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Breaks off, and says nothing more."""
        self._closing = True
        if self._thread.ident is not None and not self.complete:
            with contextlib.suppress(Exception):  # nobody is left to be told
                self.advance()

    def _run(self) -> None:
        ids = torch.tensor([self.request.ids], device=self._model.device)
        generating: Any = self._model
        telling = _Telling(self)
        try:
            with torch.inference_mode():
                generating.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=greedy(self._ending, self.request.max_tokens),
                    logits_processor=[_Choosing(self._answer)],
                    stopping_criteria=[telling],
                )
            if not (telling.done or self._closing):
                self._answer.ended()  # by something that the model has of its own
        except Exception as error:
            self._error = error
        finally:
            self.complete = True
            self._theirs.release()

    def took(self, token: int) -> bool:
        """Tells a token, and waits for the next turn; whether there is none any more."""
        if self._answer.took(token, token in self._ending.ends):
            return True
        self._theirs.release()
        self._ours.acquire()
        return self._closing


class _Choosing(LogitsProcessor):
    """Leaves the token that the answer chooses."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self._answer.choose(scores[0].float().cpu().numpy())
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, token] = 0
        return chosen


class _Telling(StoppingCriteria):
    """Tells what is new, and whether the answer is complete."""

    def __init__(self, alone: Alone) -> None:
        self._alone, self.done = alone, False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        self.done = self._alone.took(int(input_ids[0, -1]))
        return torch.tensor([self.done], device=input_ids.device)
