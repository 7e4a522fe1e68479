"""Loads open models and tokenizers: the shipped base, a local folder, or a hub id.

Checks without weights (`resolve_base`) import no torch, so that a wrong bake-off file is refused in
a second, not after ten minutes. A configuration comes without network access: from the base's own
file where it is here, else from the list of well-known bases (`architectures.yaml`).

Loading and quantizing a large base takes minutes, and several LoRA contenders of a run often share
one. So one base is cached (`borrow_base`), and one contender at a time uses it. An adapter leaves
its base unchanged, so a base can be used again once the adapter is removed.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from tuneoff.config.contenders import SHIPPED_BASE, Rendering
from tuneoff.errors import ConfigError, MissingExtraError
from tuneoff.models.head import correct_tie_flag
from tuneoff.tokenization.chat_template import find_template_source
from tuneoff.tokenization.offline import find_file, has_eos_token

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


SHIPPED_BASE_DIR = Path(__file__).parent.parent / "assets" / "tiny-base"
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
# Weights that share one scale in bitsandbytes.
NF4_BLOCK = 64
Precision = Literal["auto", "float32", "bf16", "fp16"]


class MissingEosError(ConfigError):
    """A base whose tokenizer has no end-of-sequence token."""


def resolve_base(base: str, folder: Path) -> str:
    """Return the name or path that transformers loads: a folder or a hub id.

    Raises:
        ConfigError: it is none of the three. A hub id is not looked up here.
    """
    if base == SHIPPED_BASE:
        return str(SHIPPED_BASE_DIR)
    local = (folder / Path(base).expanduser()).resolve()
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise ConfigError(
                f"base {base!r}: the folder {local} holds no config.json; give a folder saved by "
                "transformers."
            )
        return str(local)
    if base.startswith((".", "/", "~")) or not HUB_ID.match(base):
        raise ConfigError(
            f"base {base!r}: there is no such folder, and it is no hub id (allowed: "
            f"{SHIPPED_BASE}, a folder, or OWNER/NAME); check the spelling."
        )
    return base


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a resolved base, with a padding token, and return it.

    Raises:
        ConfigError: it cannot be loaded, or has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise _build_load_error(base, error) from None
    if tokenizer.eos_token_id is None:
        raise _build_eos_error(base)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_eos_token(base: str, shown: str) -> None:
    """Raise an error if a resolved base, as far as it is here, has no end-of-sequence token.

    Args:
        shown: the base as the user wrote it.

    Raises:
        ConfigError: it has none.
    """
    named = has_eos_token(base)
    if named is False:
        raise _build_eos_error(shown)
    # Some tokenizer classes have one that no file names. Nothing is downloaded to find out.
    if named is None and find_file(base, "tokenizer.json") is not None:
        try:
            load_tokenizer(base)
        except MissingEosError:
            raise _build_eos_error(shown) from None
        except ConfigError:  # a run reports it; it needs more than the tokenizer
            return


def _build_eos_error(base: str) -> MissingEosError:
    """Return the error for a base without an end-of-sequence token."""
    return MissingEosError(
        f"base {base!r} has no end-of-sequence token, so no answer could be ended; name one of its "
        "tokens as eos_token in its tokenizer_config.json (for a chat model the one with which its "
        "chat template ends a turn)."
    )


def choose_rendering(tokenizer: PreTrainedTokenizerBase, wanted: Rendering | None) -> Rendering:
    """Return how prompts are rendered: as chat if the tokenizer has a chat template, else as text.

    `rendering:` in the file overrides this.

    Raises:
        ConfigError: chat is asked for and there is no chat template.
    """
    there = find_template_source(tokenizer.chat_template) is not None
    if wanted == "chat" and not there:
        raise ConfigError(
            "rendering: chat needs a tokenizer with a chat template, and this base has none; "
            "use rendering: text."
        )
    return wanted or ("chat" if there else "text")


def count_positions(base: str) -> int:
    """Return the number of positions of a resolved base, without loading weights.

    Raises:
        ConfigError: its configuration cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise _build_load_error(base, error) from None
    return int(getattr(config, "max_position_embeddings", 0)) or 2**31


def release_memory() -> None:
    """Free the memory of a finished model.

    A trained model references itself in a cycle, so only the garbage collector can free it before
    the next one is loaded.
    """
    import gc
    import sys

    if "torch" not in sys.modules:  # no model was loaded, and looking takes a quarter of a second
        return
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def get_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def choose_dtype(precision: Precision) -> torch.dtype:
    """Return the data type of a precision.

    `auto` is float32 on a CPU, bf16 on an accelerator that supports it, else fp16.
    """
    import torch

    named = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        return named[precision]
    if get_device().type == "cpu":
        return torch.float32
    return (
        torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    )


