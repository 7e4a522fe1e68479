"""Loss and every gradient over a tree equal those of one example at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models.architectures import VOCABULARY, model, without_dropout

from tuneoff.prefix_sharing import micro_batch
from tuneoff.prefix_sharing.attention import Backend, TreeAttention
from tuneoff.prefix_sharing.micro_batch import (
    build_padded_batch,
    build_tree_batch,
    install_micro_batch_loss,
)
from tuneoff.prefix_sharing.probe import explain_unshareable
from tuneoff.prefix_sharing.tree import WeightedSequence, build_tree, pack_sequences

CPU = torch.device("cpu")
CLOSE, ROUNDING = 1e-5, 1e-7
Gradients = dict[str, torch.Tensor]


@st.composite
def batches(draw: st.DrawFn) -> list[WeightedSequence]:
    """Up to eight sequences over few token ids, so that they share at several depths."""
    start = draw(st.lists(st.integers(3, 5), min_size=1, max_size=20))
    bodies = draw(
        st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=24), min_size=1, max_size=8)
    )
    whole_text = draw(st.booleans())
    return [
        WeightedSequence(
            [*start, *body],
            [1.0 if whole_text else 0.0] * len(start)
            + [float(whole_text or place >= len(body) // 2) for place in range(len(body))],
        )
        for body in bodies
    ]


def gradients(
    made: Any,
    batch: Sequence[WeightedSequence],
    tree: bool,
    backend: Backend | None = None,
    most: int = 64,
) -> tuple[float, Gradients]:
    """Loss and gradients of a batch: as trees of at most `most` tokens, or one by one."""
    made.zero_grad()
    total = 0.0
    groups = pack_sequences(batch, most) if tree else [[i] for i in range(len(batch))]
    with install_micro_batch_loss(made, tree):
        for group in groups:
            rows = [batch[i] for i in group]
            pack = build_tree_batch(rows, CPU, backend) if tree else build_padded_batch(rows, CPU)
            loss = made(pack=pack).loss
            loss.backward()
            total += float(loss.detach())
    found = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    return total, found


def assert_equal(made: Any, batch: Sequence[WeightedSequence], **how: Any) -> None:
    loss, plain = gradients(made, batch, tree=False)
    shared_loss, shared = gradients(made, batch, tree=True, **how)
    assert shared_loss == pytest.approx(loss, rel=CLOSE)
    assert set(shared) == set(plain)
    largest = max((float(g.norm()) for g in plain.values()), default=0.0)
    for name, gradient in plain.items():
        size, apart = float(gradient.norm()), float((shared[name] - gradient).norm())
        # Some gradients are zero but for rounding (a key's bias shifts all scores of a query
        # alike; attention over equal values does not matter); nothing is relative to that.
        assert apart <= CLOSE * size + ROUNDING * largest, f"{name}: {apart / size:.1e}"


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gpt_neox"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=batches())
def test_random_trees(name: str, batch: list[WeightedSequence]) -> None:
    assert_equal(model(name), batch)


BATCH = [
    WeightedSequence([3, 4, 5, 6, 7, 8, *tail], [0.0] * 6 + [1.0] * len(tail))
    for tail in ([9, 10, 11], [9, 10, 12, 13], [9, 14], [15, 16, 17, 18, 19], [9, 10, 11])
]
TEXT = [WeightedSequence(row.ids, [1.0] * len(row.ids)) for row in BATCH]


@pytest.mark.parametrize("name", ["qwen3", "gemma", "gemma3", "phi", "phi3", "gpt2"])
@pytest.mark.parametrize("batch", [BATCH, TEXT], ids=["completion", "text"])
def test_architectures(name: str, batch: list[WeightedSequence]) -> None:
    made = model(name)
    assert explain_unshareable(made, 20) is None
    assert_equal(made, batch)


def test_the_dense_backend_is_the_same() -> None:
    assert_equal(model("llama"), TEXT, backend="dense")


def test_attention_dropout_leaves_the_cascade() -> None:
    """The CPU's kernel drops nothing out, so weights that are dropped need the dense way."""
    tree = TreeAttention(build_tree(TEXT), CPU)
    torch.manual_seed(0)
    heads = [torch.randn(1, 2, tree.size, 8) for _ in range(3)]
    kept = tree.attend(torch.nn.Module(), *heads, None, 0.0)
    dropped = tree.attend(torch.nn.Module(), *heads, None, 0.5)
    assert not torch.allclose(kept, dropped)


