"""GGUF files: every tensor and setting is the model's, read back by llama.cpp's own reader, by
transformers', and, where it is installed, by llama.cpp itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from helpers import write_base

from tuneoff.errors import ConfigError

pytest.importorskip("gguf")
import gguf

from tuneoff.export.gguf import check_architecture, write_gguf
from tuneoff.export.gguf_tokenizer import build_vocabulary
from tuneoff.export.verify import load_gguf

SIZE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
CONFIGS = {
    "llama": lambda: t.LlamaConfig(**SIZE),
    "llama-tied": lambda: t.LlamaConfig(**SIZE, head_dim=32, tie_word_embeddings=True),
    "llama-biases": lambda: t.LlamaConfig(**SIZE, attention_bias=True, mlp_bias=True),
    "llama3-rope": lambda: t.LlamaConfig(**SIZE, rope_parameters=LLAMA3),
    "linear-rope": lambda: t.LlamaConfig(**SIZE, rope_parameters=LINEAR),
    "mistral": lambda: t.MistralConfig(**SIZE, sliding_window=128),
    "qwen2": lambda: t.Qwen2Config(**SIZE),
    "qwen3": lambda: t.Qwen3Config(**SIZE, head_dim=32),
}
TEXT = "One sentence, and then 42 more words."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_base(tmp_path_factory.mktemp("tokenizer"), [TEXT] * 5)
    return t.PreTrainedTokenizerFast.from_pretrained(folder)


def random_model(name: str) -> Any:
    torch.manual_seed(0)
    model: Any = t.AutoModelForCausalLM.from_config(CONFIGS[name]()).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms at 1 and biases at 0 would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def written(model: Any, tokenizer: Any, path: Path, outtype: Any = "f32") -> Any:
    write_gguf(path, model, build_vocabulary(tokenizer, 512, [2]), outtype, "random")
    return gguf.GGUFReader(path)


def own_rows(stored: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head as transformers orders them, from those that llama.cpp's Llama has."""
    pairs = stored.reshape(heads, stored.shape[0] // heads // 2, 2, *stored.shape[1:])
    return pairs.swapaxes(1, 2).reshape(stored.shape)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_the_models(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = random_model(name)
    config, reader = model.config, written(model, tokenizer, tmp_path / "m.gguf")
    stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    kinds = {"qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
    arch = kinds.get(name, gguf.MODEL_ARCH.LLAMA)
    names = gguf.get_tensor_name_map(arch, 2)
    state = model.state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    for key, tensor in state.items():
        found = stored.pop(names.get_name(key, try_suffixes=(".weight", ".bias")))
        if arch == gguf.MODEL_ARCH.LLAMA and (".q_proj." in key or ".k_proj." in key):
            found = own_rows(found, 4 if ".q_proj." in key else 2)
        np.testing.assert_array_equal(found, tensor.numpy(), err_msg=key)
    factors = stored.pop("rope_freqs.weight", None)
    assert stored == {}
    if name == "llama3-rope":
        own = t.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
        plain = 500000.0 ** -(torch.arange(0, 16, 2).float() / 16)
        np.testing.assert_allclose(plain.numpy() / factors, own.numpy(), rtol=1e-6)
        assert len(set(factors.tolist())) > 1
    else:
        assert factors is None


@pytest.mark.parametrize("name", ["llama-tied", "linear-rope", "mistral", "qwen3"])
def test_settings_are_the_configurations(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = random_model(name)
    reader = written(model, tokenizer, tmp_path / "m.gguf")
    values = {key: field.contents() for key, field in reader.fields.items()}
    arch = "qwen3" if name == "qwen3" else "llama"
    head = 32 if name in ("llama-tied", "qwen3") else 16
    expected = {
        "vocab_size": 512, "block_count": 2, "embedding_length": 64, "feed_forward_length": 96,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": head,
        "attention.value_length": head, "rope.dimension_count": head,
        "context_length": 128 if name == "mistral" else 256,
    }  # fmt: skip
    assert values["general.architecture"] == arch
    for key, value in expected.items():
        assert values[f"{arch}.{key}"] == value, key
    assert values[f"{arch}.rope.freq_base"] == model.config.rope_parameters["rope_theta"]
    assert values.get(f"{arch}.rope.scaling.factor") == (2.0 if name == "linear-rope" else None)
    epsilon = values[f"{arch}.attention.layer_norm_rms_epsilon"]
    assert epsilon == pytest.approx(model.config.rms_norm_eps)
    assert values["tokenizer.ggml.eos_token_id"] == 2
    assert values["tokenizer.ggml.bos_token_id"] == 1
    assert values["tokenizer.ggml.pre"] == "gpt-2"


@pytest.mark.parametrize("name", ["llama", "llama3-rope", "mistral", "qwen2", "qwen3"])
def test_transformers_reads_the_same_model(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = random_model(name)
    written(model, tokenizer, tmp_path / "m.gguf")
    read = load_gguf(tmp_path / "m.gguf", model.config, torch.float32)
    for key, tensor in model.state_dict().items():
        assert torch.equal(read.state_dict()[key], tensor), key


@pytest.mark.parametrize(("outtype", "closeness"), [("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2)])
def test_rounding(outtype: str, closeness: float, tokenizer: Any, tmp_path: Path) -> None:
    model = random_model("qwen2")
    reader = written(model, tokenizer, tmp_path / "m.gguf", outtype)
    kinds = set()
    for tensor in reader.tensors:
        kinds.add(tensor.tensor_type.name)
        if tensor.name == "output.weight":
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            own = model.lm_head.weight.detach().numpy()
            assert 0 < np.abs(values - own).max() < closeness * np.abs(own).max()
    assert kinds == {"F32", outtype.upper()}  # vectors stay as they are


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_the_same(name: str, tokenizer: Any, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = random_model(name)
    written(model, tokenizer, tmp_path / "m.gguf")
    kind = llama_cpp.GGML_TYPE_F32
    runtime = llama_cpp.Llama(
        str(tmp_path / "m.gguf"), n_ctx=256, type_k=kind, type_v=kind, verbose=False
    )
    ids = torch.randint(3, 250, (1, 100), generator=torch.Generator().manual_seed(1))
    runtime.eval(ids[0].tolist())
    pointer = llama_cpp.llama_get_logits_ith(runtime.ctx, -1)
    theirs = np.ctypeslib.as_array(pointer, shape=(512,)).copy()
    runtime.close()
    with torch.inference_mode():
        own = model(input_ids=ids).logits[0, -1].numpy()
    np.testing.assert_allclose(theirs, own, atol=2e-4 * np.abs(own).max())


def test_what_cannot_be_converted() -> None:
    with pytest.raises(ConfigError, match=r"is a GemmaForCausalLM, and only .* --format merged"):
        check_architecture(t.GemmaConfig(architectures=["GemmaForCausalLM"]))
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    llama = {"architectures": ["LlamaForCausalLM"]}
    with pytest.raises(ConfigError, match="LlamaForCausalLM with yarn rope scaling"):
        check_architecture(t.LlamaConfig(**SIZE, rope_parameters=yarn, **llama))
    with pytest.raises(ConfigError, match="with the activation gelu"):
        check_architecture(t.LlamaConfig(**SIZE, hidden_act="gelu", **llama))
