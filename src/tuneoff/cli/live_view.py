"""The live view of a run in a terminal: one line per contender, below them the money spent.

A line has the stage, its progress, the remaining time and the curve of the loss.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tuneoff.progress import IDLE, OVER_BUDGET, WAITING, Step

if TYPE_CHECKING:
    from rich.console import Console

# The training loss in a step's note: ours ("loss 0.412"), or a provider's ("loss=0.41").
LOSS_PATTERN = re.compile(r"loss[ =](\d+(?:\.\d+)?)")
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 16


def draw_sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Return values as a line of block characters, from the lowest to the highest.

    If there are more than fit, each character is a mean.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    size = max(1, math.ceil(len(known) / width))
    parts = [known[first : first + size] for first in range(0, len(known), size)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def _style_words(words: str, style: str) -> str:
    """Return words as rich's markup in a style."""
    from rich.markup import escape

    return f"[{style}]{escape(words)}[/]"


class LiveView:
    """The progress of a run, as a live view."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text

        live = self

        class Shown(RichProgress):
            """The lines of the contenders, and the money spent below them."""

            def get_renderables(self) -> Iterable[Any]:
                yield from super().get_renderables()
                if live.money:
                    yield Text(live.money, style="dim")

        def busy(column: type[Any], **options: Any) -> Any:
            """Return a column that is empty while nothing is done for a contender."""

            class Busy(column):  # type: ignore[misc]
                def render(self, task: Any) -> Any:
                    return Text("") if task.fields["idle"] else super().render(task)

            return Busy(**options)

        self.console = console or RichConsole(stderr=True)
        self.money = ""
        self.shown = Shown(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[stage]}"),
            busy(BarColumn, bar_width=20),
            busy(MofNCompleteColumn),
            busy(TimeRemainingColumn, compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[loss]}", style="magenta", markup=False),
            TextColumn(
                "{task.fields[note]}", style="dim", markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=self.console,
            expand=True,
        )  # fmt: skip
        self._rows: dict[str, Any] = {}

    def say(self, line: str) -> None:
        """Print a line above the view."""
        self.console.print(line, markup=False, highlight=False)

    def status(self, name: str, words: str) -> None:
        """Show a contender's status while nothing is done for it."""
        short, _, why = words.partition(": ")
        if why:
            self.say(f"{name}: {words}")
        style = "dim" if words in IDLE else "red" if why or words == OVER_BUDGET else "green"
        self.shown.update(self._row(name), stage=_style_words(short, style), idle=True, note="")

    def stage(self, title: str, total: int) -> Step:
        """Show a new stage of a contender; return the function that reports its progress."""
        name, _, stage = title.rpartition(": ")
        # Of a contender with several seeds: "lora (seed 1): training".
        contender, _, which = name.partition(" (")
        if contender in self._rows:
            stage = f"{stage} ({which}" if which else stage
        else:
            contender = name or stage
        losses: list[float] = []
        row = self._row(contender)
        self.shown.reset(
            row, total=total, idle=False, stage=_style_words(stage, "cyan"), note="", loss=""
        )

        def step(done: int, note: str = "") -> None:
            match = LOSS_PATTERN.search(note)
            if match:
                losses.append(float(match[1]))
            shown = f"{draw_sparkline(losses)} {losses[-1]:.3g}" if losses else ""
            self.shown.update(
                row, completed=done, loss=shown, note=LOSS_PATTERN.sub("", note).strip(" ,")
            )

        return step

    def spent(self, known: float, uncertain: float, budget: float | None) -> None:
        """Show the money spent."""
        perhaps = f" (and perhaps ${uncertain:.4f} more)" if uncertain else ""
        of = f" of ${budget:,.2f}" if budget is not None else ""
        self.money = f"spent ${known:,.4f}{of}{perhaps}"

    def ask(self, question: str) -> bool:
        """Ask a question, with the view paused; return whether the answer is yes."""
        if not sys.stdin.isatty():
            return False
        from rich.prompt import Confirm

        self.shown.stop()
        try:
            return Confirm.ask(question, console=self.console, default=False)
        except EOFError:
            return False
        finally:
            self.shown.start()

    def _row(self, name: str) -> Any:
        """Return the line of a contender, which is added if it is new."""
        if name not in self._rows:
            self._rows[name] = self.shown.add_task(
                name, total=None, stage=_style_words(WAITING, "dim"), idle=True, loss="", note=""
            )
        return self._rows[name]
