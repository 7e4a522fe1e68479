"""Whether an exported model answers as the contender was scored.

The exported files are loaded anew: by transformers (adapter, merged), or by llama.cpp (GGUF);
where llama.cpp is not installed, transformers reads the GGUF file's tensors. Each answers a
sample of the test set greedily and plainly: none of our own engine, nothing shared.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff import prompts
from tuneoff.answer_check import ROUNDED_SAMPLE, SAMPLE, Gap, Parity, Tuned, compare
from tuneoff.contenders import template_for
from tuneoff.contenders.answering import prompts_of
from tuneoff.export import runtime
from tuneoff.generation import plain
from tuneoff.generation.ending import ending_of
from tuneoff.models.loading import (
    device,
    dtype_of,
    load_model,
    load_tokenizer,
    rendering_of,
)
from tuneoff.records import Example
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.tokenization.decode import decode

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. `by` is what answered; `texts` and `texts_same` count prompts that
    llama.cpp cut into tokens, and those that it cut as the tokenizer does."""

    parity: Parity
    by: str
    texts: int | None = None
    texts_same: int | None = None

    @property
    def passed(self) -> bool:
        return self.parity.passed and self.texts == self.texts_same

    def lines(self) -> list[str]:
        """What to say about it."""
        first, *others = self.parity.lines()
        found = [f"{first} ({self.by})", *others]
        if self.texts is not None:
            found.append(
                f"{self.parity.name}: {self.texts_same} of {self.texts} prompts are cut into "
                f"tokens as by the base's tokenizer ({self.by})."
            )
        return found


def adapter(tuned: Tuned, folder: Path) -> Checked:
    """An exported adapter, on the base that its configuration names.

    Raises:
        ConfigError: the base cannot be loaded.
        MissingExtraError: its base is quantized, and bitsandbytes is not here.
    """
    import peft
    import torch

    base = str(peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
    dtype = dtype_of(tuned.settings.train.precision)
    model = load_model(base, tuned.settings.quantization, dtype)
    adapted = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    exact = dtype == torch.float32 and tuned.settings.quantization == "none"
    return _by_transformers(tuned, adapted, load_tokenizer(str(folder)), exact)


def merged(tuned: Tuned, folder: Path) -> Checked:
    """An exported merged model; computed in the precision that its contender was scored in."""
    import torch
    from transformers import AutoConfig

    dtype = dtype_of(tuned.settings.train.precision)
    stored = AutoConfig.from_pretrained(folder).dtype
    model = load_model(str(folder), "none", dtype).eval()
    exact = {dtype, stored} == {torch.float32} and tuned.settings.quantization == "none"
    return _by_transformers(tuned, model, load_tokenizer(str(folder)), exact)


def gguf_by_transformers(
    tuned: Tuned, file: Path, config: Any, tokenizer: Any, exact: bool
) -> Checked:
    """A GGUF file's tensors, read back by transformers, which has a reader of its own.

    Args:
        config: of the merged model; not all of it can be read from the file.
    """
    model = read_by_transformers(file, config, dtype_of(tuned.settings.train.precision))
    by = "its tensors, read by transformers"
    return _by_transformers(tuned, model.to(device()).eval(), tokenizer, exact, by)


def read_by_transformers(file: Path, config: Any, dtype: torch.dtype) -> Any:
    """A GGUF file's tensors in a model of this configuration."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    if config.model_type == "mistral":  # which is a Llama in such a file
        values = {k: v for k, v in config.to_dict().items() if k != "model_type"}
        config = LlamaConfig(**{**values, "architectures": ["LlamaForCausalLM"]})
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be switched off
        return AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=dtype
        )


def _by_transformers(
    tuned: Tuned, model: Any, tokenizer: Any, exact: bool, by: str = "transformers"
) -> Checked:
    import torch

    examples = tuned.sample(SAMPLE if exact else ROUNDED_SAMPLE)
    asked = [ids for _, ids in prompts_of(tuned.settings, tuned.work, tokenizer, examples)]
    ending = ending_of(model, tokenizer, ())
    answers = []
    for start in range(0, len(asked), BATCH_SIZE):
        batch = asked[start : start + BATCH_SIZE]
        for row in plain.generate(model, ending, batch, tuned.work.max_new_tokens):
            text = ending.prediction("", 0, row, 0).prediction
            answers.append((before_end(row, ending.ends), text))

    def gap(place: int, number: int) -> float:
        ids = torch.tensor([[*asked[place], *answers[place][0][:number]]], device=model.device)
        with torch.inference_mode():
            best = model(input_ids=ids).logits[0, -1].float().topk(2).values
        return float(best[0] - best[1])

    return Checked(_compared(tuned, examples, answers, tokenizer, gap, exact), by)


def _compared(
    tuned: Tuned,
    examples: Sequence[Example],
    answers: Sequence[tuple[Sequence[int], str]],
    tokenizer: Any,
    gap: Gap,
    exact: bool,
) -> Parity:
    def decoded(tokens: Sequence[int]) -> str:
        return decode(tokenizer, tokens)

    return compare(tuned, examples, answers, decoded, gap, exact, "exported")


def before_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The tokens of an answer up to the one that ends it."""
    ended = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:ended])


def gguf_by_llama_cpp(
    tuned: Tuned, file: Path, ends: Sequence[int], tokenizer: Any, exact: bool
) -> Checked | str:
    """A GGUF file in llama.cpp itself: its answers to the prompts' tokens, and how it cuts the
    prompts' texts into tokens. Why there are none, if llama.cpp failed."""
    examples = tuned.sample(SAMPLE if exact else ROUNDED_SAMPLE)
    asked = [ids for _, ids in prompts_of(tuned.settings, tuned.work, tokenizer, examples)]
    own = _texts_with_tokens(tuned, tokenizer, examples, asked)
    texts = [text for text, _ in own]
    said = runtime.ask(file, asked, texts, ends, tuned.work.max_new_tokens)
    if isinstance(said, str):
        return said
    answers = [(tokens, decode(tokenizer, tokens)) for tokens in said.tokens]
    parity = _compared(
        tuned, examples, answers, tokenizer, lambda place, number: said.gaps[place][number], exact
    )
    same = sum(cut == ids for cut, (_, ids) in zip(said.cut, own, strict=True))
    return Checked(parity, "llama.cpp", len(texts), same)


def _texts_with_tokens(
    tuned: Tuned, tokenizer: Any, examples: Sequence[Example], asked: Sequence[Sequence[int]]
) -> list[tuple[str, list[int]]]:
    """Return the prompts as texts, with their tokens. A prompt that spells a special token is left
    out: as one text it has other tokens than the prompt."""
    found = []
    for example, prompt in zip(examples, asked, strict=True):
        text = _text(tuned, tokenizer, example)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # A plain text's prompt may begin with a BOS besides.
        if list(prompt[-len(ids) :]) == ids:
            found.append((text, ids))
    return found


def _text(tuned: Tuned, tokenizer: Any, example: Example) -> str:
    """An example's prompt as text."""
    template = template_for(tuned.settings, tuned.work)
    if rendering_of(tokenizer, tuned.settings.rendering) == "text":
        return prompts.text(example, template)
    chat = load_chat_template(tokenizer, template.today)
    return chat.render(prompts.messages(example, template))
