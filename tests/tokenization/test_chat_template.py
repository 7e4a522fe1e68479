"""Chat templates render every turn, or refuse it by name: those that drop, refuse or change turns
are adapted, and what an exported one renders is what was rendered here."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import write_base

from tuneoff.tokenization.chat_template import (
    ChatTemplate,
    TemplateError,
    find_job_date,
    find_template_source,
    write_adapted_template,
)

DAY = datetime.date(2024, 2, 3)
ROLES = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
END = "{% if add_generation_prompt %}>{% endif %}"
EACH = "{% for m in messages %}<{{ m.role[0] }}:{{ m.content }}>{% endfor %}" + END
KNOWN = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
    "<{{ m.role[0] }}:{{ m.content }}>{% endif %}{% endfor %}" + END
)
STRICT = (
    "{% if messages[0].role == 'system' %}[{{ messages[0].content }}]"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role[0] }}:{{ m.content }}>"
    "{% endfor %}" + END
)
NEVER = STRICT.replace("[{{ messages[0].content }}]", "{{ raise_exception('no system') }}")
FOLDED = (  # as Gemma 3: a system turn is a part of the first user turn, as text or as parts
    "{% if messages[0]['role'] == 'system' %}{% if messages[0]['content'] is string %}"
    "{% set head = messages[0]['content'] %}{% else %}"
    "{% set head = messages[0]['content'][0]['text'] %}{% endif %}{% set rest = messages[1:] %}"
    "{% else %}{% set head, rest = '', messages %}{% endif %}{% for m in rest %}<{{ m.role[0] }}:"
    "{{ head + '/' if loop.first and head else '' }}{{ m.content | trim }}>{% endfor %}" + END
)
PARTS = (
    "{% for m in messages %}<{{ m.role[0] }}:{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}>{% endfor %}" + END
)
# A list for the user, a text for the others; adding a text to nothing is an error.
MIXED = (
    "{% for m in messages %}<{% if m.role == 'user' %}{% for p in m.content %}"
    "{{ 'u:' + p['text'] }}{% endfor %}{% else %}{{ m.role[0] + ':' + m.content }}{% endif %}>"
    "{% endfor %}" + END
)
LEADING = (  # a developer turn, as the first only; any other is left out
    "{% for m in messages %}{% if m.role == 'developer' %}{% if loop.first %}"
    "<d:{{ m.content }}>{% endif %}{% else %}<{{ m.role[0] }}:{{ m.content }}>{% endif %}"
    "{% endfor %}" + END
)
DATED = "{{ strftime_now('%A, %-d %B %Y %H:%M') }}" + EACH
LAST = "{{ messages[-1].content }}" + END
LOUD = "{% for m in messages %}{{ m.content | upper }}{% endfor %}" + END
CALLED = EACH.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' or m.name else '' }}")
INSISTS = "{% if messages[0].role != 'system' %}{{ raise_exception('say') }}{% endif %}" + KNOWN
TWICE = (
    EACH
    + "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}"
)
ALL = {name: text for name, text in globals().items() if name.isupper() and isinstance(text, str)}
CONVERSATIONS = ("u", "su", "du", "sdu", "uau", "suau", "usu", "uadu", "us", "ssu", "dsu", "uautu")

RENDERED = {
    ("EACH", "dusu"): "<d:0><u:1><s:2><u:3>>",
    ("KNOWN", "sdu"): "<s:0><s:1><u:2>>",
    ("STRICT", "su"): "[0]<u:1>>",
    ("STRICT", "sdu"): "[0\n\n1]<u:2>>",
    ("STRICT", "suasu"): "[0]<u:1><a:2><u:3\n\n4>>",
    ("STRICT", "usu"): "<u:0\n\n1\n\n2>>",
    ("STRICT", "usa"): "<u:0\n\n1><a:2>>",
    ("NEVER", "ssu"): "<u:0\n\n1\n\n2>>",
    ("NEVER", "uadu"): "<u:0><a:1><u:2\n\n3>>",
    ("NEVER", "us"): "<u:0\n\n1>>",
    ("NEVER", "s"): "<u:0>>",
    ("FOLDED", "su"): "<u:0/1>>",
    ("PARTS", "sdu"): "<s:0><d:1><u:2>>",
    ("MIXED", "suau"): "<s:0><u:1><a:2><u:3>>",
    ("LEADING", "du"): "<d:0><u:1>>",
    ("LEADING", "sdu"): "<s:0><s:1><u:2>>",
    ("DATED", "u"): "Saturday, 3 February 2024 00:00<u:0>>",
    ("LAST", "su"): "0\n\n1>",
    ("INSISTS", "du"): "<s:0><u:1>>",
    ("TWICE", "su"): "<s:0><u:1>>0",
}
REFUSED = {
    ("KNOWN", "ut"): "leaves out or changes what tool turns say",
    ("STRICT", "uu"): r"refuses these turns: user, user \(it says: roles must alternate\)",
    ("STRICT", "uatu"): "refuses tool turns",
    ("STRICT", "au"): "refuses assistant turns",
    ("LAST", "uau"): "what user and assistant turns say",
    ("LOUD", "u"): "what user turns say",
    ("CALLED", "uatu"): "what tool turns say",
    ("INSISTS", "u"): r"refuses these turns: user \(it says: say\)",
}


def turns(letters: str, content: Callable[[int], str] = str) -> list[dict[str, str]]:
    return [{"role": ROLES[each], "content": content(n)} for n, each in enumerate(letters)]


def template(name: str) -> ChatTemplate:
    return ChatTemplate(ALL[name], {"eos_token": "</s>"}, DAY)


@pytest.mark.parametrize(("name", "letters"), RENDERED)
def test_every_turn_is_rendered(name: str, letters: str) -> None:
    assert template(name).render(turns(letters)) == RENDERED[name, letters]


@pytest.mark.parametrize(("name", "letters"), REFUSED)
def test_turns_that_cannot_be_rendered_are_refused_by_role(name: str, letters: str) -> None:
    with pytest.raises(TemplateError, match=REFUSED[name, letters]):
        template(name).render(turns(letters))


def test_a_template_that_cannot_be_read_or_fails_on_contents_is_an_error() -> None:
    for source in ("{% for m in messages %}", "", "{{ nothing.at.all }}"):
        with pytest.raises(TemplateError, match="the chat template"):
            ChatTemplate(source).render(turns("u"))
    picky = EACH + "{% if 'no' in messages[0].content %}{{ raise_exception('not no') }}{% endif %}"
    with pytest.raises(TemplateError, match="refuses them: not no"):
        ChatTemplate(picky).render(turns("u", lambda n: "no"))


def test_exported_templates_render_the_same_in_transformers(tmp_path: Path) -> None:
    """For every template and conversation; what needs nothing stays as it is."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(write_base(tmp_path, ["words"]))
    compared, same = 0, set()
    for name, source in ALL.items():
        for letters in CONVERSATIONS:
            asked = turns(letters, lambda n: f" A {{{{ b }}}}\n{n}")
            try:
                text = ChatTemplate(source, tokenizer.special_tokens_map, DAY).render(asked)
            except TemplateError:
                continue
            tokenizer.chat_template = source
            write_adapted_template(tokenizer, [tuple(turn["role"] for turn in asked)], DAY)
            own = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            assert text == own, (name, letters)
            compared += 1
            if tokenizer.chat_template == source:
                same.add((name, letters))
    assert compared > 100
    assert {("EACH", "dsu"), ("KNOWN", "suau"), ("STRICT", "suau"), ("LEADING", "du")} <= same
    assert ("KNOWN", "du") not in same


