"""What tests share: a Llama that trains in seconds, the type of the `cli` fixture, and the program
that makes a run's figures again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# Arguments of the command line → (exit code, stdout, stderr).
Cli = Callable[..., tuple[int, str, str]]


def write_base(folder: Path, texts: Iterable[str], chat_template: str | None = None) -> Path:
    """Saves a 2-layer Llama of width 32 and a byte-level BPE trained on `texts`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_recompute() -> Any:
    """Return the module `docs/recompute.py`."""
    docs = str(Path(__file__).parent.parent / "docs")
    sys.path.insert(0, docs)
    try:
        import recompute as program
    finally:
        sys.path.remove(docs)
    return program


def recompute(run: Path) -> Any:
    """Return what `docs/recompute.py` finds of a run directory (its `Findings`)."""
    return load_recompute().recompute(run)
