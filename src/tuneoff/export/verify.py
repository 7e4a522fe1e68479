"""Checks whether an exported model answers as the contender was scored.

The exported files are loaded again: by transformers (adapter, merged) or by llama.cpp (GGUF). Where
llama.cpp is not installed, transformers reads the GGUF file's tensors. Each answers a sample of the
test set with plain greedy decoding; neither our engine nor prefix sharing is used.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff import prompts
from tuneoff.bakeoff.answer_check import (
    ROUNDED_SAMPLE_SIZE,
    SAMPLE_SIZE,
    Agreement,
    TokenGap,
    TunedContender,
    compare_answers,
)
from tuneoff.contenders.base import choose_template
from tuneoff.contenders.local_inference import encode_prompts
from tuneoff.export import llama_cpp
from tuneoff.inference import generate
from tuneoff.inference.stopping import build_stop_criteria
from tuneoff.models.loading import (
    choose_dtype,
    choose_rendering,
    get_device,
    load_model,
    load_tokenizer,
)
from tuneoff.records import Example
from tuneoff.tokenization.chat_template import load_chat_template
from tuneoff.tokenization.decode import decode

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check."""

    parity: Agreement
    by: str
    """The program that answered."""
    texts: int | None = None
    """Number of prompts that llama.cpp tokenized; None: llama.cpp was not used."""
    texts_same: int | None = None
    """Number of those with the tokenizer's own token ids."""

    @property
    def passed(self) -> bool:
        """Return whether the answers and the tokenization agree."""
        return self.parity.passed and self.texts == self.texts_same

    def lines(self) -> list[str]:
        """Return the lines that report the check."""
        first, *others = self.parity.lines()
        lines = [f"{first} ({self.by})", *others]
        if self.texts is not None:
            lines.append(
                f"{self.parity.name}: {self.texts_same} of {self.texts} prompts are cut into "
                f"tokens as by the base's tokenizer ({self.by})."
            )
        return lines


def check_adapter(tuned: TunedContender, folder: Path) -> CheckResult:
    """Check an exported adapter on the base that its configuration names.

    Raises:
        ConfigError: the base cannot be loaded.
        MissingExtraError: the base is quantized, and bitsandbytes is not installed.
    """
    import peft
    import torch

    base = str(peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
    dtype = choose_dtype(tuned.settings.train.precision)
    model = load_model(base, tuned.settings.quantization, dtype)
    adapted = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    exact = dtype == torch.float32 and tuned.settings.quantization == "none"
    return _check_with_transformers(tuned, adapted, load_tokenizer(str(folder)), exact)


def check_merged(tuned: TunedContender, folder: Path) -> CheckResult:
    """Check an exported merged model, in the precision that its contender was scored in."""
    import torch
    from transformers import AutoConfig

    dtype = choose_dtype(tuned.settings.train.precision)
    stored = AutoConfig.from_pretrained(folder).dtype
    model = load_model(str(folder), "none", dtype).eval()
    exact = {dtype, stored} == {torch.float32} and tuned.settings.quantization == "none"
    return _check_with_transformers(tuned, model, load_tokenizer(str(folder)), exact)


def check_gguf_with_transformers(
    tuned: TunedContender, file: Path, config: Any, tokenizer: Any, exact: bool
) -> CheckResult:
    """Check a GGUF file's tensors, loaded by transformers' own reader.

    Args:
        config: of the merged model; the file does not hold all of it.
    """
    model = load_gguf(file, config, choose_dtype(tuned.settings.train.precision))
    by = "its tensors, read by transformers"
    return _check_with_transformers(tuned, model.to(get_device()).eval(), tokenizer, exact, by)


def load_gguf(file: Path, config: Any, dtype: torch.dtype) -> Any:
    """Load a GGUF file's tensors into a model with this configuration."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    if config.model_type == "mistral":  # GGUF stores it as a Llama
        values = {k: v for k, v in config.to_dict().items() if k != "model_type"}
        config = LlamaConfig(**{**values, "architectures": ["LlamaForCausalLM"]})
    with contextlib.redirect_stderr(io.StringIO()):  # hides a progress bar without a switch
        return AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=dtype
        )


def _check_with_transformers(
    tuned: TunedContender, model: Any, tokenizer: Any, exact: bool, by: str = "transformers"
) -> CheckResult:
    """Answer the sample with transformers and compare the answers."""
    import torch

    examples = tuned.sample(SAMPLE_SIZE if exact else ROUNDED_SAMPLE_SIZE)
    asked = [ids for _, ids in encode_prompts(tuned.settings, tuned.work, tokenizer, examples)]
    ending = build_stop_criteria(model, tokenizer, ())
    answers = []
    for start in range(0, len(asked), BATCH_SIZE):
        batch = asked[start : start + BATCH_SIZE]
        for row in generate.generate_batch(model, ending, batch, tuned.work.max_new_tokens):
            text = ending.build_prediction("", 0, row, 0).prediction
            answers.append((cut_at_end(row, ending.end_tokens), text))

    def gap(place: int, number: int) -> float:
        """Return the logit gap between the two best tokens at one place."""
        ids = torch.tensor([[*asked[place], *answers[place][0][:number]]], device=model.device)
        with torch.inference_mode():
            best = model(input_ids=ids).logits[0, -1].float().topk(2).values
        return float(best[0] - best[1])

    return CheckResult(_compare_answers(tuned, examples, answers, tokenizer, gap, exact), by)


def _compare_answers(
    tuned: TunedContender,
    examples: Sequence[Example],
    answers: Sequence[tuple[Sequence[int], str]],
    tokenizer: Any,
    gap: TokenGap,
    exact: bool,
) -> Agreement:
    """Compare answers with the scored ones."""

    def decoded(tokens: Sequence[int]) -> str:
        """Return the text of some tokens."""
        return decode(tokenizer, tokens)

    return compare_answers(tuned, examples, answers, decoded, gap, exact, "exported")


def cut_at_end(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the tokens of an answer before its end token."""
    ended = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:ended])


