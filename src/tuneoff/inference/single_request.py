"""One answer with `transformers.generate`, for models that the engine cannot serve exactly.

Tokens are chosen, stopped and reported as in the engine (`inference/requests.py`): a logits
processor chooses the token, a stopping criterion ends the answer. `generate` returns nothing before
its end, so it runs on its own thread. That thread is blocked except while `advance` waits for the
next token, so other users of the model get their turns in between.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from tuneoff.inference.generate import build_greedy_config
from tuneoff.inference.requests import Generation, GenerationRequest
from tuneoff.inference.stopping import StopCriteria

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SingleRequestGenerator:
    """A generation in progress. One thread calls `advance`, and `close` if it is not complete."""

    def __init__(
        self, model: PreTrainedModel, ending: StopCriteria, request: GenerationRequest
    ) -> None:
        self.request, self.complete = request, False
        self._model, self._ending = model, ending
        self._answer = Generation(request, ending.tokenizer)
        self._error: Exception | None = None
        self._closing = False
        # Hand control to the generating thread, and back to the thread that advances it.
        self._ours, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="answering-alone", daemon=True)

    def advance(self) -> None:
        """Generate and report one more token.

        The model must be in the same state at each call.

        Raises:
            Exception: any error that the model raised while generating.
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
        """Abort the generation and report nothing more."""
        self._closing = True
        if self._thread.ident is not None and not self.complete:
            with contextlib.suppress(Exception):  # nobody is waiting for the error
                self.advance()

    def _run(self) -> None:
        """Run `generate` on the thread; store an error instead of raising it."""
        ids = torch.tensor([self.request.ids], device=self._model.device)
        generating: Any = self._model
        telling = _StopReporter(self)
        try:
            with torch.inference_mode():
                generating.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=build_greedy_config(self._ending, self.request.max_tokens),
                    logits_processor=[_TokenProcessor(self._answer)],
                    stopping_criteria=[telling],
                )
            if not (telling.done or self._closing):
                self._answer.finish()  # by a stopping criterion of the model's own
        except Exception as error:
            self._error = error
        finally:
            self.complete = True
            self._theirs.release()

    def accept_token(self, token: int) -> bool:
        """Report a token and wait for the next turn; return whether the generation must stop."""
        if self._answer.accept_token(token, token in self._ending.end_tokens):
            return True
        self._theirs.release()
        self._ours.acquire()
        return self._closing


class _TokenProcessor(LogitsProcessor):
    """A logits processor that leaves only the token that the generation chooses."""

    def __init__(self, answer: Generation) -> None:
        self._answer = answer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self._answer.choose(scores[0].float().cpu().numpy())
        masked = torch.full_like(scores, -torch.inf)
        masked[0, token] = 0
        return masked


class _StopReporter(StoppingCriteria):
    """A stopping criterion that reports new tokens and stops when the generation is complete."""

    def __init__(self, alone: SingleRequestGenerator) -> None:
        self._alone, self.done = alone, False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        self.done = self._alone.accept_token(int(input_ids[0, -1]))
        return torch.tensor([self.done], device=input_ids.device)
