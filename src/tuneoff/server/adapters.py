"""The adapters on a loaded base: put on when they are asked for, taken off when their folder is
gone (a deleted model, a checkpoint that newer ones replaced), or when others need their room.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneoff.models.mixed_lora import MixedLora
    from tuneoff.server.base import Served

BLANK = "blank"


class Adapters:
    """Those of one base, which are known by names that are never given again, for what is kept
    of an adapter goes by its name.

    Args:
        most_bytes: what adapters may take that nobody is answered with.
        forget: told the name of each that was taken off.
    """

    def __init__(
        self, model: Any, mixer: MixedLora, most_bytes: int, forget: Callable[[str], None]
    ) -> None:
        self._model, self._mixer, self._most_bytes, self._forget = model, mixer, most_bytes, forget
        # The model in PEFT's wrapper, once there are any.
        self._wrapped: Any = None
        # By when they were asked for, the last one last; and the bytes of each.
        self._names: dict[Served, str] = {}
        self._bytes: dict[Served, int] = {}
        self._numbers = (f"adapter-{number}" for number in itertools.count())
        # Why some of them cannot be in a batch with others.
        self._unmixed: dict[Served, str] = {}

    def name(self, served: Served) -> str | None:
        """What it is called here; None for the base alone."""
        return self._names.get(served)

    def unmixed(self, served: Served) -> str | None:
        """Why a model cannot be in a batch with others, if it cannot."""
        return self._unmixed.get(served)

    def put_on(self, served: Served, busy: Callable[[], Collection[str | None]]) -> None:
        """Puts a model's adapter on the base, if it is not there.

        Args:
            busy: gives the names of those that stay whatever happens.

        Raises:
            FileNotFoundError: the model was deleted.
        """
        if served.is_gone():
            self.drop_gone(busy())
            raise FileNotFoundError(str(served.adapter))
        if served.adapter is None:
            return
        if served in self._names:
            self._names[served] = self._names.pop(served)
            return
        size, stay = _size(served.adapter), busy()
        self.drop_gone(stay)
        self._make_room(size, stay)
        name = next(self._numbers)
        self._load(served.adapter, name)
        from tuneoff.models.mixed_lora import unmixed

        reason = unmixed(self._wrapped, self._mixer, name)
        if reason is not None:
            self._unmixed[served] = reason
        self._names[served], self._bytes[served] = name, size

    def _load(self, folder: Path, name: str) -> None:
        import peft
        from safetensors import safe_open

        # PEFT adds its layers before it reads: those of a damaged file would stay for ever.
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
        self._mixer.take_over(self._model)

    def drop_gone(self, busy: Collection[str | None]) -> None:
        """Takes off those that were deleted, but not the busy ones."""
        for served, name in list(self._names.items()):
            if served.is_gone() and name not in busy:
                self._take_off(served)

    def _make_room(self, size: int, busy: Collection[str | None]) -> None:
        """Takes off what was asked for longest ago, until one of so many bytes fits."""
        held = sum(self._bytes.values())
        for served, name in list(self._names.items()):
            if held + size <= self._most_bytes:
                return
            if name not in busy:
                held -= self._bytes[served]
                self._take_off(served)

    def _take_off(self, served: Served) -> None:
        name, model = self._names.pop(served), self._wrapped
        del self._bytes[served]
        self._unmixed.pop(served, None)
        # PEFT cannot answer without any adapter; one of rank 1 that changes nothing stays.
        if len(model.peft_config) == 1:
            blank = dataclasses.replace(
                model.peft_config[name], r=1, rank_pattern={}, alpha_pattern={},
                init_lora_weights=True, use_dora=False,
            )  # fmt: skip
            model.add_adapter(BLANK, blank)
        model.set_adapter(next(each for each in model.peft_config if each != name))
        model.delete_adapter(name)
        self._mixer.forget()
        self._forget(name)

    @contextlib.contextmanager
    def active(self, served: Served) -> Iterator[None]:
        """While inside, the model is this one."""
        if self._wrapped is None:
            yield
        elif served.adapter is None:
            with self._wrapped.disable_adapter():
                yield
        else:
            if self._wrapped.active_adapter != self._names[served]:  # it takes some milliseconds
                self._wrapped.set_adapter(self._names[served])
            yield


def _size(folder: Path) -> int:
    """About the bytes that an adapter takes: those of its file."""
    with contextlib.suppress(OSError):  # gone meanwhile
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return 0
