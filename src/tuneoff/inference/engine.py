"""Greedy answering with shared prefixes and continuous batching.

The loop admits new rows when enough slots are free. Admission computes their shared prefixes that
are not yet in the KV cache, then prefills their own tokens except the last. One decode step then
serves all active rows; a row's last prompt token is the input of its first step. Finished rows
leave, and the last rows move into the holes, so that active rows always fill the first slots.
Decisions per row are made on numpy arrays; one copy of the new tokens to the host is a step's only
wait for the device.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuneoff.inference.attention import (
    MAX_BATCHED_PREFILL,
    ForwardPass,
    build_positions,
    use_shared_attention,
)
from tuneoff.inference.engine_check import count_rows_that_fit
from tuneoff.inference.kv_cache import ForwardPlan, SharedKVCache
from tuneoff.inference.prefix_groups import SequenceSlot, SharedPrefix, group_prompts
from tuneoff.inference.stopping import ENDS_ANSWER, StopCriteria
from tuneoff.records import Prediction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Maximum padded tokens of one prefill; on a CPU more would leave the processor's caches.
MAX_PREFILL_TOKENS = {"cpu": 1024, "cuda": 8192}
# Rows are admitted when 1/FREE_SHARE of the slots is free, for a prefill of few tokens is
# inefficient.
ADMISSION_DIVISOR = 8
# Rows are split into groups by length at multiples of STEP_OF_CUTS, where a split saves reading the
# keys and values of LEAST_CUT tokens: it costs some ten small operations a layer.
CUT_STEP = 8
# Lengths (tokens) that differ by less count as equal.
WIDTH_STEP = 32
MIN_CUT_SAVING = {"cpu": 512, "cuda": 16384}
# Predictions yielded at a time: few, because a kill loses those not yet yielded.
PREDICTIONS_PER_YIELD = 8


def generate_with_engine(
    model: PreTrainedModel,
    ending: StopCriteria,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[list[Prediction]]:
    """Answer (id, token ids) prompts that fit the model; yield predictions as they finish."""
    with use_shared_attention(model):
        engine = start_engine(model, ending, prompts, max_new_tokens, batch_size)
        done: list[Prediction] = []
        while engine.is_busy():
            done += engine.advance()
            if len(done) >= PREDICTIONS_PER_YIELD:
                yield done
                done = []
        if done:
            yield done


def start_engine(
    model: PreTrainedModel,
    ending: StopCriteria,
    prompts: Sequence[tuple[str, list[int]]],
    max_new_tokens: int,
    batch_size: int,
) -> Engine:
    """Return an engine with as many slots as fit into memory and all prompts queued."""
    started = time.perf_counter()
    prefixes, rows = group_prompts([ids for _, ids in prompts])
    longest = max(len(row.own_tokens) for row in rows) + max_new_tokens
    slots = min(batch_size, len(prompts), count_rows_that_fit(model, longest))
    engine = Engine(model, ending, max_new_tokens, slots)
    engine.add(prompts, prefixes, rows)
    engine.seconds_per_prompt = (time.perf_counter() - started) / len(prompts)
    return engine


class Engine:
    """Answers prompts in slots; further prompts wait for a free slot."""

    def __init__(
        self, model: PreTrainedModel, ending: StopCriteria, max_new_tokens: int, slots: int
    ) -> None:
        self.ending, self.max_new_tokens, self.slots = ending, max_new_tokens, slots
        # Prompts, shared prefixes and waiting rows, by numbers that are never reused.
        self.prompts: dict[int, tuple[str, list[int]]] = {}
        self.prefixes: dict[int, SharedPrefix] = {}
        self.prefix_seconds: dict[int, float] = {}
        self.added = self.added_prefixes = 0
        self.waiting: list[SequenceSlot] = []
        self.users: Counter[int] = Counter()
        self.cache = SharedKVCache(self.slots)
        self.forward = ForwardPass(model, self.cache)
        self.token_flags = np.zeros(0, dtype=np.uint8)
        # State of the active rows, by slot; only the first `len(self.active)` entries are valid.
        self.active: list[SequenceSlot] = []
        self.new = np.zeros((self.slots, max_new_tokens), dtype=np.int64)
        self.new_counts = np.zeros(self.slots, dtype=np.int64)
        self.length = np.zeros(self.slots, dtype=np.int64)
        self.token = np.zeros(self.slots, dtype=np.int64)
        self.seconds = np.zeros(self.slots)
        self.changed = True
        self.seconds_per_prompt = 0.0

    def add(
        self,
        prompts: Sequence[tuple[str, list[int]]],
        prefixes: Sequence[SharedPrefix],
        rows: Sequence[SequenceSlot],
        before: tuple[int, ...] = (),
        adapter: str | None = None,
    ) -> None:
        """Queue prompts behind those that wait.

        Args:
            prefixes, rows: from `group_prompts`, for the tokens that follow the prefixes `before`
                in all prompts.
            adapter: the adapter of all of them.
        """
        first, first_prefix = self.added, self.added_prefixes
        held = sum(len(self.prefixes[prefix].tokens) for prefix in before)
        self.added += len(prompts)
        self.added_prefixes += len(prefixes)
        self.prompts |= {first + index: prompt for index, prompt in enumerate(prompts)}

        def placed(path: tuple[int, ...], position: int) -> dict[str, Any]:
            path = before + tuple(first_prefix + prefix for prefix in path)
            return {"path": path, "position": held + position, "adapter": adapter}

        for index, prefix in enumerate(prefixes):
            number = first_prefix + index
            self.prefixes[number] = replace(prefix, **placed(prefix.path, prefix.position))
            self.prefix_seconds[number] = 0.0
        waiting = [
            replace(row, prompt=first + row.prompt, **placed(row.path, row.position))
            for row in rows
        ]
        self.waiting = waiting[::-1] + self.waiting
        self.users.update(prefix for row in waiting for prefix in row.path)

    def is_busy(self) -> bool:
        """Return whether any prompt is active or waits."""
        return bool(self.active or self.waiting)

    @torch.inference_mode()
    def advance(self) -> list[Prediction]:
        """Admit rows if there is room, decode one step, and return the predictions of finished
        rows."""
        free = self.slots - len(self.active)
        if self.waiting and free * ADMISSION_DIVISOR >= self.slots:
            self._admit(min(free, len(self.waiting)))
        started = time.perf_counter()
        count = len(self.active)
        tokens = self._decode_step(count)
        self.new[np.arange(count), self.new_counts[:count]] = tokens
        self.token[:count] = tokens
        self.new_counts[:count] += 1
        self.length[:count] += 1
        self.seconds[:count] += (time.perf_counter() - started) / count
        ended = self._find_ended(tokens)
        if not ended:
            return []
        done = [self._prediction(slot) for slot in ended]
        self._free_slots(ended)
        return done

    def _decode_step(self, count: int) -> Any:
        """Return the next token of every active row."""
        if self.changed:
            host = torch.from_numpy(
                np.stack([
                    self.token[:count],
                    self.length[:count],
                    np.array([row.position for row in self.active]),
                ])
            )  # fmt: skip
            self.inputs, self.columns, self.before = host.to(self.forward.device)
            self.parts = self._list_prefixes(self.active)
            self.adapters = [row.adapter for row in self.active]
            self.changed = False
        else:
            self.columns = self.columns + 1
        self.cache.plan = ForwardPlan(
            "decode",
            prefixes=self.parts,
            width=int(self.length[:count].max()) + 1,
            columns=self.columns,
            cuts=_cut_by_width(
                self.length[:count] + 1, _get_device_entry(MIN_CUT_SAVING, self.forward.device)
            ),
            adapters=self.adapters,
        )
        positions = (self.before + self.columns)[:, None]
        logits = self.forward(self.inputs[:, None], positions)
        if not len(self.token_flags):
            self.token_flags = self.ending.flag_tokens(logits.shape[-1])
        return self._choose_tokens(logits)

    def _choose_tokens(self, logits: torch.Tensor) -> Any:
        """Return the best token of every active row as a numpy array, and keep it as the next
        input."""
        if logits.device.type == "cpu":
            # numpy's argmax takes a fifteenth of torch's time here.
            best = logits.float().numpy().argmax(-1)
            self.inputs = torch.from_numpy(best)
            return best
        self.inputs = logits.argmax(-1)
        return self.inputs.cpu().numpy()

    def _find_ended(self, tokens: NDArray[np.int64]) -> list[int]:
        """Return the slots of rows that are complete with these new tokens."""
        count = len(self.active)
        signs = self.token_flags[tokens]
        looked_at = np.flatnonzero((signs != 0) | (self.new_counts[:count] == self.max_new_tokens))
        return [slot for slot in looked_at.tolist() if self._has_ended(slot, signs[slot])]

    def _has_ended(self, slot: int, sign: int) -> bool:
        """Return whether the row in a slot is complete."""
        if sign == ENDS_ANSWER or self.new_counts[slot] == self.max_new_tokens:
            return True
        return self.ending.has_stop_text(self.new[slot, : self.new_counts[slot]].tolist())

    def _prediction(self, slot: int) -> Prediction:
        """Return the prediction of the row in a slot."""
        row = self.active[slot]
        id, ids = self.prompts[row.prompt]
        seconds = (
            self.seconds_per_prompt
            + self.seconds[slot]
            + sum(self.prefix_seconds[prefix] for prefix in row.path)
        )
        new = self.new[slot, : self.new_counts[slot]].tolist()
        return self.ending.build_prediction(id, len(ids), new, float(seconds))

    def _free_slots(self, ended: Sequence[int]) -> None:
        """Free the slots of ended rows; the last rows move into the holes."""
        left = len(self.active) - len(ended)
        for slot in ended:
            self._release_prompt(self.active[slot])
        gone = set(ended)
        targets = [slot for slot in ended if slot < left]
        sources = [slot for slot in range(left, len(self.active)) if slot not in gone]
        self._move_rows(sources[: len(targets)], targets)
        del self.active[left:]
        self.changed = True

    def _release_prompt(self, row: SequenceSlot) -> None:
        """Release a row's prompt, and the prefixes that no other row uses."""
        del self.prompts[row.prompt]
        self.users.subtract(row.path)
        # Longest first: a prefix cache must release a child prefix before its parent.
        for prefix in reversed(row.path):
            if self.users[prefix] == 0:
                self._drop_prefix(prefix)

    def _drop_prefix(self, prefix: int) -> None:
        """Drop a prefix that no row uses any more."""
        self.cache.prefixes.pop(prefix, None)
        del self.prefixes[prefix], self.prefix_seconds[prefix], self.users[prefix]

    def _move_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Move rows to other slots, all at once."""
        if not targets:
            return
        self.cache.move_slots(sources, targets, int(self.length[sources].max()))
        for array in (self.new, self.new_counts, self.length, self.token, self.seconds):
            array[targets] = array[sources]
        moved = [self.active[source] for source in sources]
        for row, target in zip(moved, targets, strict=True):
            self.active[target] = row

    def _sort_by_length(self) -> None:
        """Sort rows longest first, so that rows of similar length are neighbours (`_cut_by_width`).

        All grow by one token a step, so the order holds until rows leave or enter. Lengths are
        rounded, and rows already in order stay, so that few have to move.
        """
        kinds = self.length[: len(self.active)] // WIDTH_STEP
        targets = np.flatnonzero(kinds != np.sort(kinds)[::-1])
        sources = targets[np.argsort(-kinds[targets], kind="stable")]
        self._move_rows(sources.tolist(), targets.tolist())

    def _admit(self, count: int) -> None:
        """Give slots to the next `count` rows and prefill all but their last tokens."""
        rows = [self.waiting.pop() for _ in range(count)]
        rows.sort(key=lambda row: -len(row.own_tokens))
        for prefix in sorted({prefix for row in rows for prefix in row.path}):
            if prefix not in self.cache.prefixes:
                self._compute_prefix(prefix)
        for some in _group_prefills(
            rows, _get_device_entry(MAX_PREFILL_TOKENS, self.forward.device)
        ):
            first = len(self.active)
            slots = slice(first, first + len(some))
            self.active += some
            started = time.perf_counter()
            if len(some[0].own_tokens) > 1:
                self._prefill(some, first)
            self.seconds[slots] = (time.perf_counter() - started) / len(some)
            self.new_counts[slots] = 0
            self.length[slots] = [len(row.own_tokens) - 1 for row in some]
            self.token[slots] = [row.own_tokens[-1] for row in some]
        self._sort_by_length()
        self.changed = True

    def _compute_prefix(self, index: int) -> None:
        """Compute a shared prefix into the KV cache."""
        started = time.perf_counter()
        prefix: SharedPrefix = self.prefixes[index]
        self.cache.plan = ForwardPlan(
            "prefix",
            prefixes=[(before, None) for before in prefix.path[:-1]],
            prefix=index,
            width=len(prefix.tokens),
            adapters=[prefix.adapter],
        )
        ids = torch.tensor([prefix.tokens], device=self.forward.device)
        self.forward(ids, build_positions([prefix.position], len(prefix.tokens), ids.device))
        self.prefix_seconds[index] = (time.perf_counter() - started) / prefix.user_count

    def _prefill(self, rows: Sequence[SequenceSlot], first: int) -> None:
        """Prefill new rows, whose slots begin at `first`."""
        width = len(rows[0].own_tokens) - 1
        padded = [row.own_tokens[:-1] + [0] * (width + 1 - len(row.own_tokens)) for row in rows]
        adapters = [row.adapter for row in rows]
        self.cache.plan = ForwardPlan(
            "prefill",
            prefixes=self._list_prefixes(rows),
            first=first,
            width=width,
            adapters=adapters,
        )
        ids = torch.tensor(padded, device=self.forward.device)
        self.forward(ids, build_positions([row.position for row in rows], width, ids.device))

    def _list_prefixes(self, rows: Sequence[SequenceSlot]) -> list[tuple[int, torch.Tensor | None]]:
        """Return the prefixes that some rows attend to, each with its rows (None: all)."""
        users: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            for prefix in row.path:
                users.setdefault(prefix, []).append(place)
        device = self.forward.device
        return [
            (prefix, None if len(some) == len(rows) else torch.tensor(some, device=device))
            for prefix, some in sorted(users.items())
        ]


def _cut_by_width(widths: NDArray[np.int64], least_saved: int) -> list[tuple[int, int, int]]:
    """Return groups of neighbouring rows (first, last, width) of similar widths.

    A group is split where that saves reading enough.
    """
    greatest = np.maximum.accumulate(widths[::-1])[::-1]
    groups: list[tuple[int, int, int]] = []
    first = 0
    for place in range(CUT_STEP, len(widths), CUT_STEP):
        saved = (greatest[first] - greatest[place]) * (len(widths) - place)
        if saved >= least_saved and greatest[place] * 5 < greatest[first] * 4:
            groups.append((first, place, int(greatest[first])))
            first = place
    return [*groups, (first, len(widths), int(greatest[first]))]


def _group_prefills(rows: Sequence[SequenceSlot], most: int) -> Iterator[list[SequenceSlot]]:
    """Yield groups of rows, longest first, for prefills with little padding."""
    some: list[SequenceSlot] = []
    for row in rows:
        longest = len(some[0].own_tokens) if some else 0
        alone = longest > MAX_BATCHED_PREFILL
        if some and (
            alone or longest * (len(some) + 1) > most or 2 * len(row.own_tokens) < longest
        ):
            yield some
            some = []
        some.append(row)
    if some:
        yield some


def _get_device_entry(table: dict[str, int], device: torch.device) -> int:
    """Return a device's entry; other accelerators count as a GPU."""
    return table.get(device.type, table["cuda"])
