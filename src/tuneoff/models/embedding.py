"""Reads the size of a base's embedding without its weights, and finds token ids beyond it.

A tokenizer may know more tokens than the model has embedding rows: words that were added to the
tokenizer alone. Such a token ends a forward pass on a CPU with an IndexError, and the whole process
on a GPU.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneoff.errors import DataError
from tuneoff.tokenization.offline import find_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Keys of the text model's configuration in a configuration of several models.
TEXT_CONFIG_KEYS = ("text_config", "llm_config", "language_config")
# Names of embedding weights, for configurations that do not state the size.
EMBEDDING_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)


def count_rows(base: str) -> int | None:
    """Return the number of embedding rows of a resolved base.

    None if its files are not here, or do not state it.
    """
    file = find_file(base, "config.json")
    if file is None:
        return None
    config = json.loads(file.read_text())
    texts = next((config[name] for name in TEXT_CONFIG_KEYS if name in config), config)
    size = texts.get("vocab_size") or config.get("vocab_size")
    return int(size) if size else _read_rows_from_weights(base)


def find_unknown_token(ids: Iterable[int], rows: int | None) -> int | None:
    """Return the first token id without an embedding row; None if all have one."""
    return None if rows is None else next((token for token in ids if token >= rows), None)


def explain_unknown_token(base: str, text: str, token: int, known: int, rows: int) -> str:
    """Return the error for a token without an embedding row.

    Args:
        text: how the token is written.
        known: how many tokens the tokenizer knows.
    """
    return (
        f"base {base!r}: the token {text!r} has the id {token}, for the tokenizer knows {known} "
        f"tokens, and the model's embedding has {rows} rows; take the token out of the data, or "
        "give the model as many rows (resize_token_embeddings) and save it again."
    )


def check_tokens(
    tokenizer: PreTrainedTokenizerBase, base: str, examples: Iterable[tuple[str, Iterable[int]]]
) -> None:
    """Raise an error if a token of (id, token ids) examples has no embedding row.

    Raises:
        DataError: one has none; the first is named.
    """
    rows = count_rows(base)
    for id, ids in examples:
        token = find_unknown_token(ids, rows)
        if token is not None and rows is not None:
            text = str(tokenizer.convert_ids_to_tokens(token))
            reason = explain_unknown_token(base, text, token, len(tokenizer), rows)
            raise DataError(f"example {id!r}: {reason}")


def _read_rows_from_weights(base: str) -> int | None:
    """Return the embedding rows stated in the headers of the safetensors files."""
    index = find_file(base, "model.safetensors.index.json")
    names: Sequence[str] = ["model.safetensors"]
    if index is not None:
        mapped: Mapping[str, str] = json.loads(index.read_text())["weight_map"]
        names = sorted({mapped[name] for name in mapped if name.endswith(EMBEDDING_NAMES)})
    for name in names:
        file = find_file(base, name)
        shapes = _read_shapes(file) if file is not None else {}
        embedding_shape = next(
            (shape for key, shape in shapes.items() if key.endswith(EMBEDDING_NAMES)), None
        )
        if embedding_shape is not None:
            return embedding_shape[0]
    return None


def _read_shapes(file: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor in a safetensors file's header."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(size))
    return {name: entry["shape"] for name, entry in header.items() if "shape" in entry}
