"""Counting without torch gives what transformers gives, to the token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import write_base
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tuneoff import prompts
from tuneoff.config.schema import TaskConfig
from tuneoff.models.loading import SHIPPED_BASE_DIR, count_positions, load_tokenizer
from tuneoff.records import Example
from tuneoff.tasks import functional_representation, text_to_sql
from tuneoff.tasks.samples import functional, sql
from tuneoff.tokenization.chat_template import TemplateError
from tuneoff.tokenization.examples import encode_example, encode_prompt
from tuneoff.tokenization.offline import UNLIMITED_POSITIONS, TokenCounter, load_counter

CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] | trim }}\n{% endfor %}"
    "{%- if enable_thinking is defined and not enable_thinking %}<no-think>{% endif %}"
    "{% generation %}{% if add_generation_prompt %}<assistant>{% endif %}{% endgeneration %}"
)
ODD = ["", " ", "a\n\nb", "(a)(b)[1]", "naïve — “quoted” 漢字 🙂", "</s><pad>x", "x" * 300]


def counter(base: Path | str) -> TokenCounter:
    found = load_counter(str(base))
    assert found is not None
    return found


def test_exact_for_the_shipped_base() -> None:
    tokenizer, counted = load_tokenizer(str(SHIPPED_BASE_DIR)), counter(SHIPPED_BASE_DIR)
    assert counted.positions == count_positions(str(SHIPPED_BASE_DIR))
    sql_template = text_to_sql.template(TaskConfig(id="text_to_sql", source="sample"))
    cases = [(e, functional_representation.SAMPLE) for e in functional.generate()["test"][:60]]
    cases += [(e, sql_template) for e in sql.generate(0)["test"][:60]]
    cases += [(Example(t, {"sentence": t}, t), functional_representation.VIGGO) for t in ODD]
    for example, template in cases:
        encoded = encode_example(tokenizer, example, template, "text", "completion", 4096)
        prompt = counted.count_prompt(prompts.render_text(example, template))
        assert prompt + counted.count_completion(example.completion) == len(encoded.input_ids)


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize("begins", [True, False])
def test_exact_with_a_chat_template_and_a_bos(
    begins: bool, said: bool | None, tmp_path: Path
) -> None:
    """`begins`: tokenizer.json adds a BOS; `said`: what the settings beside it say of that."""
    base = write_base(tmp_path / "base", [*ODD, "some words <user> <assistant>"], CHAT)
    if begins:
        backend = Tokenizer.from_file(str(base / "tokenizer.json"))
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        backend.save(str(base / "tokenizer.json"))
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | ({} if said is None else {"add_bos_token": said})))
    tokenizer, counted = load_tokenizer(str(base)), counter(base)
    assert counted.adds_bos == begins
    turns = [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "some words"},
        {"role": "assistant", "content": "naïve"},
        {"role": "user", "content": "x\ny"},
    ]
    example = Example("1", {"messages": turns}, "z")
    for rendering in ("chat", "text"):
        ids = encode_prompt(tokenizer, example, prompts.CHAT_PASS_THROUGH, rendering)  # type: ignore[arg-type]
        text = prompts.render_text(example, prompts.CHAT_PASS_THROUGH)
        assert counted.encode_prompt(turns if rendering == "chat" else text) == ids


def test_a_template_of_the_old_form_and_one_that_refuses(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(SHIPPED_BASE_DIR, base)
    file = base / "tokenizer_config.json"
    refusing = "{{ raise_exception('roles must alternate') }}"
    template = [{"name": "default", "template": refusing}, {"name": "tool_use", "template": "x"}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))
    with pytest.raises(TemplateError, match="roles must alternate"):
        counter(base).render_chat([{"role": "user", "content": "x"}])


def test_positions_by_their_other_name(tmp_path: Path) -> None:
    for config, expected in (({"n_positions": 77}, 77), ({}, UNLIMITED_POSITIONS)):
        base = tmp_path / str(expected)
        shutil.copytree(SHIPPED_BASE_DIR, base)
        (base / "config.json").write_text(json.dumps(config))
        assert counter(base).positions == expected


def test_what_is_not_here_has_no_counter(tmp_path: Path) -> None:
    assert load_counter("someone/no-such-model") is None
    (tmp_path / "config.json").write_text("{}")
    assert load_counter(str(tmp_path)) is None