def test_the_block_mask_of_flex_attention_is_the_dense_mask() -> None:
    """What CUDA is given, evaluated here; and FlexAttention's own arithmetic with it."""
    from torch.nn.attention.flex_attention import create_mask, flex_attention

    flex, dense = (TreeAttention(build_tree(TEXT), CPU, b) for b in ("flex", "dense"))
    made = create_mask(flex.block_mask().mask_mod, 1, 1, flex.size, flex.size, device="cpu")
    assert torch.equal(made[0, 0], dense.mask())
    torch.manual_seed(0)
    heads = [torch.randn(1, 2, flex.size, 16) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is not compiled
        found = flex_attention(*heads, block_mask=flex.block_mask(), scale=0.25)
    expected = dense.attend(torch.nn.Module(), *heads, 0.25, 0.0)
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=1e-5, atol=1e-5)


def test_filling_up_changes_nothing() -> None:
    made = model("llama")
    loss, plain = gradients(made, TEXT, tree=False)
    made.zero_grad()
    with install_micro_batch_loss(made, True):
        pack = build_tree_batch(TEXT, CPU, multiple=16)
        filled = made(pack=pack).loss
        filled.backward()
    assert pack.tokens % 16 == 0
    assert len(pack.targets) % 16 == 0
    assert float(filled.detach()) == pytest.approx(loss, rel=CLOSE)
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-4, atol=1e-6)


def test_small_packs_add_up() -> None:
    assert_equal(model("llama"), TEXT, most=12)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("batch", [BATCH, TEXT], ids=["completion", "text"])
def test_lora(checkpointing: bool, batch: list[WeightedSequence]) -> None:
    made = adapted(model("llama"), checkpointing)
    assert_equal(made, batch)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_quantized(quantization: Any, checkpointing: bool, tmp_path: Path) -> None:
    from peft import prepare_model_for_kbit_training

    from tuneoff.models.loading import load_model

    model("llama_wide").save_pretrained(tmp_path)
    made = load_model(str(tmp_path), quantization, torch.float32)
    made = prepare_model_for_kbit_training(made, use_gradient_checkpointing=False)
    assert_equal(adapted(made, checkpointing), TEXT)


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_checkpointing_all_parameters(name: str) -> None:
    made = model(name)
    made.activation_checkpointing_enable()
    assert_equal(made, TEXT)


def adapted(base: Any, checkpointing: bool) -> Any:
    """LoRA on all linear layers, its B no longer zero, so that every gradient is there."""
    import peft

    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    made: Any = peft.get_peft_model(base, config)
    for parameter_name, parameter in made.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.05)
    if checkpointing:
        made.activation_checkpointing_enable()
        made.enable_input_require_grads()
    return without_dropout(made.train())


def test_chunks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("llama")
    loss, whole = gradients(made, TEXT, tree=True)
    monkeypatch.setattr(micro_batch, "MAX_LOGITS", 3 * VOCABULARY)
    chunked_loss, chunked = gradients(made, TEXT, tree=True)
    assert chunked_loss == pytest.approx(loss, rel=CLOSE)
    for name, gradient in whole.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-4, atol=1e-6)


def test_only_supervised_positions_get_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("llama")
    seen: list[int] = []
    made.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[0]))
    gradients(made, BATCH, tree=True)
    supervised = build_tree_batch(BATCH, CPU)
    assert seen == [len(supervised.targets)]
    assert seen[0] < supervised.tokens


def test_the_models_own_forward_comes_back() -> None:
    made = model("llama")
    before = made.config._attn_implementation
    with install_micro_batch_loss(made, True):
        assert "forward" in vars(made)
    assert "forward" not in vars(made)
    assert made.config._attn_implementation == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mistral_short", "sliding window of 8 tokens"),
        ("gemma2", "caps its attention scores"),
        ("mamba", "over a tree it computes something else"),
        ("bloom", "cannot be exchanged"),
    ],
)
def test_what_a_tree_cannot_compute_is_found_out(name: str, words: str) -> None:
    made = model(name)
    before = made.config._attn_implementation
    assert words in (explain_unshareable(made, 64) or "")
    assert made.config._attn_implementation == before
    assert made.training


def test_low_precision_is_no_further_from_the_truth_than_batching() -> None:
    """bf16 on a CPU: against float32, a tree errs at most twice as much as padded rows or
    one example at a time. (`benchmarks/gpu.py` compares them on CUDA.)"""
    made = model("llama")
    _, truth = gradients(made, TEXT, tree=False)
    made = made.bfloat16()
    _, alone = gradients(made, TEXT, tree=False)
    _, shared = gradients(made, TEXT, tree=True)
    made.zero_grad()
    with install_micro_batch_loss(made, False):
        made(pack=build_padded_batch(TEXT, CPU)).loss.backward()
    batched = {n: p.grad for n, p in made.named_parameters()}

    def error(found: Any) -> float:
        apart = [float((found[n].float() - g).norm()) for n, g in truth.items()]
        return sum(a * a for a in apart) ** 0.5

    assert error(shared) <= 2 * max(error(alone), error(batched))
