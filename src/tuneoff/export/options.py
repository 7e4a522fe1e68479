"""What may be asked of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tuneoff.errors import ConfigError, unknown

Format = Literal["adapter", "merged", "gguf"]
Dtype = Literal["auto", "float32", "bf16", "fp16"]
OutType = Literal["f32", "f16", "bf16", "q8_0"]


@dataclass(frozen=True, slots=True)
class Options:
    """`dtype` is that of a merged model's weights (`auto`: the base's own), `outtype` that of a
    GGUF file's; `strict` keeps nothing of an export that does not answer as was scored."""

    format: Format
    dtype: Dtype = "auto"
    outtype: OutType = "f16"
    strict: bool = False


def options_of(format: str, dtype: str | None, outtype: str | None, strict: bool) -> Options:
    """Options as they were written, checked.

    Raises:
        ConfigError: one is unknown, or would do nothing.
    """
    if format not in get_args(Format):
        raise ConfigError(f"--format: {unknown('format', format, get_args(Format))}.")
    for option, value, allowed, needs in (
        ("dtype", dtype, get_args(Dtype), "merged"),
        ("outtype", outtype, get_args(OutType), "gguf"),
    ):
        if value is not None and value not in allowed:
            raise ConfigError(f"--{option}: {unknown(option, value, allowed)}.")
        if value is not None and format != needs:
            raise ConfigError(f"--{option} is for --format {needs}, not {format}; drop it.")
    given = {"dtype": dtype, "outtype": outtype}
    chosen = {option: value for option, value in given.items() if value is not None}
    return Options(format=format, strict=strict, **chosen)  # type: ignore[arg-type]
