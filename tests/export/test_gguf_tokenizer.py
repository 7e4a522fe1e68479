"""Tokenizers described to llama.cpp: by what they do, not by their names; where llama.cpp is
installed, it cuts texts into the same tokens, and where it could not, the description says so."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tuneoff.errors import ConfigError
from tuneoff.models.loading import SHIPPED_BASE_DIR, load_tokenizer

pytest.importorskip("gguf")
import gguf

from tuneoff.export import llama_cpp
from tuneoff.export.gguf import write_gguf
from tuneoff.export.gguf_tokenizer import Vocabulary, build_vocabulary

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZE = 600
TEXTS = [
    "SELECT name FROM city WHERE population > 1234567 AND mayor = 'O''Neill'",
    "We've seen that they'll come; it's 12.50 or 007, isn't it?\n\n  Two blanks, a\ttab",
    "Größe, naïveté, Ελλάδα, Привет, 你好, 🙂 and so on...   ",
    "inform(name[The Witcher 3], rating[good])\r\n<turn>Hello<turn>\n",
    "   three blanks first, a_b-c/d.e",
]


def byte_level(*steps: Any, ignore_merges: bool = False, normalizer: Any = None) -> Any:
    """A byte-level BPE that cuts texts by these steps first."""
    bpe = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    if normalizer is not None:
        bpe.normalizer = normalizer
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<pad>", "<s>", "</s>", "<turn>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS * 3, trainer)
    return wrapped(bpe)


def wrapped(bpe: Tokenizer, **more: Any) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", **more
    )


def split(pattern: str) -> tuple[Any, Any]:
    return (
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    )


def sentencepiece(prefix: bool = True, all_pairs: bool = True) -> Any:
    """A BPE with bytes to fall back on, its merges as they come out of a SentencePiece model: any
    two tokens that make a third, the best one first."""
    special = ["<unk>", "<s>", "</s>", "<pad>", "<turn>"]
    special_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    replace = normalizers.Replace(" ", "▁")
    steps = [normalizers.Prepend("▁"), replace] if prefix else [replace]
    trained.normalizer = normalizers.Sequence(steps)
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 20,
        special_tokens=[*special, *special_bytes],
        initial_alphabet=["▁", *alphabet],
        limit_alphabet=len(alphabet) + 1,
        show_progress=False,
    )
    trained.train_from_iterator(["some words of a text, of some length"] * 9 + TEXTS, trainer)
    model = json.loads(trained.to_str())["model"]
    vocab = model["vocab"]
    merges = [tuple(pair) for pair in model["merges"]]
    if all_pairs:
        rank = {"".join(pair): place for place, pair in reversed(list(enumerate(merges)))}
        pairs = [
            (rank[token], token[:cut], token[cut:])
            for token in rank
            for cut in range(1, len(token))
            if token[:cut] in vocab and token[cut:] in vocab
        ]
        merges = [(left, right) for _, left, right in sorted(pairs)]
    bpe = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Sequence(steps)
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bpe.add_special_tokens(special)
    return wrapped(bpe, unk_token="<unk>")


PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = pre_tokenizers.Digits(individual_digits=True)
KNOWN = {
    "gpt-2": lambda: byte_level(PLAIN),
    "smollm": lambda: byte_level(DIGITS, PLAIN),
    "llama-bpe": lambda: byte_level(*split(LLAMA3), ignore_merges=True),
    "smaug-bpe": lambda: byte_level(*split(LLAMA3)),
    "qwen2": lambda: byte_level(*split(QWEN2), normalizer=normalizers.NFC()),
}
SPM = {"prefix": lambda: sentencepiece(), "no prefix": lambda: sentencepiece(prefix=False)}


def described(tokenizer: Any) -> Vocabulary:
    return build_vocabulary(tokenizer, SIZE, [tokenizer.eos_token_id])


@pytest.mark.parametrize("pre", KNOWN)
def test_known_ways_to_cut(pre: str) -> None:
    tokenizer = KNOWN[pre]()
    found = described(tokenizer)
    assert (found.model, found.pre, found.unknown) == ("gpt2", pre, None)
    assert [found.tokens[number] for number in range(4)] == ["<pad>", "<s>", "</s>", "<turn>"]
    assert found.types[:4] == [gguf.TokenType.CONTROL] * 4
    assert found.tokens[SIZE - 1] == f"[PAD{SIZE - 1}]"
    assert found.types[SIZE - 1] == gguf.TokenType.UNUSED
    assert len(found.tokens) == len(found.types) == SIZE
    own = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert found.merges == [" ".join(pair) for pair in own]
    assert found.special == {"bos": 1, "eos": 2, "pad": 0}


@pytest.mark.parametrize(
    "tokenizer",
    [
        lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda: byte_level(*split(LLAMA3.replace("{1,3}", "{1,2}"))),
        lambda: byte_level(*split(QWEN2), ignore_merges=True),
        lambda: byte_level(PLAIN, normalizer=normalizers.Lowercase()),
        lambda: byte_level(pre_tokenizers.Punctuation(), PLAIN),
        lambda: load_tokenizer(str(SHIPPED_BASE_DIR)),
    ],
    ids=["prefix", "two digits", "whole words", "lower case", "punctuation", "shipped"],
)
def test_other_ways_are_said_to_be_unknown(tokenizer: Any) -> None:
    found = build_vocabulary(tokenizer(), 4096, [2])
    assert (found.model, found.pre) == ("gpt2", "default")
    assert "llama.cpp has no tokenizer that prepares a text as this one does" in str(found.unknown)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_has_scores(prefix: bool) -> None:
    tokenizer = sentencepiece(prefix)
    found = described(tokenizer)
    assert (found.model, found.unknown, found.merges) == ("llama", None, [])
    assert found.add_space_prefix is prefix
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 4]
    assert found.types[:5] == kinds
    assert found.types[5] == gguf.TokenType.BYTE
    early, late = (found.scores[tokenizer.convert_tokens_to_ids(t)] for t in ("so", "some"))
    assert 0 >= early > late


def test_a_blank_at_the_first_place_only() -> None:
    tokenizer = sentencepiece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="first", split=False
    )
    found = described(tokenizer)
    assert (found.add_space_prefix, found.unknown) == (True, None)
    tokenizer.chat_template = "{{ messages[0].content }}"  # whose turns begin behind a token
    assert "puts a blank behind each special token" in str(described(tokenizer).unknown)


def test_bpe_that_is_neither_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"neither byte-level nor SentencePiece's.*--format merged"
    ):
        described(sentencepiece(all_pairs=False))
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    with pytest.raises(ConfigError, match="it is WordLevel, not BPE"):
        described(wrapped(words))


def test_who_adds_the_first_token() -> None:
    tokenizer = KNOWN["gpt-2"]()
    assert not described(tokenizer).add_bos
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert described(tokenizer).add_bos


def test_a_second_token_that_ends_answers() -> None:
    assert build_vocabulary(KNOWN["gpt-2"](), SIZE, [2, 3]).turn_end == 3
    assert build_vocabulary(KNOWN["gpt-2"](), SIZE, [2]).turn_end is None


@pytest.mark.parametrize("name", [*KNOWN, *SPM])
def test_llama_cpp_cuts_texts_alike(name: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    tokenizer = {**KNOWN, **SPM}[name]()
    said = cut_by_llama_cpp(tokenizer, tmp_path / "m.gguf", texts := made_texts())
    for text, cut in zip(texts, said, strict=True):
        assert cut == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_llama_cpp_cuts_the_shipped_bases_texts_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    tokenizer = load_tokenizer(str(SHIPPED_BASE_DIR))
    said = cut_by_llama_cpp(tokenizer, tmp_path / "m.gguf", TEXTS, 4096)
    own = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert all(cut != ids for cut, ids in zip(said, own, strict=True))


def made_texts() -> list[str]:
    """The texts, and random mixtures of what is in them."""
    chance = random.Random(0)
    parts = [part for text in TEXTS for part in text.replace(" ", " \0").split("\0")]
    mixed = [
        "".join(chance.choices([*parts, " ", "\n", "'S", "١٢٣", "é"], k=12)) for _ in range(200)
    ]
    return [*TEXTS, *mixed]


def cut_by_llama_cpp(
    tokenizer: Any, file: Path, texts: list[str], size: int = SIZE
) -> list[list[int]]:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=64,
        )
    )  # fmt: skip
    write_gguf(file, model, build_vocabulary(tokenizer, size, [2]), "f32", "tokens")
    said = llama_cpp.run_llama_cpp(file, [], texts, [], 8)
    assert isinstance(said, llama_cpp.LlamaCppOutput), said
    return said.cut


def test_what_llama_cpp_cannot_load_is_told(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    (tmp_path / "m.gguf").write_bytes(b"no model")
    said = llama_cpp.run_llama_cpp(tmp_path / "m.gguf", [[1]], [], [2], 4)
    assert isinstance(said, str)
    assert "Failed to load model" in said
