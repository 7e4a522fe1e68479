"""The official SDK's client of a real server process, one for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import server


@pytest.fixture(scope="module")
def served_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "data"


@pytest.fixture(scope="module")
def client(tiny_base: Path, served_dir: Path) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    with server(served_dir, "--base", str(tiny_base)) as (port, _):
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
