"""Ollama's Modelfile: its template writes what the model's chat template writes, or there is
none. (Ollama itself is asked nothing: it is no Python package.)"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import write_base

from tuneoff.export.ollama import find_turn_format, render_modelfile

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    + CHATML
)
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set s = '<<S>>' + messages[0].content + '<</S>>' %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}[INST] {% if loop.first %}{{ s }}{% endif %}"
    "{{ m.content }} [/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML
COUNTS = CHATML.replace("{{ m.content }}", "{{ loop.index }} {{ m.content }}")
BRACES = CHATML.replace("<|im_end|>", "{{ '{{' }}")
EXPLAINED = {
    "chatml": CHATML,
    "qwen": QWEN,
    "thinking": THINKING,
    "llama3": LLAMA3,
    "zephyr": ZEPHYR,
}
OTHERS = {"llama2": LLAMA2, "no system": NO_SYSTEM, "counts": COUNTS}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(write_base(tmp_path, ["some words"]))


def as_ollama_writes(text: str, conversation: list[dict[str, str]]) -> str:
    """What Ollama makes of a conversation by a Modelfile, for the constructs that ours use."""
    found = re.search('TEMPLATE """(.*?)"""', text, re.DOTALL)
    assert found is not None
    system = re.search('SYSTEM """(.*?)"""', text, re.DOTALL)
    if system and conversation[0]["role"] != "system":
        conversation = [{"role": "system", "content": system[1]}, *conversation]
    start, rest = found[1].split("{{ range .Messages }}")
    turns, answer = rest.split("{{ end }}{{ end }}")
    cases = re.split(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}', turns)[1:]
    by_role = dict(zip(cases[::2], cases[1::2], strict=True))
    written = (by_role[m["role"]].replace("{{ .Content }}", m["content"]) for m in conversation)
    return start + "".join(written) + answer


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_template_writes_the_same(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = EXPLAINED[name]
    text = render_modelfile("m.gguf", tokenizer, True, [2])
    assert text is not None
    user, said = {"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}
    system = {"role": "system", "content": "Be brief."}
    for conversation in ([user], [system, user], [user, said, user], [system, user, said, user]):
        own = tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False
        )
        assert as_ollama_writes(text, conversation) == own
    assert ('SYSTEM """You help."""' in text) is (name == "qwen")


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_explained_is_not_written(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = OTHERS[name]
    assert find_turn_format(tokenizer) is None
    assert render_modelfile("m.gguf", tokenizer, True, [2]) is None


def test_signs_of_ollamas_own_language(tokenizer: Any) -> None:
    tokenizer.chat_template = BRACES
    assert find_turn_format(tokenizer) is not None
    assert render_modelfile("m.gguf", tokenizer, True, [2]) is None


def test_the_first_token_is_there_once(tokenizer: Any) -> None:
    from tokenizers import processors

    tokenizer.chat_template = LLAMA3
    assert 'TEMPLATE """<s>{{ range' in str(render_modelfile("m.gguf", tokenizer, True, [2]))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )  # then llama.cpp puts it there
    assert 'TEMPLATE """{{ range' in str(render_modelfile("m.gguf", tokenizer, True, [2]))


def test_plain_prompts(tokenizer: Any) -> None:
    assert render_modelfile("m.gguf", tokenizer, False, [2, 0]) == (
        "FROM ./m.gguf\n"
        'TEMPLATE """{{ .Prompt }}"""\n'
        "# The likeliest token each time, as in the answers that were scored.\n"
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"
        'PARAMETER stop "</s>"\n'
        'PARAMETER stop "<pad>"\n'
    )
