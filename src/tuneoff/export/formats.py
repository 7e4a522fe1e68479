"""Writes each export format, and checks the written files.

A whole model is the contender's adapter merged into the base, or its fully tuned weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.bakeoff.answer_check import TunedContender
from tuneoff.contenders.base import choose_template
from tuneoff.errors import ConfigError, ContenderError, MissingExtraError
from tuneoff.export import verify
from tuneoff.export.options import Dtype, ExportOptions
from tuneoff.export.verify import CheckResult
from tuneoff.inference.stopping import build_stop_criteria
from tuneoff.models.head import is_tied, untie_head
from tuneoff.models.loading import (
    choose_dtype,
    choose_rendering,
    load_model,
    load_tokenizer,
    release_memory,
)
from tuneoff.prompts import SYSTEM_ROLES, collect_roles
from tuneoff.storage.files import write_text
from tuneoff.tokenization.chat_template import write_adapted_template
from tuneoff.training.model_card import render_template_notes, write_card

if TYPE_CHECKING:
    import torch


def choose_export_dtype(tuned: TunedContender, wanted: Dtype) -> torch.dtype:
    """Return the dtype of a merged model's weights.

    `auto` means the dtype in which the base is stored; for a fully tuned model, its own.
    """
    import torch
    from transformers import AutoConfig

    named = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted != "auto":
        return named[wanted]
    stored = tuned.weights if tuned.settings.method == "full" else tuned.base
    base_dtype = AutoConfig.from_pretrained(stored).dtype
    return base_dtype if base_dtype in named.values() else torch.float32


def describe_head(tuned: TunedContender, model: Any) -> list[str]:
    """Return a line for the card if the output head is no longer tied, as the base's is."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tuned.base).get_text_config()
    if is_tied(model) or not getattr(config, "tie_word_embeddings", False):
        return []
    return ["The output head has weights of its own; in the base it is tied to the embedding."]


def load_whole_model(tuned: TunedContender, dtype: torch.dtype) -> Any:
    """Return the model on the CPU with its weights in `dtype`.

    A base that was quantized in training is loaded with its full weights. A tied head gets its own
    weights where the adapter changes only the head or only the embedding; the configuration says so
    then.

    Raises:
        ConfigError: the base cannot be loaded.
        ContenderError: a merged weight is not finite in this dtype.
    """
    import peft
    import torch

    cpu = torch.device("cpu")
    if tuned.settings.method == "full":
        return load_model(str(tuned.weights), "none", dtype, cpu)
    base = load_model(tuned.base, "none", dtype, cpu)
    with untie_head(base):
        adapted: Any = peft.PeftModel.from_pretrained(base, str(tuned.weights))
        try:
            return adapted.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise ContenderError(
                f"contender {tuned.settings.name}: its adapter cannot be merged in {dtype} "
                f"({str(error).splitlines()[0]}); try --dtype float32."
            ) from None


Say = Callable[[str], object]


def check_exportable(tuned: TunedContender, options: ExportOptions) -> None:
    """Refuse an impossible export before anything is loaded.

    Raises:
        ConfigError: this contender cannot be exported in this format.
        MissingExtraError: a package that the format needs is not installed.
    """
    name, full = tuned.settings.name, tuned.settings.method == "full"
    if options.format == "adapter" and full:
        raise ConfigError(
            f"contender {name} was trained with all its parameters and has no adapter; use "
            "--format merged."
        )
    if options.format != "gguf":
        return
    if find_spec("gguf") is None:
        raise MissingExtraError("gguf", "gguf", "--format gguf")
    if options.strict and find_spec("llama_cpp") is None:
        raise ConfigError(
            "--strict: a GGUF file is checked by llama.cpp, which is not here; run `pip install "
            "llama-cpp-python`, or leave --strict out."
        )
    from transformers import AutoConfig

    from tuneoff.export.gguf import check_architecture

    check_architecture(AutoConfig.from_pretrained(tuned.weights if full else tuned.base))


def export_adapter(
    tuned: TunedContender, options: ExportOptions, folder: Path, say: Say
) -> CheckResult | None:
    """Write the adapter as it was trained, with the base's name in its configuration.

    Returns None, unchecked, where the base cannot be quantized as in training.
    """
    shutil.copytree(tuned.weights, folder, dirs_exist_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_bytes())
    config["base_model_name_or_path"] = tuned.base
    write_text(file, json.dumps(config, indent=2) + "\n")
    _write_template(tuned, folder, say)
    if Path(tuned.base).is_dir():
        say(
            f"{tuned.settings.name}: its base is the folder {tuned.base}, which "
            "adapter_config.json names; change it there where the base lies elsewhere."
        )
    try:
        return verify.check_adapter(tuned, folder)
    except MissingExtraError as error:
        if options.strict:
            raise
        say(f"{tuned.settings.name}: not checked, for {error}")
        return None


def export_merged(
    tuned: TunedContender, options: ExportOptions, folder: Path, say: Say
) -> CheckResult:
    """Write the whole model as transformers and vLLM load it."""
    if tuned.settings.method == "full" and options.dtype == "auto":
        shutil.copytree(tuned.weights, folder, dirs_exist_ok=True)
        _write_template(tuned, folder, say)
        return verify.check_merged(tuned, folder)
    dtype = choose_export_dtype(tuned, options.dtype)
    model = load_whole_model(tuned, dtype)
    model.save_pretrained(folder)
    tokenizer, template_notes = _load_adapted_tokenizer(tuned, say)
    tokenizer.save_pretrained(folder)
    about = [
        f"The adapter is merged into the base; the weights are {_format_dtype(dtype)}.",
        *describe_head(tuned, model),
    ]
    _write_model_card(
        tuned, folder, "transformers", [*about, *_note_quantization(tuned, say), *template_notes]
    )
    del model
    release_memory()
    return verify.check_merged(tuned, folder)