def test_what_was_done_is_said_only_where_it_was_needed() -> None:
    said = template("STRICT").describe
    assert said([("system", "user")]) == []
    assert [line[:21] for line in said([("system", "developer", "user")])] == [
        "developer turns are r", "system turns at the b"
    ]  # fmt: skip
    assert "is told 2024-02-03" in template("DATED").describe([("user",)])[0]
    assert "blanks" in template("FOLDED").describe([("user",)])[0]
    assert "system turns more than once" in template("TWICE").describe([("system", "user")])[0]
    forgetful = EACH.replace("m.content }}", "m.content.split('</think>')[-1] }}")
    assert "thoughts" in ChatTemplate(forgetful).describe([("user", "assistant", "user")])[0]


@pytest.mark.parametrize("day", [DAY, datetime.date(2031, 12, 31)])
def test_a_date_is_written_in_any_form(day: datetime.date) -> None:
    forms = ["%d %b %Y", "%Y-%m-%d", "%B %-d, %Y", "%a %e %y", "%H:%M:%S", "%I%p", "%j", "%F %T"]
    source = "|".join(f"{{{{ strftime_now('{form}') }}}}" for form in forms) + EACH
    chat = ChatTemplate(source, {}, day)
    at_midnight = datetime.datetime.combine(day, datetime.time())
    expected = "|".join(at_midnight.strftime(form) for form in forms) + "<u:0>>"
    assert chat.render(turns("u")) == expected
    # Once it is written into the template, the day that it is rendered on does not matter.
    written = ChatTemplate(chat.build_exported([("user",)]), {}, datetime.date(1999, 1, 1))
    assert written.render(turns("u")) == expected


def test_the_default_of_several_templates_is_used() -> None:
    named = {"default": EACH, "tool_use": "x"}
    listed = [{"name": name, "template": text} for name, text in named.items()]
    assert (
        find_template_source(named)
        == find_template_source(listed)
        == find_template_source(EACH)
        == EACH
    )
    assert (
        find_template_source({"rag": "x"})
        is find_template_source("")
        is find_template_source(None)
        is None
    )


def test_a_job_has_the_day_that_it_says_or_was_created_on() -> None:
    noon = datetime.datetime(2025, 5, 6, 12)
    assert find_job_date({}, int(noon.timestamp())) == noon.date()
    assert find_job_date({"today": "2024-02-03"}, 0) == DAY
