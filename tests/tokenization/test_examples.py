"""Examples as tokens: too long is refused, or cut to exactly what fits."""

from __future__ import annotations

from typing import Any

import pytest

from tuneoff.config.schema import TaskConfig
from tuneoff.errors import DataError
from tuneoff.models.loading import SHIPPED_BASE_DIR, load_tokenizer
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.records import Example
from tuneoff.tasks import functional_representation, text_to_sql
from tuneoff.tokenization.examples import (
    encode_completion,
    encode_example,
    encode_prompt,
    truncate_prompt,
)

TABLES = "CREATE TABLE ship (name VARCHAR, built INTEGER, größe INTEGER) " * 40
SQL = Example(
    "sql", {"question": "How many ships?", "context": TABLES}, "SELECT COUNT(*) FROM ship"
)
SENTENCE = Example("sentence", {"sentence": "A hut — far (away) from “here”. " * 40}, "hut[Far]")
TURNS = [
    {"role": "system", "content": "Be brief."},
    *[{"role": role, "content": f"{role} {i} says a bit"} for i in range(60) for role in
      ("user", "assistant")],
    {"role": "user", "content": "And now?"},
]  # fmt: skip
CHAT = Example("chat", {"messages": TURNS}, "Yes.")
TEMPLATES = {
    "sql": text_to_sql.template(TaskConfig(id="text_to_sql", source="spider-create-context")),
    "sentence": functional_representation.SAMPLE,
    "chat": CHAT_PASS_THROUGH,
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(SHIPPED_BASE_DIR))


@pytest.mark.parametrize("example", [SQL, SENTENCE, CHAT], ids=lambda e: e.id)
def test_too_long_is_refused_or_cut(example: Example, tokenizer: Any) -> None:
    template = TEMPLATES[example.id]
    arguments: Any = (template, "text", "completion", 200)
    with pytest.raises(DataError, match=rf"'{example.id}' has \d+ tokens, more than the 200"):
        encode_example(tokenizer, example, *arguments)
    encoded = encode_example(tokenizer, example, *arguments, truncate=True)
    assert encoded.is_truncated
    # At a token boundary, and no more than needed: one token more would not have fitted.
    assert 200 - (40 if example is CHAT else 4) <= len(encoded.input_ids) <= 200
    answer = encode_completion(tokenizer, example)
    assert list(encoded.input_ids[-len(answer) :]) == answer
    assert [label for label in encoded.labels if label != -100] == answer


def test_question_and_instruction_survive(tokenizer: Any) -> None:
    encoded = encode_example(tokenizer, SQL, TEMPLATES["sql"], "text", "text", 120, truncate=True)
    text = tokenizer.decode(encoded.input_ids)
    assert text.startswith("You are a powerful text-to-SQL model")
    assert "How many ships?" in text
    assert "CREATE TABLE ship" in text


def test_what_fits_is_not_touched(tokenizer: Any) -> None:
    short = Example("short", {"sentence": "A hut."}, "hut[]")
    template = TEMPLATES["sentence"]
    plain = encode_example(tokenizer, short, template, "text", "completion", 200)
    assert plain == encode_example(
        tokenizer, short, template, "text", "completion", 200, truncate=True
    )
    assert not plain.is_truncated
    assert truncate_prompt(tokenizer, short, template, "text", 200) is short


def test_an_answer_without_room_is_refused(tokenizer: Any) -> None:
    long = Example("answer", {"question": "q", "context": "c"}, "SELECT name " * 100)
    with pytest.raises(DataError, match="'answer' leaves no room for its answer"):
        encode_example(tokenizer, long, TEMPLATES["sql"], "text", "completion", 200, truncate=True)


def test_a_prompt_with_shots_is_cut_to_leave_room(tokenizer: Any) -> None:
    shot = Example("shot", {"question": "All?", "context": "CREATE TABLE a (b)"}, "SELECT b FROM a")
    template = TEMPLATES["sql"]
    found = truncate_prompt(tokenizer, SQL, template, "text", 150, [shot])
    ids = encode_prompt(tokenizer, found, template, "text", [shot])
    assert 140 < len(ids) <= 150
    assert TABLES.startswith(found.inputs["context"])