def load_model(
    base: str,
    quantization: Literal["none", "int8", "nf4"],
    dtype: torch.dtype,
    place: torch.device | None = None,
    over_all: bool = False,
) -> PreTrainedModel:
    """Load a causal language model, its weights in `dtype` or quantized, and return it.

    Args:
        place: the device of weights that are not quantized; left out, `device()`.
        over_all: distribute its layers over all cards, for a model that no single card holds.

    Raises:
        ConfigError: it cannot be loaded.
        MissingExtraError: bitsandbytes is needed and not installed.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype}
    if quantization != "none":
        options["quantization_config"] = _build_quantization(quantization, dtype)
        options["device_map"] = {"": get_device()}
    elif over_all:
        options["device_map"] = "auto"
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, **options)
    except (OSError, ValueError) as error:
        raise _build_load_error(base, error) from None
    if over_all:
        return model
    if quantization == "none":
        whole: Any = model
        placed: PreTrainedModel = whole.to(place or get_device())
        correct_tie_flag(placed)
        return placed
    if quantization == "nf4":
        _check_layer_widths(base, model)
        _disable_weight_packing(model)
    return model


def _check_layer_widths(base: str, model: PreTrainedModel) -> None:
    """Raise an error if a layer is too narrow for bitsandbytes' nf4 kernels on a CPU.

    They compute wrong weights for layers whose inputs do not fill whole blocks, in training too,
    and raise no error.
    """
    for name, layer in model.named_modules():
        width, weight = getattr(layer, "in_features", 0), getattr(layer, "weight", None)
        quantized = getattr(weight, "quant_type", None) == "nf4"
        if quantized and width % NF4_BLOCK and model.device.type == "cpu":
            raise ConfigError(
                f"base {base!r}: on a CPU quantization: nf4 needs layers whose width is a multiple "
                f"of {NF4_BLOCK}, and that of {name} is {width}; use quantization: int8 or none."
            )


def _disable_weight_packing(model: PreTrainedModel) -> None:
    """Switch off bitsandbytes' weight packing on CPUs with AVX512-BF16.

    It packs a layer's weights permanently at its first forward pass in eval mode. The packed
    product passes no gradient on (a later training is silently wrong), rounds to bf16, and fails
    for outputs that are no multiple of 32.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010


def _build_quantization(kind: str, dtype: torch.dtype) -> Any:
    """Return the bitsandbytes configuration of a quantization.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "quant", f"quantization: {kind}")
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _build_load_error(base: str, error: Exception) -> ConfigError:
    """Return the error for a model that could not be loaded."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return ConfigError(
        f"base {base!r}: the model could not be loaded ({first}); check the name, the network "
        "and your access, or give a local folder."
    )


BaseKey = tuple[str, str, Any]
_cached_base: dict[BaseKey, PreTrainedModel] = {}


def borrow_base(
    base: str, quantization: Literal["none", "int8", "nf4"], dtype: torch.dtype
) -> PreTrainedModel:
    """Return the cached base if it is the right one; else drop it and load the base.

    Raises:
        ConfigError: it cannot be loaded.
        MissingExtraError: bitsandbytes is needed and not installed.
    """
    kept = _cached_base.pop((base, quantization, dtype), None)
    drop_cached_base()
    return load_model(base, quantization, dtype) if kept is None else kept


def release_base(
    base: str, quantization: Literal["none", "int8", "nf4"], dtype: torch.dtype, model: Any
) -> None:
    """Remove the adapter from a borrowed base and cache the base."""
    import torch

    if hasattr(model, "peft_config"):
        model = model.unload()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        if leftover in vars(model):
            delattr(model, leftover)
    # Transformers before 5.23 has only the old name.
    new = hasattr(model, "activation_checkpointing_disable")
    (model.activation_checkpointing_disable if new else model.gradient_checkpointing_disable)()
    for parameter in model.parameters():
        parameter.grad = None
    torch.nn.Module.eval(model)
    drop_cached_base()
    _cached_base[(base, quantization, dtype)] = model


def drop_cached_base() -> None:
    """Drop the cached base."""
    _cached_base.clear()


ARCHITECTURES = Path(__file__).parent / "architectures.yaml"


def find_base_config(base: str) -> PretrainedConfig | None:
    """Return the configuration of a folder, a cached hub id, or a well-known base.

    None if it is none of these, or of a model type that this version of transformers lacks.
    """
    from transformers import CONFIG_MAPPING

    file = find_file(base, "config.json")
    values = dict(json.loads(file.read_text()) if file else load_architectures().get(base, {}))
    kind = values.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        return None
    config: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(values)
    return config


@cache
def load_architectures() -> dict[str, dict[str, Any]]:
    """Return the well-known bases and the contents of their config.json."""
    known: dict[str, dict[str, Any]] = yaml.safe_load(ARCHITECTURES.read_text())
    return known
