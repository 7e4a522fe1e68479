"""Writes the model as transformers reads it: config, weights, tokenizer, card."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from tiny_base.model import TinyLlama, llama_config, llama_state

CARD = Path(__file__).with_name("CARD.md")


def export(
    model: TinyLlama, tokenizer: Tokenizer, folder: Path, done: dict[str, int | float]
) -> None:
    """Fills `folder`; the card is a template in which the run's own numbers are put."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(llama_config(model.shape), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    save_file(llama_state(model), folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.shape.positions,
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2) + "\n", encoding="utf-8"
    )
    sizes = {
        "PARAMETERS": f"{sum(p.numel() for p in model.parameters()):,}",
        "STEPS": f"{done['step']:,}",
        "TOKENS": f"{done['tokens']:,}",
        "SUPERVISED": f"{done['supervised']:,}",
        "MINUTES": f"{done['seconds'] / 60:.0f}",
        "LAYERS": str(model.shape.layers),
    }
    text = CARD.read_text(encoding="utf-8")
    for name, shown in sizes.items():
        text = text.replace(f"@{name}@", shown)
    (folder / "README.md").write_text(text, encoding="utf-8")