def export_gguf(
    tuned: TunedContender, options: ExportOptions, folder: Path, say: Say
) -> CheckResult:
    """Write a GGUF file, and an Ollama Modelfile if it can express the model's prompts."""
    import torch

    from tuneoff.export.gguf import write_gguf
    from tuneoff.export.gguf_tokenizer import build_vocabulary
    from tuneoff.export.ollama import render_modelfile

    name = tuned.settings.name
    model = load_whole_model(tuned, torch.float32)
    tokenizer, template_notes = _load_adapted_tokenizer(tuned, say)
    ends = build_stop_criteria(model, tokenizer, ()).end_tokens
    vocabulary = build_vocabulary(tokenizer, model.config.vocab_size, ends)
    file = folder / f"{build_folder_name(name)}-{options.outtype}.gguf"
    write_gguf(file, model, vocabulary, options.outtype, name)
    config, head = model.config, describe_head(tuned, model)
    del model
    release_memory()
    about = [
        f"GGUF, weights {options.outtype}.",
        *head,
        *_note_quantization(tuned, say),
        *template_notes,
    ]
    if vocabulary.unknown:
        line = (
            f"{vocabulary.unknown}: give it token ids that the base's own tokenizer made; texts "
            "that llama.cpp cuts itself may be answered wrongly."
        )
        say(f"{name}: {line}")
        about.append(line[0].upper() + line[1:])
    else:
        chat = choose_rendering(tokenizer, tuned.settings.rendering) == "chat"
        text = render_modelfile(file.name, tokenizer, chat, ends)
        if text is None:
            say(f"{name}: its chat template cannot be written as Ollama's; there is no Modelfile.")
        else:
            write_text(folder / "Modelfile", text)
    _write_model_card(tuned, folder, "gguf", about)
    precise = choose_dtype(tuned.settings.train.precision) == torch.float32
    exact = precise and options.outtype == "f32" and tuned.settings.quantization == "none"
    reason = "is not here to check it (pip install llama-cpp-python)"
    if find_spec("llama_cpp") is not None:
        checked = verify.check_gguf_with_llama_cpp(tuned, file, ends, tokenizer, exact)
        if isinstance(checked, CheckResult):
            return checked
        reason = f"failed when it was to check it ({checked})"
        if options.strict:
            raise ConfigError(f"--strict: llama.cpp {reason}; nothing was written.")
    say(f"{name}: llama.cpp {reason}; transformers reads the file instead.")
    return verify.check_gguf_with_transformers(tuned, file, config, tokenizer, exact)


EXPORTERS = {"adapter": export_adapter, "merged": export_merged, "gguf": export_gguf}


def build_folder_name(name: str) -> str:
    """Return a model's name for use in a file name; names of a server's models hold colons."""
    return name.replace(":", "-").replace("/", "-")


def _load_adapted_tokenizer(tuned: TunedContender, say: Say) -> tuple[Any, list[str]]:
    """Return the base's tokenizer with the chat template of the training, and lines for a model
    card."""
    tokenizer: Any = load_tokenizer(tuned.base)
    if choose_rendering(tokenizer, tuned.settings.rendering) == "text":
        return tokenizer, []
    work, template = tuned.work, choose_template(tuned.settings, tuned.work)
    role_sequences = collect_roles([*work.train, *work.validation, *work.test], template)
    if tuned.was == "served":  # clients may send any turns, as to the server
        role_sequences |= {(role, role, "user", "assistant", "user") for role in SYSTEM_ROLES}
    lines = render_template_notes(write_adapted_template(tokenizer, role_sequences, template.today))
    for line in lines:
        say(f"{tuned.settings.name}: {line[0].lower()}{line[1:]}")
    return tokenizer, lines


def _write_template(tuned: TunedContender, folder: Path, say: Say) -> None:
    """Write the training's chat template beside the weights.

    Models that were tuned before it was saved with them have the base's own template.
    """
    tokenizer, lines = _load_adapted_tokenizer(tuned, say)
    if lines:
        tokenizer.save_pretrained(folder)


def _note_quantization(tuned: TunedContender, say: Say) -> list[str]:
    """Report, also for the card, that the adapter was trained on a quantized base."""
    if tuned.settings.quantization == "none":
        return []
    line = (
        f"it was trained over the base in {tuned.settings.quantization} and is merged into the "
        "full weights, which differ slightly: so may its answers"
    )
    say(f"{tuned.settings.name}: {line}.")
    return [f"{line[0].upper()}{line[1:]}."]


def _write_model_card(
    tuned: TunedContender, folder: Path, library: str, about: Sequence[str]
) -> None:
    """Write the model card."""
    record = tuned.work.directory.training()
    if record is not None:
        write_card(folder / "README.md", tuned.settings, tuned.base, record, library, about)


def _format_dtype(dtype: Any) -> str:
    """Return a dtype's name."""
    return str(dtype).removeprefix("torch.")
