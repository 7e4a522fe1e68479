"""Describes a tokenizer in llama.cpp's terms.

llama.cpp has its own tokenizers: byte-level BPE with one of a list of named pre-tokenizers, and
SentencePiece-like BPE with scores. If a transformers tokenizer is equivalent to one of these, by
its definition (`tokenizer.json`) rather than its name, it is described as that one. Otherwise
llama.cpp would split texts elsewhere, and the vocabulary says so (`unknown`): such a model answers
correctly only when it gets token ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import TokenType

from tuneoff.errors import ConfigError
from tuneoff.tokenization.chat_template import find_template_source
from tuneoff.tokenization.encode import get_turn_end

_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+CONTRACTION|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*CONTRACTION|"
)
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = _CASED.replace("CONTRACTION", "") + r"\p{N}" + _CASED_TAIL
_GPT_4O = _CASED.replace("CONTRACTION", _CONTRACTIONS + "?") + r"\p{N}{1,3}" + _CASED_TAIL
# (pattern of a Split, whether whole words skip the merges) → llama.cpp's name of it.
_SPLITS = {
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "smaug-bpe",
    (_QWEN2, False): "qwen2",
    (_QWEN35, False): "qwen35",
    (_TEKKEN, True): "tekken",
    (_GPT_4O, False): "gpt-4o",
}
# The name for a file whose pre-tokenizer llama.cpp does not know.
_FALLBACK_PRE = "default"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A GGUF file's description of a tokenizer."""

    model: str
    """`gpt2` (byte-level BPE) or `llama` (SentencePiece)."""
    pre: str
    """llama.cpp's name of the pre-tokenizer."""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    """Of byte-level BPE."""
    scores: list[float]
    """Of SentencePiece."""
    special: dict[str, int]
    turn_end: int | None
    """A second token that ends an answer, as in chat models."""
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | None
    unknown: str | None
    """Why llama.cpp cannot split texts like this tokenizer; None if it can."""


def build_vocabulary(tokenizer: Any, size: int, ends: Sequence[int]) -> Vocabulary:
    """Return the vocabulary of a transformers tokenizer.

    Args:
        size: rows of the model's embedding, which may be more than tokens.
        ends: all tokens that end an answer.

    Raises:
        ConfigError: it is not a BPE tokenizer.
    """
    if not tokenizer.is_fast:
        raise _build_refusal(type(tokenizer).__name__, "it has no tokenizer.json")
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    model = definition["model"]
    if model["type"] != "BPE":
        raise _build_refusal(type(tokenizer).__name__, f"it is {model['type']}, not BPE")
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    space_prefix = _find_space_prefix(definition) if model.get("byte_fallback") else None
    spm = space_prefix is not None and _is_merged_by_score(model["vocab"], merges)
    if not spm and not _is_byte_level(definition):
        raise _build_refusal(
            type(tokenizer).__name__, "its BPE is neither byte-level nor SentencePiece's"
        )
    pre = None if spm else _find_pre_tokenizer(definition)
    tokens, types = _list_tokens(tokenizer, definition, size, spm)
    return Vocabulary(
        model="llama" if spm else "gpt2",
        pre=("default" if spm else pre or _FALLBACK_PRE),
        tokens=tokens,
        types=types,
        merges=[] if spm else [" ".join(pair) for pair in merges],
        scores=_compute_scores(tokens, merges) if spm else [],
        special=_list_special(tokenizer),
        turn_end=_find_turn_end(tokenizer, ends),
        add_bos=_has_token_at(tokenizer, 0, tokenizer.bos_token_id),
        add_eos=_has_token_at(tokenizer, -1, tokenizer.eos_token_id),
        add_space_prefix=bool(space_prefix),
        chat_template=find_template_source(tokenizer.chat_template),
        unknown=_explain_special_blanks(tokenizer, definition)
        if spm
        else _explain_unknown(definition, pre),
    )


def _build_refusal(name: str, reason: str) -> ConfigError:
    """Return the error for a tokenizer that cannot be described."""
    return ConfigError(
        f"--format gguf: the tokenizer {name} cannot be described to llama.cpp here ({reason}); "
        "use --format merged, then llama.cpp's own convert_hf_to_gguf.py."
    )


