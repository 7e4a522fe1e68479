"""A hub that does not answer is spoken of once; nothing else that its library says is lost."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

from tuneoff.cli.console import HubErrorFilter

# The library waits between its tries, all in all for a minute.
IMPATIENT = """\
import time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.05))
from tuneoff.cli.main import main
main()
"""
BAKEOFF = """\
name: offline
task: {id: functional_representation, source: sample, limit: {train: 8, test: 8}}
contenders:
  - {name: lora, id: local, base: nobody/nothing}
"""


def test_a_hub_that_is_away_is_one_line(tmp_path: Path) -> None:
    """The real library, at a port where nobody listens; each try of it was two lines."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "b.yaml").write_text(BAKEOFF)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-c", IMPATIENT]
    done = subprocess.run(
        [*command, "run", "b.yaml", "--run-dir", "r"], cwd=tmp_path, env=environment, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.count("127.0.0.1 does not answer") == 1
    assert "Retrying" not in done.stderr
    assert "thrown while requesting" not in done.stderr
    assert "the model could not be loaded" in done.stderr


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.WARNING, "f", 1, text, (), None)


def test_each_host_once_without_what_may_be_secret() -> None:
    one_line = HubErrorFilter()
    first = record("'away' thrown while requesting GET https://a.co/x?Signature=secret")
    assert one_line.filter(first)
    assert first.getMessage() == "a.co does not answer (away); trying again for a while"
    again = ("'away' thrown while requesting GET https://a.co/y", "Retrying in 2s [Retry 1/5].")
    assert not any(one_line.filter(record(said)) for said in again)
    busy = record("HTTP Error 503 thrown while requesting GET https://b.co/x")
    assert one_line.filter(busy)
    assert busy.getMessage().startswith("b.co does not answer (HTTP Error 503)")
    other = record("You are sending requests without a token.")
    assert one_line.filter(other)
    assert other.getMessage() == "You are sending requests without a token."
