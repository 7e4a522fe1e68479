"""The tiny Llama, written out lean: bf16 arithmetic over fp32 weights, documents kept apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The dimensions of the model; everything else is Llama's."""

    vocab: int = 4096
    width: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 4
    mlp: int = 704
    rope_theta: float = 100000.0
    positions: int = 2048

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight.to(torch.bfloat16))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Block(nn.Module):
    """One decoder layer. Parameter names follow the layout of Llama's checkpoints."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        kv = s.kv_heads * s.head_dim
        self.speeds = s.rope_theta ** (-torch.arange(0, s.head_dim, 2).float() / s.head_dim)
        self.heads, self.kv_heads, self.head_dim = s.heads, s.kv_heads, s.head_dim
        self.input_layernorm = nn.Parameter(torch.ones(s.width))
        self.post_attention_layernorm = nn.Parameter(torch.ones(s.width))
        self.qkv = nn.ParameterDict(
            {
                "q": torch.randn(s.width, s.width) / math.sqrt(s.width),
                "k": torch.randn(kv, s.width) / math.sqrt(s.width),
                "v": torch.randn(kv, s.width) / math.sqrt(s.width),
            }
        )
        depth = math.sqrt(2 * s.layers)
        self.o = nn.Parameter(torch.randn(s.width, s.width) / math.sqrt(s.width) / depth)
        self.gate = nn.Parameter(torch.randn(s.mlp, s.width) / math.sqrt(s.width))
        self.up = nn.Parameter(torch.randn(s.mlp, s.width) / math.sqrt(s.width))
        self.down = nn.Parameter(torch.randn(s.width, s.mlp) / math.sqrt(s.mlp) / depth)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, width = x.shape
        h = F.rms_norm(x, (width,), self.input_layernorm.to(x.dtype), 1e-5)
        qkv = torch.cat([self.qkv["q"], self.qkv["k"], self.qkv["v"]])
        kv = self.kv_heads * self.head_dim
        q, k, v = _linear(h, qkv).split([width, kv, kv], dim=-1)
        q = _rotate(q.view(rows, length, self.heads, -1).transpose(1, 2), cos, sin)
        k = _rotate(k.view(rows, length, self.kv_heads, -1).transpose(1, 2), cos, sin)
        v = v.view(rows, length, self.kv_heads, -1).transpose(1, 2)
        if self.heads != self.kv_heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + _linear(a.transpose(1, 2).reshape(rows, length, width), self.o)
        h = F.rms_norm(x, (width,), self.post_attention_layernorm.to(x.dtype), 1e-5)
        return x + _linear(F.silu(_linear(h, self.gate)) * _linear(h, self.up), self.down)


class TinyLlama(nn.Module):
    """Embedding, blocks, norm; the head is the embedding."""

    cos: Tensor
    sin: Tensor

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.embed = nn.Parameter(torch.randn(s.vocab, s.width) * 0.02)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = nn.Parameter(torch.ones(s.width))
        inverse = s.rope_theta ** (-torch.arange(0, s.head_dim, 2).float() / s.head_dim)
        angle = torch.arange(s.positions).float()[:, None] * inverse[None]
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def hidden(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Final hidden states (bf16); `mask` None means plain causal attention."""
        x = F.embedding(tokens, self.embed).to(torch.bfloat16)
        length = tokens.shape[1]
        cos = self.cos[:length].to(torch.bfloat16)
        sin = self.sin[:length].to(torch.bfloat16)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return F.rms_norm(x, (x.shape[-1],), self.norm.to(x.dtype), 1e-5)

    def loss(self, tokens: Tensor, places: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        """Mean cross entropy at `places` (flat indices) only; the rest never meets the head."""
        h = self.hidden(tokens, mask).flatten(0, 1)[places]
        return F.cross_entropy(_linear(h, self.embed).float(), targets)


def llama_state(model: TinyLlama) -> dict[str, Tensor]:
    """The weights in bf16 under the names that LlamaForCausalLM expects."""
    state = {"model.embed_tokens.weight": model.embed, "model.norm.weight": model.norm}
    for i, b in enumerate(model.blocks):
        assert isinstance(b, Block)
        at = f"model.layers.{i}."
        for part in "qkv":
            state[f"{at}self_attn.{part}_proj.weight"] = b.qkv[part]
        state[f"{at}self_attn.o_proj.weight"] = b.o
        for name in ("gate", "up", "down"):
            state[f"{at}mlp.{name}_proj.weight"] = getattr(b, name)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{at}{name}.weight"] = getattr(b, name)
    return {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in state.items()}


def llama_config(s: Shape) -> dict[str, Any]:
    """config.json of the exported model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": s.vocab,
        "hidden_size": s.width,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim,
        "intermediate_size": s.mlp,
        "hidden_act": "silu",
        "max_position_embeddings": s.positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": s.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": s.rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "dtype": "bfloat16",
        "use_cache": True,
    }
