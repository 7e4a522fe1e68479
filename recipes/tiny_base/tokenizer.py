"""A byte-level BPE in which a word has one spelling in tokens, wherever it stands.

Copying is easiest when the thing copied is the same token twice. In the usual byte-level BPE
` Karo` after a blank and `Karo` after a bracket or a quote are different tokens. Here the missing
blank is what is marked: text that starts a word without one gets a word joiner (U+2060) and a blank
before it, the joiner merges with the punctuation before it (`'\\u2060`), and decoding takes both
away again. So `home run`, `home_run` and `'home` all hold the token ` home`.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

JOINER = "\u2060"
SPECIALS = ["<s>", "</s>", "<pad>"]
BOS, EOS, PAD = 0, 1, 2
_MARKS = "\n!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_WORD = r"(?=[\p{L}\p{N}])"
_PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\n\u2060?|[^\S\n]+"


def _normalizer() -> normalizers.Normalizer:
    """Marks words that start without a blank: after ASCII punctuation, a newline, at the start."""
    steps: list[normalizers.Normalizer] = [
        normalizers.Prepend(JOINER),
        normalizers.Replace(Regex(f"{JOINER}(?![\\p{{L}}\\p{{N}}])"), ""),
        normalizers.Replace(JOINER, f"{JOINER} "),
    ]
    for mark in _MARKS:
        escaped = mark if mark in "\n\"#%&',:;<=>@_`~!" else "\\" + mark
        steps.append(normalizers.Replace(Regex(escaped + _WORD), f"{mark}{JOINER} "))
    return normalizers.Sequence(steps)


def blank() -> Tokenizer:
    """The tokenizer before training."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteLevel(),
            decoders.Replace(f"{JOINER} ", ""),
            decoders.Replace(JOINER, ""),
        ]
    )
    return tokenizer


def train(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Trains on `texts`; the ids of `SPECIALS` come first."""
    tokenizer = blank()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=SPECIALS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer
