"""What a run looks like in a terminal: a real one (a pseudo-terminal), and the view by itself."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from tuneoff.cli.live_view import LiveView, draw_sparkline

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def drawn(live: LiveView, width: int = 120) -> list[str]:
    """The view's lines as they stand now."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        for part in live.shown.get_renderables():
            console.print(part)
    return [line.rstrip() for line in ESCAPES.sub("", captured.get()).splitlines()]


@pytest.fixture
def live() -> LiveView:
    return LiveView(Console(file=io.StringIO(), width=120, force_terminal=True))


def test_each_contender_has_a_line_from_waiting_to_its_score(live: LiveView) -> None:
    for name in ("prompted", "lora"):
        live.status(name, "waiting")
    step = live.stage("lora: training", 40)
    for done, loss in ((10, 4.0), (20, 3.0), (30, 1.0)):
        step(done, f"loss {loss:.3f}, 120 examples/s")
    live.status("prompted", "exact match 12.5%")
    live.spent(0.1234, 0.05, 5)
    prompted, lora, money = drawn(live)
    assert re.fullmatch(r"prompted\s+exact match 12.5%", prompted)
    assert re.search(r"^lora +training +━+\S* +30/40 .* █▆▁ 1 +120 examples/s$", lora)
    assert money == "spent $0.1234 of $5.00 (and perhaps $0.0500 more)"


def test_seeds_and_providers_words_are_understood(live: LiveView) -> None:
    live.status("lora", "waiting")
    live.stage("lora (seed 1): training", 4)(2, "Step 2/4: training loss=0.52")
    (line,) = drawn(live)
    assert "training (seed 1)" in line
    assert "▁ 0.52" in line
    live.stage("scoring", 9)(3)  # of a command without contenders
    assert re.search(r"^scoring +scoring +━+\S* +3/9", drawn(live)[1])


def test_a_failure_is_told_whole_above_the_lines(live: LiveView) -> None:
    live.status("hosted", "failed: the provider refused [bold]everything[/bold]")
    assert re.fullmatch(r"hosted\s+failed", drawn(live)[0])
    told = live.console.file
    assert isinstance(told, io.StringIO)
    assert "the provider refused [bold]everything[/bold]" in ESCAPES.sub("", told.getvalue())


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    live = LiveView(Console(file=io.StringIO(), width=width, force_terminal=True))
    live.status("a-contender-with-quite-a-name", "waiting")
    live.stage("lora: training", 40)(7, "loss 1.234, 99 examples/s, " + "and more " * 20)
    for line in drawn(live, width):
        assert len(line) <= width


def test_sparkline() -> None:
    assert draw_sparkline([]) == ""
    assert draw_sparkline([1.0]) == "▁"
    assert draw_sparkline([3, 2, 1, float("nan")]) == "█▅▁"
    assert len(draw_sparkline(list(range(1000)))) <= 16


def test_a_run_in_a_terminal(tiny_base: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: small\ntask: {id: functional_representation, source: sample, max_new_tokens: 8, "
        "limit: {train: 32, validation: 8, test: 6}}\ncontenders:\n"
        f"  - {{name: asked, id: prompted, base: '{tiny_base}', shots: 1}}\n"
        f"  - {{name: lora, id: local, base: '{tiny_base}', prompt: short, "
        "train: {max_steps: 6, batch_size: 8}}\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "run", str(file)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "140"},
    ) as run:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            shown += more
        out = run.communicate(timeout=60)[0].decode()
    os.close(ours)
    assert run.returncode == 0, shown.decode()
    text = ESCAPES.sub("", shown.decode())
    assert re.search(r"lora +waiting", text)
    assert re.search(r"lora +training +━", text)
    assert re.search(r"asked +exact match \d", text)
    assert re.search(r"lora +exact match \d", text)
    assert "report:" in out  # on stdout, for others to read
