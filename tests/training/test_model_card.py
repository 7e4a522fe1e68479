"""The card beside a tuned model names its base as others can find it, or as nobody's but ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tuneoff.config.contenders import LocalConfig
from tuneoff.models.loading import resolve_base
from tuneoff.records import TrainingRecord
from tuneoff.training.model_card import write_card

RECORD = TrainingRecord(
    examples=1, epochs=1.0, steps=1, tokens_raw=1, tokens_templated=1, tokens_billed=None,
    tokens_computed=1, seconds=1.0, peak_memory_bytes=1, best_step=None, overfitting_step=None,
    verdict=None,
)  # fmt: skip


def card(base: str, folder: Path, out: Path) -> tuple[dict[str, Any], str]:
    """Head and body of the card of a training over a base that a file in `folder` names."""
    settings = LocalConfig(name="x", id="local", base=base)
    write_card(out / "README.md", settings, resolve_base(base, folder), RECORD)
    _, head, body = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `acme/small` with a base; the command is run somewhere else."""
    model = tmp_path / "files" / "acme" / "small"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "files"


def test_a_folder_beside_the_file_is_no_hub_id(beside: Path, tmp_path: Path) -> None:
    head, body = card("acme/small", beside, tmp_path)
    assert "base_model" not in head
    assert "`small` tuned with tuneoff" in body
    assert "acme" not in body


def test_a_folder_where_the_command_is_run_hides_no_hub_id(
    beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(beside)
    head, body = card("acme/small", tmp_path / "elsewhere", tmp_path)
    assert head["base_model"] == "acme/small"
    assert "`acme/small` tuned with tuneoff" in body


def test_the_shipped_base_keeps_its_name(tmp_path: Path) -> None:
    head, body = card("tiny", tmp_path, tmp_path)
    assert "base_model" not in head
    assert "`tiny` tuned with tuneoff" in body
