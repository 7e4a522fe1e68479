"""Options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tuneoff.errors import ConfigError, explain_unknown

Format = Literal["adapter", "merged", "gguf"]
Dtype = Literal["auto", "float32", "bf16", "fp16"]
OutType = Literal["f32", "f16", "bf16", "q8_0"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export, checked."""

    format: Format
    dtype: Dtype = "auto"
    """Of a merged model's weights; `auto`: the base's own."""
    outtype: OutType = "f16"
    """Of a GGUF file's weights."""
    strict: bool = False
    """Keep nothing of an export that does not answer as was scored."""


def build_export_options(
    format: str, dtype: str | None, outtype: str | None, strict: bool
) -> ExportOptions:
    """Check the options and return them.

    Raises:
        ConfigError: an option is unknown or has no effect on this format.
    """
    if format not in get_args(Format):
        raise ConfigError(f"--format: {explain_unknown('format', format, get_args(Format))}.")
    for option, value, allowed, needs in (
        ("dtype", dtype, get_args(Dtype), "merged"),
        ("outtype", outtype, get_args(OutType), "gguf"),
    ):
        if value is not None and value not in allowed:
            raise ConfigError(f"--{option}: {explain_unknown(option, value, allowed)}.")
        if value is not None and format != needs:
            raise ConfigError(f"--{option} is for --format {needs}, not {format}; drop it.")
    options = {"dtype": dtype, "outtype": outtype}
    chosen = {option: value for option, value in options.items() if value is not None}
    return ExportOptions(format=format, strict=strict, **chosen)  # type: ignore[arg-type]
