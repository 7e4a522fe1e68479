"""Adapters on a head or an embedding that are one tied weight: each changes its own part alone, in
what is scored, served and exported alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Cli

import tuneoff
from tuneoff.models.head import is_tied, untie_head
from tuneoff.storage.run_dir import RunDir

TEXT = """\
name: tied
task:
  id: functional_representation
  source: sample
  max_new_tokens: 8
  limit: {{train: 16, validation: 4, test: 6}}
contenders:
  - {{name: attention, id: local, base: {base}, lora: {{r: 4, alpha: 8, dropout: 0,
      target_modules: attention}}, train: {train}}}
  - {{name: head, id: local, base: {base}, lora: {{r: 4, alpha: 8, dropout: 0,
      target_modules: [q_proj, lm_head]}}, train: {train}}}
  - {{name: embedding, id: local, base: {base}, lora: {{r: 4, alpha: 8, dropout: 0,
      target_modules: [v_proj, model.embed_tokens]}}, train: {train}}}
  - {{name: both, id: local, base: {base}, lora: {{r: 4, alpha: 8, dropout: 0,
      target_modules: [embed_tokens, lm_head]}}, train: {train}}}
"""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Of these the adapter leaves one as it was in the base.
KEPT = {"head": EMBEDDING, "embedding": HEAD}


def carried_out(base: Path, folder: Path, only: str | None = None) -> Path:
    file = folder / "b.yaml"
    train = "{max_steps: 6, batch_size: 8, learning_rate: 2.0e-2}"
    file.write_text(TEXT.format(base=base, train=train))
    results = tuneoff.run(tuneoff.load(file), folder / "run", only=only)
    assert {each.error for each in results.contenders if only in (None, each.name)} == {None}
    return folder / "run"


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return carried_out(tiny_base, tmp_path_factory.mktemp("tied"))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The two weights as they lie in a folder; a tied head is not there."""
    from safetensors.torch import load_file

    found = load_file(folder / "model.safetensors")
    return {name: found[name] for name in (EMBEDDING, HEAD) if name in found}


@pytest.mark.parametrize("name", ["head", "embedding", "both"])
def test_an_export_is_what_was_scored(
    run: Path, tiny_base: Path, tmp_path: Path, name: str
) -> None:
    gguf = pytest.importorskip("gguf")
    adapter = run / "contenders" / name / "adapter" / "adapter_model.safetensors"
    assert b"base_layer" not in adapter.read_bytes()[:10_000]
    for asked in (
        {"format": "adapter"},
        {"format": "merged", "dtype": "float32"},
        {"format": "gguf", "outtype": "f32"},
    ):
        out = tmp_path / asked["format"]
        found = tuneoff.export_contender(run, name, out=out, **asked)
        assert found.parity is not None
        assert found.parity["passed"]
        assert found.parity["parity"]["asked"] == 6
        assert found.parity["parity"]["different"] == ()
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert "The output head has weights of its own" in (tmp_path / "merged/README.md").read_text()
    base, merged = weights_of(tiny_base), weights_of(tmp_path / "merged")
    changed = {key for key in merged if not torch.equal(merged[key], base[EMBEDDING])}
    assert changed == {EMBEDDING, HEAD} - {KEPT.get(name)}
    tensors = gguf.GGUFReader(tmp_path / "gguf" / f"{name}-f32.gguf").tensors
    stored = {tensor.name: torch.tensor(tensor.data) for tensor in tensors}
    assert torch.equal(stored["output.weight"], merged[HEAD])
    assert torch.equal(stored["token_embd.weight"], merged[EMBEDDING])


def test_a_head_that_nothing_changed_stays_tied(run: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bf16"):
        out = tmp_path / dtype
        tuneoff.export_contender(run, "attention", "merged", out, dtype=dtype, strict=True)
        assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is True
        assert set(weights_of(out)) == {EMBEDDING}
        assert "weights of its own" not in (out / "README.md").read_text()


def test_they_are_served_beside_each_other_as_they_were_scored(run: Path) -> None:
    from tuneoff.inference.transformers_backend import TransformersBackend
    from tuneoff.server.run_models import check_agreement, load_servable

    host, ready = TransformersBackend(), load_servable(run)
    # The first one again, when the others' adapters lie on its base.
    for each in [*ready, ready[0]]:
        parity = check_agreement(host, each)
        assert (parity.passed, parity.same_texts) == (True, 6), parity
    host.close()


def test_a_head_that_is_called_tied_and_is_not(tiny_base: Path, tmp_path: Path, cli: Cli) -> None:
    """transformers keeps both weights of such a base, and so must what is made of it."""
    gguf = pytest.importorskip("gguf")
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(base)
    (base / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    weights = load_file(tiny_base / "model.safetensors")
    weights[HEAD] = torch.roll(weights[EMBEDDING], 1, 0).contiguous()
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    made = carried_out(base, tmp_path, "attention")
    code, _, err = cli(
        "export", made, "attention", "--format", "merged", "--out", tmp_path / "m", "--strict"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "m" / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(weights_of(tmp_path / "m")[HEAD], weights[HEAD])
    tuneoff.export_contender(made, "attention", "gguf", tmp_path / "g", outtype="f32")
    tensors = gguf.GGUFReader(tmp_path / "g" / "attention-f32.gguf").tensors
    assert "output.weight" in {tensor.name for tensor in tensors}
    assert RunDir(made).contender("attention").predictions()


def adapt_tokens(model: Any) -> Any:
    import peft

    return peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["q_proj"], trainable_token_indices=[3, 5])
    )


def adapt_by_copy(model: Any) -> Any:
    import peft

    return peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    )


def adapt_head(model: Any) -> Any:
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["lm_head"]))


@pytest.mark.parametrize(
    ("adapt", "tied"), [(adapt_tokens, True), (adapt_by_copy, False), (adapt_head, False)]
)
@pytest.mark.parametrize("nested", [False, True], ids=["text", "text_config"])
def test_other_ways_to_change_a_tied_weight(
    adapt: Callable[[Any], Any], tied: bool, nested: bool, tmp_path: Path
) -> None:
    """Logits are those before the merge, and after the merged model was saved and loaded."""
    import transformers as t

    sizes: dict[str, Any] = {
        "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
        "tie_word_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any = (
        t.Gemma3ForConditionalGeneration(
            t.Gemma3Config(
                text_config=sizes,
                vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                               "num_attention_heads": 2, "image_size": 16, "patch_size": 8},
                mm_tokens_per_image=4,
                image_token_index=31,
                boi_token_index=30,
                eoi_token_index=29,
                tie_word_embeddings=True,
            )
        )
        if nested
        else t.LlamaForCausalLM(t.LlamaConfig(**sizes))
    ).eval()  # fmt: skip
    assert is_tied(model)
    ids = torch.tensor([[3, 4, 5, 6]])
    with untie_head(model):
        adapted = adapt(model).eval()
        for number, parameter in enumerate(adapted.parameters()):
            if parameter.requires_grad:
                torch.manual_seed(number)
                parameter.data += 0.3 * torch.randn_like(parameter)
        with torch.inference_mode():
            before = adapted(input_ids=ids).logits
        merged = adapted.merge_and_unload(safe_merge=True)
    assert is_tied(merged) is tied
    assert merged.config.get_text_config().tie_word_embeddings is tied
    merged.save_pretrained(tmp_path)
    loaded = type(merged).from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        torch.testing.assert_close(merged(input_ids=ids).logits, before)
        torch.testing.assert_close(loaded(input_ids=ids).logits, before)