def check_gguf_with_llama_cpp(
    tuned: TunedContender, file: Path, ends: Sequence[int], tokenizer: Any, exact: bool
) -> CheckResult | str:
    """Check a GGUF file in llama.cpp: its answers, and how it tokenizes the prompts.

    If llama.cpp failed, return the reason.
    """
    examples = tuned.sample(SAMPLE_SIZE if exact else ROUNDED_SAMPLE_SIZE)
    asked = [ids for _, ids in encode_prompts(tuned.settings, tuned.work, tokenizer, examples)]
    prompt_texts = _pair_texts_with_tokens(tuned, tokenizer, examples, asked)
    texts = [text for text, _ in prompt_texts]
    result = llama_cpp.run_llama_cpp(file, asked, texts, ends, tuned.work.max_new_tokens)
    if isinstance(result, str):
        return result
    answers = [(tokens, decode(tokenizer, tokens)) for tokens in result.tokens]
    parity = _compare_answers(
        tuned, examples, answers, tokenizer, lambda place, number: result.gaps[place][number], exact
    )
    same = sum(cut == ids for cut, (_, ids) in zip(result.cut, prompt_texts, strict=True))
    return CheckResult(parity, "llama.cpp", len(texts), same)


def _pair_texts_with_tokens(
    tuned: TunedContender,
    tokenizer: Any,
    examples: Sequence[Example],
    asked: Sequence[Sequence[int]],
) -> list[tuple[str, list[int]]]:
    """Return the prompts as texts, with their token ids.

    A prompt that spells a special token is left out, because its text has other tokens than the
    prompt.
    """
    pairs = []
    for example, prompt in zip(examples, asked, strict=True):
        text = _render_prompt(tuned, tokenizer, example)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        # A text prompt may start with a BOS token in addition.
        if list(prompt[-len(ids) :]) == ids:
            pairs.append((text, ids))
    return pairs


def _render_prompt(tuned: TunedContender, tokenizer: Any, example: Example) -> str:
    """Return an example's prompt as text."""
    template = choose_template(tuned.settings, tuned.work)
    if choose_rendering(tokenizer, tuned.settings.rendering) == "text":
        return prompts.render_text(example, template)
    chat = load_chat_template(tokenizer, template.today)
    return chat.render(prompts.render_messages(example, template))
