"""One answer with `transformers.generate`, for models that our engine does not serve exactly.

Tokens are chosen, ended and told as the engine's are (`answer.py`): what chooses them is put
before `generate` as a processor that leaves one token, what ends them as a criterion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from tuneoff.generation.ending import Ending
from tuneoff.generation.plain import greedy
from tuneoff.server.answer import Answer, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answer_alone(
    model: PreTrainedModel, ending: Ending, request: Request, stopping: Callable[[], bool]
) -> None:
    """Answers a request, and tells it meanwhile; breaks off, saying nothing, when `stopping`."""
    answer = Answer(request, ending.tokenizer)
    ids = torch.tensor([request.ids], device=model.device)
    with torch.inference_mode():
        generating: Any = model
        generating.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=greedy(ending, request.max_tokens),
            logits_processor=[_Choosing(answer)],
            stopping_criteria=[_Telling(answer, ending, stopping)],
        )


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

    def __init__(self, answer: Answer, ending: Ending, stopping: Callable[[], bool]) -> None:
        self._answer, self._ends, self._stopping = answer, ending.ends, stopping

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        token = int(input_ids[0, -1])
        done = self._stopping() or self._answer.took(token, token in self._ends)
        return torch.tensor([done], device=input_ids.device)
