"""The continuous batching engine: requests join and leave the running batch.

Each request has its own adapter, sampling parameters, stop strings and length, and is told of every
token as it is generated. Requests join when slots are free and leave when they are done, so nobody
waits for the longest answer. Prefixes that came several times stay in the prefix cache
(`inference/prefix_cache.py`). At temperature 0 the tokens equal those of `inference/engine.py`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuneoff.inference.attention import ForwardPass
from tuneoff.inference.engine import Engine
from tuneoff.inference.prefix_cache import PrefixCache, PrefixMatch, PromptHistory
from tuneoff.inference.prefix_groups import SharedPrefix, group_prompts
from tuneoff.inference.requests import Generation, GenerationRequest, describe_error, fail_request
from tuneoff.inference.stopping import ENDS_ANSWER, StopCriteria
from tuneoff.models.lora import MixedLora
from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Up to this many bytes of slot buffers stay allocated for later requests, because allocation takes
# time.
MAX_IDLE_BYTES = 2**27


class ContinuousBatchingEngine(Engine):
    """An engine that requests may join at any time."""

    def __init__(
        self,
        model: PreTrainedModel,
        ending: StopCriteria,
        mixer: MixedLora,
        slots: int,
        positions: int,
        kept_tokens: int,
    ) -> None:
        super().__init__(model, ending, positions, slots)
        self.forward = _MultiAdapterForward(model, self.cache, mixer)
        self._answers: dict[int, Generation] = {}
        # Prompts whose own generation failed: they leave with the next step, alone.
        self._broken: set[int] = set()
        self._kept = PrefixCache(self.prefixes, kept_tokens)
        self._remembered = PromptHistory()

    def join(self, asked: Sequence[tuple[str | None, GenerationRequest]]) -> None:
        """Queue requests, each with its adapter."""
        # What the prefix cache holds before these requests add to it.
        matches = [self._kept.match(adapter, request.ids) for adapter, request in asked]
        alike: dict[tuple[str | None, tuple[int, ...]], list[Generation]] = {}
        for (adapter, request), match in zip(asked, matches, strict=True):
            try:
                answer = Generation(request, self.ending.tokenizer, self._count_cached(match))
            except Exception as error:
                fail_request(request, describe_error(error))
                continue
            path = self._path(adapter, request.ids)
            alike.setdefault((adapter, path), []).append(answer)
        for (adapter, path), answers in alike.items():
            self._wait(adapter, path, answers)

    def _wait(
        self, adapter: str | None, path: tuple[int, ...], answers: Sequence[Generation]
    ) -> None:
        """Add prompts that start with the same cached prefixes; they also share what else is
        common."""
        first, first_prefix = self.added, self.added_prefixes
        cached = sum(len(self.prefixes[prefix].tokens) for prefix in path)
        prompts = [("", answer.request.ids) for answer in answers]
        self._kept.mark_used(path)
        self.add(prompts, *group_prompts([ids[cached:] for _, ids in prompts]), path, adapter)
        for prefix in range(first_prefix, self.added_prefixes):
            self._kept.add(prefix)
        for number, answer in enumerate(answers, first):
            self._answers[number] = answer
            self._remembered.add(adapter, answer.request.ids, answer.new)

    def advance(self) -> list[Prediction]:
        """Run one step, after removing waiting requests whose clients are gone."""
        gone = [row for row in self.waiting if self._answers[row.prompt].request.cancelled.is_set()]
        if gone:
            numbers = {row.prompt for row in gone}
            self.waiting = [row for row in self.waiting if row.prompt not in numbers]
            for row in gone:
                self._answers.pop(row.prompt).finish()
                self._release_prompt(row)
        return super().advance() if self.is_busy() else []

    def _count_cached(self, match: PrefixMatch) -> int:
        """Return how many prompt tokens a match takes from the prefix cache."""
        sliced = match.part is not None and match.part[0] in self.cache.prefixes
        return match.held + (match.part[1] if match.part and sliced else 0)

    def _path(self, adapter: str | None, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the cached prefixes that a prompt starts with; add new ones where worthwhile."""
        match = self._kept.match(adapter, ids)
        path, cached = match.path, match.held
        if match.part is not None and match.part[0] in self.cache.prefixes:
            # The prompt leaves a longer prefix before its end: split off the common first part.
            prefix, count = match.part
            number = self._add_prefix(adapter, path, self.prefixes[prefix].tokens[:count], cached)
            self.cache.prefixes[number] = {
                layer: (key[:, :count].clone(), value[:, :count].clone())
                for layer, (key, value) in self.cache.prefixes[prefix].items()
            }
            path, cached = (*path, number), cached + count
        kept = self._remembered.count_worth_caching(adapter, ids, cached)
        if kept > cached:
            path = (*path, self._add_prefix(adapter, path, ids[cached:kept], cached))
        return path

    def _add_prefix(
        self, adapter: str | None, path: tuple[int, ...], tokens: Sequence[int], position: int
    ) -> int:
        """Add a prefix to the cache and return its number."""
        number = self.added_prefixes
        self.added_prefixes += 1
        self.prefixes[number] = SharedPrefix(list(tokens), position, (*path, number), 1, adapter)
        self.prefix_seconds[number] = 0.0
        self._kept.add(number)
        return number

    def _drop_prefix(self, prefix: int) -> None:
        """Decide which prefixes to drop when no request uses this one any more."""
        # A prefix that was never computed, because its requests are gone, is not worth keeping.
        for gone in self._kept.mark_unused(prefix, kept=prefix in self.cache.prefixes):
            super()._drop_prefix(gone)

    def list_adapters_in_use(self) -> set[str | None]:
        """Return the adapters that requests are using or waiting for."""
        return {row.adapter for row in [*self.active, *self.waiting]}

    def forget(self, adapter: str) -> None:
        """Drop the cached prefixes of an adapter."""
        for gone in self._kept.drop_adapter(adapter):
            super()._drop_prefix(gone)

    def rest(self) -> None:
        """Free large buffers while the engine is idle, but keep the prefix cache."""
        if self.cache.nbytes()[1] > MAX_IDLE_BYTES:
            self.cache.slot_buffers.clear()

    def fail(self, message: str) -> None:
        """Report to all requests that they fail."""
        for answer in self._answers.values():
            fail_request(answer.request, message)

    def _choose_tokens(self, logits: torch.Tensor) -> Any:
        """Choose the next token of each slot."""
        numpy_logits = logits.float().cpu().numpy()
        tokens = np.array(
            [self._chosen(row.prompt, numpy_logits[slot]) for slot, row in enumerate(self.active)],
            dtype=np.int64,
        )
        self.inputs = torch.from_numpy(tokens).to(logits.device)
        return tokens

    def _chosen(self, prompt: int, logits: NDArray[np.float32]) -> int:
        """Choose a prompt's next token; if that fails, end only this generation."""
        try:
            return self._answers[prompt].choose(logits)
        except Exception as error:
            self._fail_generation(prompt, error)
            return 0

    def _find_ended(self, tokens: NDArray[np.int64]) -> list[int]:
        """Return the slots whose generations are complete."""
        signs = self.token_flags[tokens]
        return [
            slot
            for slot, row in enumerate(self.active)
            if self._took(row.prompt, int(tokens[slot]), bool(signs[slot] == ENDS_ANSWER))
        ]

    def _took(self, prompt: int, token: int, is_end: bool) -> bool:
        """Add a token to a generation; return whether it is complete."""
        if prompt in self._broken:
            return True
        try:
            return self._answers[prompt].accept_token(token, is_end)
        except Exception as error:
            self._fail_generation(prompt, error)
            return True

    def _fail_generation(self, prompt: int, error: Exception) -> None:
        """End a generation that failed by itself; the rest of the batch continues."""
        logging.getLogger(__name__).error("an answer failed", exc_info=error)
        self._broken.add(prompt)
        # Reporting itself may have failed; then nobody can be told.
        with contextlib.suppress(Exception):
            fail_request(self._answers[prompt].request, describe_error(error))

    def _prediction(self, slot: int) -> Prediction:
        """Drop a finished generation and return an empty prediction."""
        prompt = self.active[slot].prompt
        self._broken.discard(prompt)
        del self._answers[prompt]
        return Prediction("", "")  # the request got its answer already


class _MultiAdapterForward(ForwardPass):
    """A forward pass whose rows have different adapters."""

    def __init__(self, model: PreTrainedModel, cache: Any, mixer: MixedLora) -> None:
        super().__init__(model, cache)
        self._mixer = mixer

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        with self._mixer.use_adapters(self.cache.plan.adapters):
            return super().__call__(ids, positions)
