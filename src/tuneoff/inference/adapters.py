"""The LoRA adapters attached to a loaded base model.

An adapter is attached when a request needs it. It is detached when its folder is gone (a deleted
model, a checkpoint that newer ones replaced) or when other adapters need its memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneoff.inference.loaded_model import ServedModel
    from tuneoff.models.lora import MixedLora

BLANK_ADAPTER = "blank"


class Adapters:
    """The adapters of one base model. Each gets a name that is never reused, because caches of an
    adapter are keyed by its name.

    Args:
        most_bytes: memory limit in bytes for adapters that no request is using.
        forget: called with the name of each adapter that is detached.
    """

    def __init__(
        self, model: Any, mixer: MixedLora, most_bytes: int, forget: Callable[[str], None]
    ) -> None:
        self._model, self._mixer, self._max_bytes, self._forget = model, mixer, most_bytes, forget
        # The model in PEFT's wrapper; None until the first adapter is attached.
        self._wrapped: Any = None
        # LRU order, most recently requested last; and the bytes of each.
        self._names: dict[ServedModel, str] = {}
        self._bytes: dict[ServedModel, int] = {}
        self._numbers = (f"adapter-{number}" for number in itertools.count())
        # For each adapter that cannot share a batch with others: the reason.
        self._unmixed: dict[ServedModel, str] = {}

    def get_name(self, served: ServedModel) -> str | None:
        """Return the adapter's name on this base model; None for the base alone."""
        return self._names.get(served)

    def explain_unmixed(self, served: ServedModel) -> str | None:
        """Return why a model cannot share a batch with others; None if it can."""
        return self._unmixed.get(served)

    def attach(self, served: ServedModel, busy: Callable[[], Collection[str | None]]) -> None:
        """Attach a model's adapter to the base, unless it is attached already.

        Args:
            busy: returns the names of the adapters that must stay attached.

        Raises:
            FileNotFoundError: the model was deleted.
        """
        if served.is_gone():
            self.detach_deleted(busy())
            raise FileNotFoundError(str(served.adapter))
        if served.adapter is None:
            return
        if served in self._names:
            self._names[served] = self._names.pop(served)
            return
        size, stay = _count_bytes(served.adapter), busy()
        self.detach_deleted(stay)
        self._make_room(size, stay)
        name = next(self._numbers)
        self._load(served.adapter, name)
        from tuneoff.models.lora import explain_unmixable

        reason = explain_unmixable(self._wrapped, self._mixer, name)
        if reason is not None:
            self._unmixed[served] = reason
        self._names[served], self._bytes[served] = name, size

    def _load(self, folder: Path, name: str) -> None:
        """Load an adapter's weights into the model and make it the active one."""
        import peft
        from safetensors import safe_open

        # PEFT adds its layers before it reads the file, so a damaged file would leave them behind.
        with safe_open(folder / "adapter_model.safetensors", "pt"):
            pass
        if self._wrapped is None:
            wrapped: Any = peft.PeftModel.from_pretrained(
                self._model, str(folder), adapter_name=name
            )
            self._wrapped = wrapped
        else:
            self._wrapped.load_adapter(str(folder), adapter_name=name)
        self._wrapped.eval()
        self._wrapped.set_adapter(name)
        self._mixer.wrap_layers(self._model)

    def detach_deleted(self, busy: Collection[str | None]) -> None:
        """Detach the adapters whose models were deleted, except the busy ones."""
        for served, name in list(self._names.items()):
            if served.is_gone() and name not in busy:
                self._detach(served)

    def _make_room(self, size: int, busy: Collection[str | None]) -> None:
        """Detach the least recently requested adapters until one of `size` bytes fits."""
        total_bytes = sum(self._bytes.values())
        for served, name in list(self._names.items()):
            if total_bytes + size <= self._max_bytes:
                return
            if name not in busy:
                total_bytes -= self._bytes[served]
                self._detach(served)

    def _detach(self, served: ServedModel) -> None:
        """Detach one adapter and drop what is cached for it."""
        name, model = self._names.pop(served), self._wrapped
        del self._bytes[served]
        self._unmixed.pop(served, None)
        # PEFT needs at least one adapter; keep one of rank 1 that changes nothing.
        if len(model.peft_config) == 1:
            blank = dataclasses.replace(
                model.peft_config[name], r=1, rank_pattern={}, alpha_pattern={},
                init_lora_weights=True, use_dora=False,
            )  # fmt: skip
            model.add_adapter(BLANK_ADAPTER, blank)
        model.set_adapter(next(other for other in model.peft_config if other != name))
        model.delete_adapter(name)
        self._mixer.drop_copies()
        self._forget(name)

    @contextlib.contextmanager
    def activate(self, served: ServedModel) -> Iterator[None]:
        """Activate this model's adapter inside the context."""
        if self._wrapped is None:
            yield
        elif served.adapter is None:
            with self._wrapped.disable_adapter():
                yield
        else:
            if self._wrapped.active_adapter != self._names[served]:  # switching takes milliseconds
                self._wrapped.set_adapter(self._names[served])
            yield


def _count_bytes(folder: Path) -> int:
    """Return roughly how many bytes an adapter takes: the size of its weight files."""
    with contextlib.suppress(OSError):  # deleted meanwhile
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return 0
