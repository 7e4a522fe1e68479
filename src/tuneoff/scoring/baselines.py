"""Baselines: answers without a model, which a useful score must beat.

If half of the training examples have one label, that label alone scores about half of the test set.
A test input that nearly equals a training input is answered by its neighbour. A model that does no
better has learnt no more.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tuneoff.records import Example

MOST_FREQUENT = "most frequent answer"
NEAREST = "nearest example"
# The most frequent answer needs at least this share of train to be a baseline.
MIN_SHARE = 0.02
# The number of training examples that are searched for neighbours; more are sampled.
MAX_EXAMPLES = 20_000
# The characters of an input that count, half at its beginning and half at its end.
MAX_CHARACTERS = 8_000
# Chinese, Japanese and Korean have no spaces, so each of their characters is a word.
WORD_PATTERN = (
    r"(?u)[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
BLOCK_SIZE = 256


def find_most_frequent(train: Sequence[Example]) -> tuple[str, float] | None:
    """Return the most frequent training answer and its share; None under 2%."""
    if not train:
        return None
    answer, times = Counter(example.completion for example in train).most_common(1)[0]
    share = times / len(train)
    return (answer, share) if share >= MIN_SHARE else None


def find_nearest_answers(train: Sequence[Example], test: Sequence[Example]) -> list[str] | None:
    """Return, per test example, the answer of the training example with the nearest input.

    Nearest is the largest cosine of TF-IDF word vectors (Salton and Buckley 1988). None if the
    inputs hold no words.
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    used = _sample_examples(train)
    if not used or not test:
        return None
    vectorizer = TfidfVectorizer(token_pattern=WORD_PATTERN, dtype=np.float32)
    try:
        known = vectorizer.fit_transform(map(_read_input, used)).T.tocsr()
    except ValueError:  # the inputs hold no words
        return None
    asked = vectorizer.transform(map(_read_input, test))
    places: list[int] = []
    for start in range(0, len(test), BLOCK_SIZE):
        nearness = asked[start : start + BLOCK_SIZE] @ known
        places += nearness.toarray().argmax(axis=1).tolist()
    return [used[place].completion for place in places]


def _sample_examples(train: Sequence[Example]) -> list[Example]:
    if len(train) <= MAX_EXAMPLES:
        return list(train)
    chosen = random.Random(0).sample(range(len(train)), MAX_EXAMPLES)
    return [train[place] for place in sorted(chosen)]


def _read_input(example: Example) -> str:
    """Return the text of an input, without the middle of a long one."""
    text = "\n".join(_find_texts(example.content()))
    half = MAX_CHARACTERS // 2
    return text if len(text) <= MAX_CHARACTERS else f"{text[:half]}\n{text[-half:]}"


def _find_texts(value: Any) -> Iterator[str]:
    """Yield every text of an input, without the roles of a chat."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "role":
                yield from _find_texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _find_texts(inner)
