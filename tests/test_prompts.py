"""The two renderings of each template, to the letter."""

from __future__ import annotations

from tuneoff import prompts
from tuneoff.config.contenders import Rendering
from tuneoff.config.schema import TaskConfig
from tuneoff.records import Example
from tuneoff.tasks.base import load_task

VIGGO_1 = (
    "Given a target sentence construct the underlying meaning representation of the input sentence "
    "as a single function with attributes and attribute values."
)
SQL_INSTRUCTION = (
    "You are a powerful text-to-SQL model. Your job is to answer questions about a database. You "
    "are given a question and context regarding one or more tables.\n\nYou must output the SQL "
    "query that answers the question."
)


def viggo(**settings: str) -> prompts.Template:
    task = TaskConfig(id="functional_representation", source="viggo", **settings)
    return load_task(task.id).template(task)


def sql(**settings: str) -> prompts.Template:
    task = TaskConfig(id="text_to_sql", source="spider-create-context", **settings)
    return load_task(task.id).template(task)


SENTENCE = Example("1", {"sentence": "Is {it} good?"}, "verify(name[it])")
QUESTION = Example(
    "1", {"question": "How many?", "context": "CREATE TABLE a (b INT)"}, "SELECT COUNT(*) FROM a"
)


def test_viggo_chat() -> None:
    system, user = prompts.render_messages(SENTENCE, viggo())
    assert system["role"] == "system"
    assert system["content"].startswith(VIGGO_1 + " This function should describe")
    assert system["content"].endswith("'has_mac_release', 'specifier']")
    assert "\n" not in system["content"]
    assert user == {"role": "user", "content": "Is {it} good?"}


def test_viggo_text() -> None:
    text = prompts.render_text(SENTENCE, viggo())
    lines = text.split("\n")
    assert lines[0] == VIGGO_1
    assert lines[1].startswith("This function should")
    assert lines[2].startswith("The attributes must be one of")
    assert lines[3:] == [
        "", "### Target sentence:", "Is {it} good?", "", "### Meaning representation:", "",
    ]  # fmt: skip


def test_sql_chat() -> None:
    assert prompts.render_messages(QUESTION, sql()) == [
        {
            "role": "system",
            "content": f"{SQL_INSTRUCTION}\n\n### Context:\nCREATE TABLE a (b INT)",
        },
        {"role": "user", "content": "How many?"},
    ]


def test_sql_text() -> None:
    assert prompts.render_text(QUESTION, sql()) == (
        f"{SQL_INSTRUCTION}\n\n### Input:\nHow many?\n\n### Context:\nCREATE TABLE a (b INT)\n\n"
        "### Response:\n"
    )


def test_a_schema_stands_before_the_question() -> None:
    text = prompts.render_text(QUESTION, sql(context="schema"))
    assert text.index("### Context:") < text.index("### Input:")


def test_short_drops_the_instruction_and_keeps_the_input() -> None:
    assert prompts.render_text(SENTENCE, viggo().drop_instruction()) == (
        "### Target sentence:\nIs {it} good?\n\n### Meaning representation:\n"
    )
    assert prompts.render_messages(SENTENCE, viggo().drop_instruction()) == [
        {"role": "user", "content": "Is {it} good?"}
    ]
    assert prompts.render_messages(QUESTION, sql().drop_instruction())[0]["content"].startswith(
        "### Context:\n"
    )


def test_shots_stand_between_instruction_and_input() -> None:
    shot = Example(
        "2", {"question": "All?", "context": "CREATE TABLE c (d INT)"}, "SELECT d FROM c"
    )
    turns = prompts.render_messages(QUESTION, sql(), [shot])
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[0]["content"] == SQL_INSTRUCTION
    assert turns[1]["content"] == "### Context:\nCREATE TABLE c (d INT)\n\nAll?"
    assert turns[2]["content"] == "SELECT d FROM c"
    text = prompts.render_text(QUESTION, sql(), [shot])
    assert text.count("### Response:") == 2
    assert text.index("SELECT d FROM c") < text.index("How many?")


def test_chat_data_is_passed_through() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    example = Example("1", {"messages": turns}, "Hello")
    assert prompts.render_messages(example, prompts.CHAT_PASS_THROUGH) == turns
    assert prompts.render_text(example, prompts.CHAT_PASS_THROUGH) == (
        "### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\n"
    )
    shot = Example("2", {"messages": [{"role": "user", "content": "Ho"}]}, "Hey")
    assert [
        t["content"] for t in prompts.render_messages(example, prompts.CHAT_PASS_THROUGH, [shot])
    ] == [
        "Be brief.",
        "Ho",
        "Hey",
        "Hi",
    ]


