"""Contenders that were tuned over a quantized base: the adapter answers on such a base as was
scored; merged it goes into the full weights, and that is said."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import tuneoff
from tuneoff.errors import MissingExtraError

pytest.importorskip("bitsandbytes")
TEXT = """\
name: quantized
task:
  id: functional_representation
  source: sample
  max_new_tokens: 12
  limit: {{train: 16, validation: 8, test: 8}}
contenders:
  - name: int8
    id: local
    base: {base}
    quantization: int8
    lora: {{r: 4, alpha: 8, target_modules: attention}}
    train: {{max_steps: 3, batch_size: 8, learning_rate: 1.0e-2}}
"""


@pytest.fixture(scope="module")
def quantized(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized-export")
    (folder / "b.yaml").write_text(TEXT.format(base=tiny_base))
    results = tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")
    assert results.contenders[0].error is None
    return folder / "run"


def test_the_adapter_is_checked_on_such_a_base(quantized: Path, tmp_path: Path) -> None:
    found = tuneoff.export_contender(quantized, "int8", "adapter", tmp_path / "out")
    assert found.parity is not None
    assert found.parity["passed"]
    assert not found.parity["parity"]["exact"]


@pytest.mark.parametrize("format", ["merged", "gguf"])
def test_merged_it_is_said_to_be_another_base(quantized: Path, format: str, tmp_path: Path) -> None:
    if format == "gguf":
        pytest.importorskip("gguf")
    found = tuneoff.export_contender(quantized, "int8", format, tmp_path / "out")
    told = "was trained over the base in int8 and is merged into the full weights"
    assert told in " ".join(found.notes)
    assert told in (tmp_path / "out" / "README.md").read_text()
    assert found.parity is not None
    assert not found.parity["parity"]["exact"]
    if format == "merged":
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert "quantization_config" not in config


def test_without_what_quantizes_it_is_not_checked(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name)
    )
    found = tuneoff.export_contender(quantized, "int8", "adapter", tmp_path / "out")
    assert found.parity is None
    assert "not checked, for quantization: int8 needs the package bitsandbytes" in found.notes[-1]
    with pytest.raises(MissingExtraError):
        tuneoff.export_contender(quantized, "int8", "adapter", tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()
