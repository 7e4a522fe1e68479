"""The base's training text never holds the sample tasks or the public ones, and is repeatable."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))

pytest.importorskip("wordfreq")
from tiny_base import mix, words
from tiny_base.tokenizer import train
from tuneoff.tasks.samples import functional, sql

DOCUMENTS = 3000
CALL_WITH_BRACKETS = re.compile(r"\w\[")


def _texts() -> Iterator[str]:
    for index in range(DOCUMENTS):
        yield "".join(text for text, _ in mix.document(1, index, early=index % 4 == 0))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(_texts())


def test_documents_repeat_by_seed_and_index() -> None:
    assert mix.document(3, 17) == mix.document(3, 17)
    assert mix.document(3, 17) != mix.document(3, 18)
    assert mix.document(3, 17) != mix.document(4, 17)
    assert list(islice(mix.documents(3, 5), 2)) == [mix.document(3, 5), mix.document(3, 6)]


def test_no_answer_in_the_format_of_the_tasks(texts: list[str]) -> None:
    assert [text for text in texts if CALL_WITH_BRACKETS.search(text)] == []


def test_no_content_word_of_the_samples(texts: list[str]) -> None:
    content = functional.content_words() | sql.content_words()
    content |= set(functional.FUNCTIONS) | set(functional.ATTRIBUTES)
    content -= sql.GENERIC | functional.GENERIC | words.GRAMMAR
    found = {w for text in texts for w in re.findall(r"[a-z]+", text.lower())} & content
    assert found == set()


def test_no_label_of_the_public_functional_task(texts: list[str]) -> None:
    compound = {label for label in words.FORBIDDEN_LABELS if "_" in label}
    single = words.FORBIDDEN_LABELS - compound - {"name"}
    for text in texts:
        assert not any(label in text for label in compound)
        assert not set(re.findall(r"[a-z]+", text.lower())) & single


def _pattern(template: str) -> re.Pattern[str]:
    """The template with one or two words in each hole, which is all that the samples put there."""
    literal = re.split(r"\{\w*\}", template)
    return re.compile(r"\S+(?: \S+)?".join(map(re.escape, literal)))


def test_no_instruction_or_question_of_the_samples(texts: list[str]) -> None:
    templates = (*functional.templates(), *sql.templates())
    spelled = [t for t in templates if len(re.sub(r"\{\w*\}", "", t).split()) >= 4]
    assert len(spelled) > 20
    everything = "\n".join(texts)
    for template in spelled:
        found = _pattern(template).search(everything)
        assert found is None, (template, found)


def test_every_piece_survives_the_tokenizer() -> None:
    tokenizer = train(_texts(), 1500)
    for index in range(200):
        for text, _ in mix.document(2, index):
            assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_word_has_the_same_tokens_wherever_it_stands() -> None:
    tokenizer = train(_texts(), 1500)
    inner = tokenizer.encode("a Karovendi").ids[2:]
    for text in ("('Karovendi", "x{Karovendi", "\nKarovendi", "Karovendi"):
        assert tokenizer.encode(text).ids[-len(inner) :] == inner