def test_content_hash_ignores_the_prompt_and_sees_the_content() -> None:
    other = Example("1", {"sentence": "Is it bad?"}, "verify(name[it])")
    assert prompts.hash_content([SENTENCE]) != prompts.hash_content([other])
    full = prompts.hash_prompts([SENTENCE], viggo(), "text")
    short = prompts.hash_prompts([SENTENCE], viggo().drop_instruction(), "text")
    assert full != short
    assert full != prompts.hash_prompts([SENTENCE], viggo(), "chat")


def test_a_conversation_is_passed_through_in_its_own_order() -> None:
    """Also where an instruction comes later, or comes again."""
    rule = {"role": "system", "content": "Be brief."}
    turns = [{"role": "user", "content": "Hi"}, rule, {"role": "user", "content": "So?"}, rule]
    example = Example("1", {"messages": turns}, "Hello")
    assert prompts.render_messages(example, prompts.CHAT_PASS_THROUGH) == turns
    shot = Example("2", {"messages": [{"role": "user", "content": "Ho"}]}, "Hey")
    shown = prompts.render_messages(example, prompts.CHAT_PASS_THROUGH, [shot])
    assert [turn["content"] for turn in shown] == [
        "Be brief.",
        "Ho",
        "Hey",
        "Hi",
        "So?",
        "Be brief.",
    ]


def asked(id: str, instruction: str, question: str, answer: str, role: str = "system") -> Example:
    """Chat data with an instruction of its own; none where it is empty."""
    turns = [{"role": role, "content": instruction}] if instruction else []
    return Example(id, {"messages": [*turns, {"role": "user", "content": question}]}, answer)


LOUD, BACK = "Answer in capitals.", "Answer backwards."


def test_a_shot_that_was_instructed_otherwise_says_so() -> None:
    shown = [
        asked("1", LOUD, "Oslo", "OSLO"),
        asked("2", BACK, "Lima", "amiL", role="developer"),
        asked("3", "", "Rome", "Rome"),
        Example("4", {"messages": [
            {"role": "system", "content": LOUD}, {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Bern"}, {"role": "developer", "content": "Be brief."},
        ]}, "BERN"),
    ]  # fmt: skip
    for role in ("system", "developer"):
        turns = prompts.render_messages(
            asked("5", BACK, "Kyiv", "viyK", role), prompts.CHAT_PASS_THROUGH, shown
        )
        assert [(turn["role"], turn["content"]) for turn in turns] == [
            (role, BACK),
            ("user", f"{LOUD}\n\nOslo"), ("assistant", "OSLO"),
            ("user", "Lima"), ("assistant", "amiL"),
            ("user", "Rome"), ("assistant", "Rome"),
            ("assistant", "Yes?"), ("user", f"{LOUD}\n\nBe brief.\n\nBern"),
            ("assistant", "BERN"),
            ("user", "Kyiv"),
        ]  # fmt: skip
    text = prompts.render_text(asked("6", "", "Kyiv", "Kyiv"), prompts.CHAT_PASS_THROUGH, shown[:1])
    assert text.startswith(f"### User:\n{LOUD}\n\nOslo\n\n### Assistant:\nOSLO\n\n### User:\nKyiv")


def test_where_all_are_instructed_alike_the_hash_of_prompts_stays() -> None:
    """As it was when a shot's own instruction was left out always."""
    later = {"role": "user", "content": "Bern"}
    first = asked("t", LOUD, "Rome", "ROME").inputs["messages"]
    test = [
        asked("t", LOUD, "Oslo", "OSLO"),
        Example("u", {"messages": [*first, {"role": "assistant", "content": "ROME"}, later]}, "B"),
    ]
    talk = asked("2", LOUD, "Kyiv", "KYIV").inputs["messages"]
    talk = [*talk, {"role": "assistant", "content": "KYIV"}, {"role": "user", "content": "Cairo"}]
    shots = [asked("1", LOUD, "Lima", "LIMA"), Example("2", {"messages": talk}, "CAIRO")]
    renderings: tuple[Rendering, ...] = ("chat", "text")
    hashes = [
        prompts.hash_prompts(test, prompts.CHAT_PASS_THROUGH, each, lambda _: shots)
        for each in renderings
    ]
    assert hashes == [
        "055cee01d3fe8f317b0d055319ceb6bcd273618fa34c8f438f4300f92d3a99ff",
        "21df54bd407e96800bfab0501b4669f5bf0eca918714db6dd75e5e6290b58526",
    ]
