"""The text similarities of OpenAI's `text_similarity` grader, each from 0 to 1.

`fuzzy_match` is rapidfuzz's WRatio without case and punctuation, as in the example of OpenAI's
guide "Graders". `rouge_*` are F-measures over words of a to z and 0 to 9, as in Google's
rouge-score without its stemmer. BLEU, GLEU, METEOR and `cosine` are not offered: OpenAI does not
document how it tokenizes and smooths the first three, and `cosine` needs its embeddings. Ours would
be other metrics of the same names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from tuneoff.errors import MissingExtraError

_WORD = re.compile(r"[a-z0-9]+")


def check_fuzzy_match() -> None:
    """Raise if the library of `fuzzy_match` is missing.

    Raises:
        MissingExtraError: rapidfuzz is not installed.
    """
    try:
        import rapidfuzz  # noqa: F401
    except ImportError:
        raise MissingExtraError("rapidfuzz", "graders", "the grader's fuzzy_match") from None


def match_fuzzily(text: str, reference: str) -> float:
    """Return rapidfuzz's weighted ratio."""
    from rapidfuzz import fuzz, utils

    return fuzz.WRatio(text, reference, processor=utils.default_process) / 100


def measure_rouge_n(n: int, text: str, reference: str) -> float:
    """Return the F-measure of the n-grams that two texts share (ROUGE-N)."""
    own, other = (_count_ngrams(_split_words(side), n) for side in (text, reference))
    return _compute_f_measure((own & other).total(), own.total(), other.total())


def measure_rouge_l(text: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words (ROUGE-L)."""
    own, other = _split_words(text), _split_words(reference)
    lengths = [0] * (len(other) + 1)
    for word in own:
        before = lengths[:]
        for place, other_word in enumerate(other, 1):
            equal = before[place - 1] + 1
            lengths[place] = equal if word == other_word else max(before[place], lengths[place - 1])
    return _compute_f_measure(lengths[-1], len(own), len(other))


SIMILARITIES: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": match_fuzzily,
    **{f"rouge_{n}": partial(measure_rouge_n, n) for n in range(1, 6)},
    "rouge_l": measure_rouge_l,
}


def _split_words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _count_ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def _compute_f_measure(shared: int, own: int, other: int) -> float:
    return 2 * shared / (own + other) if shared else 0.0
