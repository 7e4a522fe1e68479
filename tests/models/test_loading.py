"""A base that cannot be used as it is asked for is refused when it is loaded, in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import write_base

from tuneoff.errors import ConfigError

pytest.importorskip("bitsandbytes")


def test_a_base_that_is_too_narrow_for_nf4(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tuneoff.models.loading import load_model

    if torch.cuda.is_available():
        pytest.skip("only kernels for CPUs need whole blocks")
    with pytest.raises(ConfigError, match=r"multiple of 64, and that of .*q_proj is 32; use"):
        load_model(str(tiny_base), "nf4", torch.float32)
    assert load_model(str(tiny_base), "int8", torch.float32) is not None
    wide = write_base(tmp_path / "wide", ["some text"])
    config = LlamaConfig.from_pretrained(wide)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 32
    LlamaForCausalLM(config).save_pretrained(wide)
    with torch.inference_mode():
        model = load_model(str(wide), "nf4", torch.float32)
        assert model(input_ids=torch.tensor([[5]])).logits.isfinite().all()