def _find_pre_tokenizer(definition: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name of a byte-level pre-tokenizer; None if it has none."""
    normalizer, model = definition.get("normalizer"), definition["model"]
    steps = _list_steps(definition.get("pre_tokenizer"), "pretokenizers")
    whole_words = bool(model.get("ignore_merges"))
    last, before = steps[-1], steps[:-1]
    if last.get("add_prefix_space") or len(before) > 1:
        return None
    name = None
    if not before and last.get("use_regex", True) and not whole_words:
        name = "gpt-2"
    elif before and before[0] == {"type": "Digits", "individual_digits": True}:
        name = "smollm" if last.get("use_regex", True) and not whole_words else None
    elif before and before[0]["type"] == "Split" and not last.get("use_regex", True):
        split = before[0]
        if split["behavior"] == "Isolated" and not split["invert"]:
            name = _SPLITS.get((split["pattern"].get("Regex", ""), whole_words))
    # llama.cpp does not normalize; its own converter ignores this for Qwen's NFC, and so does this
    # one.
    harmless = normalizer is None or (normalizer == {"type": "NFC"} and "qwen" in (name or ""))
    return name if harmless else None


def _is_byte_level(definition: Mapping[str, Any]) -> bool:
    """Return whether tokens are made of bytes, each written as a character."""
    steps = _list_steps(definition.get("pre_tokenizer"), "pretokenizers")
    return bool(steps) and steps[-1]["type"] == "ByteLevel"


def _find_space_prefix(definition: Mapping[str, Any]) -> bool | None:
    """Return whether a tokenizer with byte fallback puts a blank before a text.

    None if it splits or changes texts in a way that llama.cpp's SentencePiece does not.
    """
    normalizers = _list_steps(definition.get("normalizer"), "normalizers")
    steps = _list_steps(definition.get("pre_tokenizer"), "pretokenizers")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    if not steps and normalizers in ([prepend, replace], [replace]):
        return normalizers[0] == prepend
    if not normalizers and len(steps) == 1 and steps[0]["type"] == "Metaspace":
        step = steps[0]
        if step["replacement"] == "▁" and not step.get("split", True):
            return bool(step["prepend_scheme"] != "never")
    return None


def _is_merged_by_score(vocab: Mapping[str, int], merges: list[tuple[str, ...]]) -> bool:
    """Return whether any two neighbours that make a token are merged.

    SentencePiece does so: it has tokens and their scores, but no merges.
    """
    pairs = set(merges)
    tokens = [token for token in vocab if len(token) > 1 and not _BYTE.fullmatch(token)]
    made = {"".join(pair) for pair in merges}
    for token in tokens:
        for place in range(1, len(token)):
            left, right = token[:place], token[place:]
            if left in vocab and right in vocab and (left, right) not in pairs and token in made:
                return False
    return True


def _compute_scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Return each token's score: the earlier it is merged, the higher."""
    first: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        first.setdefault("".join(pair), rank)
    last = len(merges)
    return [-float(first.get(token, last)) for token in tokens]


def _list_tokens(
    tokenizer: Any, definition: Mapping[str, Any], size: int, spm: bool
) -> tuple[list[str], list[int]]:
    """Return the texts and kinds of all tokens; embedding rows without a token are unused."""
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    added = {entry["id"]: entry for entry in definition.get("added_tokens", [])}
    if max(texts) >= size:
        raise ConfigError(
            f"--format gguf: the tokenizer has the token {max(texts)}, and the model knows {size}."
        )
    tokens, kinds = [], []
    for number in range(size):
        text = texts.get(number)
        kind = TokenType.NORMAL
        if text is None:
            text, kind = f"[PAD{number}]", TokenType.UNUSED
        elif spm and text == tokenizer.unk_token:
            kind = TokenType.UNKNOWN
        elif number in added:
            kind = TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED
        elif spm and _BYTE.fullmatch(text):
            kind = TokenType.BYTE
        if kind == TokenType.USER_DEFINED:
            text = text.replace("▁", " ")
        tokens.append(text)
        kinds.append(int(kind))
    return tokens, kinds


def _list_special(tokenizer: Any) -> dict[str, int]:
    """Return the ids of the special tokens, by kind."""
    numbers = {
        kind: getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "unk", "pad")
    }
    return {kind: int(number) for kind, number in numbers.items() if number is not None}


def _find_turn_end(tokenizer: Any, ends: Sequence[int]) -> int | None:
    """Return the token besides EOS that ends an answer: the chat template's, or else the first."""
    others = [end for end in ends if end != tokenizer.eos_token_id]
    own = get_turn_end(tokenizer)
    return own if own in others else next(iter(others), None)


def _has_token_at(tokenizer: Any, place: int, token: int | None) -> bool:
    """Return whether the tokenizer itself puts this token at this place."""
    ids = tokenizer("a")["input_ids"]
    return token is not None and bool(ids) and ids[place] == token


def _list_steps(part: Mapping[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer, which may be one or a sequence."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [dict(step) for step in part[inner]]
    return [dict(part)]


def _explain_special_blanks(tokenizer: Any, definition: Mapping[str, Any]) -> str | None:
    """Return why chat turns would be split differently; None if they would not."""
    steps = _list_steps(definition.get("pre_tokenizer"), "pretokenizers")
    if tokenizer.chat_template and steps and steps[0]["prepend_scheme"] == "first":
        return "llama.cpp puts a blank behind each special token, and this tokenizer does not"
    return None


def _explain_unknown(definition: Mapping[str, Any], pre: str | None) -> str | None:
    """Return why llama.cpp cannot split texts like this byte-level tokenizer; None if it can."""
    if pre:
        return None
    normalizers = _list_steps(definition.get("normalizer"), "normalizers")
    steps = _list_steps(definition.get("pre_tokenizer"), "pretokenizers")
    kinds = [step["type"] for step in (*normalizers, *steps)]
    step_names = ", ".join(dict.fromkeys(kinds)) or "nothing"
    return f"llama.cpp has no tokenizer that prepares a text as this one does ({step_names})"
