"""One table of training rows, held against every reader of them: all take and refuse the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneoff.bakeoff import prepare
from tuneoff.bakeoff.check import check_file
from tuneoff.bakeoff.starter import write_starter
from tuneoff.config.base import Columns
from tuneoff.config.contenders import HostedConfig
from tuneoff.config.load import load
from tuneoff.config.schema import TaskConfig
from tuneoff.contenders import fine_tuning_job
from tuneoff.contenders.base import ContenderContext
from tuneoff.errors import DataError
from tuneoff.progress import SilentProgress
from tuneoff.prompts import (
    CHAT_PASS_THROUGH,
    hash_content,
    hash_prompts,
    render_conversation,
    render_messages,
    render_text,
)
from tuneoff.records import Example
from tuneoff.storage.run_dir import NULL_DIR, ContenderDir, RunDir
from tuneoff.tasks import chat, splits
from tuneoff.tasks.base import DataPaths
from tuneoff.tasks.training_rows import LONE_SURROGATE, find_fault, render_line

HALF = "\ud83d"
USER, ASKED = {"role": "user", "content": "Oslo?"}, {"role": "user", "content": "And Rome?"}
SYSTEM = {"role": "system", "content": "Answer in capitals."}
ANSWER = {"role": "assistant", "content": "OSLO"}
LEFT_OUT = {**ANSWER, "weight": 0}
LAST = {"role": "assistant", "content": "ROME"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def row(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(turns), **more}


def last(**more: Any) -> dict[str, Any]:
    return row(USER, {**ANSWER, **more})


def user(**more: Any) -> dict[str, Any]:
    return row({**USER, **more}, ANSWER)


# What is wrong with a row, or the turns that a hosted model learns of it.
Expected = str | list[dict[str, Any]]
PLAIN: Expected = [USER, ANSWER]
ONLY_LAST = "only the last assistant turn can be learned here; give the others weight: 0"
TABLE: dict[str, tuple[Any, Expected]] = {
    "an answer": (row(USER, ANSWER), PLAIN),
    "its own id and meta": (row(USER, ANSWER, id="mine", meta={"level": [1, {"a": "b"}]}), PLAIN),
    "a number as id": (row(USER, ANSWER, id=7), PLAIN),
    "no id and no meta": (row(USER, ANSWER, id=None, meta=None), PLAIN),
    "a developer's turn": (row({**SYSTEM, "role": "developer"}, USER, ANSWER),
                           [{**SYSTEM, "role": "developer"}, USER, ANSWER]),
    "blanks around an answer": (last(content="\n OSLO\n"),
                                [USER, {**ANSWER, "content": "\n OSLO\n"}]),
    "a whole pair": (last(content="\U0001f600"), [USER, {**ANSWER, "content": "\U0001f600"}]),
    # Weights.
    "weight 1 of the answer": (last(weight=1), PLAIN),
    "weight 1.0, as Parquet has it": (last(weight=1.0), PLAIN),
    "no weight, as Parquet has it": (row({**USER, "weight": None}, {**ANSWER, "weight": None}),
                                     PLAIN),
    "an earlier answer of weight 0": (row(SYSTEM, USER, LEFT_OUT, ASKED, LAST),
                                      [SYSTEM, USER, LEFT_OUT, ASKED, LAST]),
    "weight 0.0 is 0": (row(USER, {**ANSWER, "weight": 0.0}, ASKED, {**LAST, "weight": 1}),
                        [USER, LEFT_OUT, ASKED, LAST]),
    "an earlier answer without a weight": (row(USER, ANSWER, ASKED, LAST), ONLY_LAST),
    "an earlier answer of weight 1": (row(USER, {**ANSWER, "weight": 1}, ASKED, LAST), ONLY_LAST),
    "the second earlier answer": (row(USER, LEFT_OUT, ASKED, ANSWER, USER, LAST),
                                  f"messages.3 would be learned: {ONLY_LAST}"),
    "two answers in a row": (row(USER, ANSWER, LAST), ONLY_LAST),
    "an answer before any question": (row(ANSWER, USER, LAST), ONLY_LAST),
    "weight 0 of the answer": (last(weight=0), "messages.1.weight is 0"),
    "weight 0.0 of the answer": (last(weight=0.0), "messages.1.weight is 0"),
    "weight false": (last(weight=False), "messages.1.weight is False; it must be 0 or 1"),
    "weight true": (last(weight=True), "messages.1.weight is True; it must be 0 or 1"),
    "weight as text": (row(USER, {**ANSWER, "weight": "0"}, ASKED, LAST),
                       "messages.1.weight is '0'; it must be 0 or 1"),
    "half a weight": (last(weight=0.5), "messages.1.weight is 0.5; it must be 0 or 1"),
    "a weight of two": (last(weight=2), "messages.1.weight is 2; it must be 0 or 1"),
    "a list of weights": (last(weight=[0]), "messages.1.weight is [0]; it must be 0 or 1"),
    "a user's weight": (user(weight=0), "messages.0.weight: only the assistant's turns have one"),
    "a row's weight": (row(USER, ANSWER, weight=0), "weight is not supported"),
    # What would be dropped.
    "tools": (row(USER, ANSWER, tools=[TOOL]), "tools is not supported"),
    "functions": (row(USER, ANSWER, functions=[{"name": "find"}]), "functions is not supported"),
    "a form of answers": (row(USER, ANSWER, response_format={"type": "json_object"}),
                          "response_format is not supported"),
    "a system text beside the turns": (row(USER, ANSWER, system="Shout."),
                                       "system is not supported"),
    "no tools": (row(USER, {**ANSWER, "tool_calls": [], "refusal": None}, tools=[],
                     functions=None, parallel_tool_calls=False), PLAIN),
    "other columns of a table": (row(USER, ANSWER, category="capitals", prompt="Oslo?"), PLAIN),
    "a call in the answer": (last(tool_calls=[CALL]), "messages.1.tool_calls is not supported"),
    "a call of a function": (last(function_call={"name": "find"}),
                             "messages.1.function_call is not supported"),
    "a call in between": (row(USER, {**LEFT_OUT, "tool_calls": [CALL]}, ASKED, LAST),
                          "messages.1.tool_calls is not supported"),
    "a call without a text": (row(USER, {"role": "assistant", "content": None,
                                         "tool_calls": [CALL]}), "messages.1.tool_calls"),
    "what a tool said": (row(USER, {"role": "tool", "content": "x", "tool_call_id": "c1"}, ANSWER),
                         "messages.1.role is 'tool'"),
    "what a function said": (row(USER, {"role": "function", "content": "x"}, ANSWER),
                             "messages.1.role is 'function'"),
    "an id of a call": (user(tool_call_id="c1"), "messages.0.tool_call_id is not supported"),
    "a name": (user(name="ann"), "messages.0.name is not supported"),
    "the assistant's name": (last(name="bot"), "messages.1.name is not supported"),
    "a refusal": (last(refusal="No."), "messages.1.refusal is not supported"),
    "a sound": (last(audio={"id": "a1"}), "messages.1.audio is not supported"),
    "a thought": (last(reasoning_content="Hm."), "messages.1.reasoning_content is not supported"),
    "a number 0": (last(index=0), "messages.1.index is not supported"),
    "contents in parts": (user(content=[{"type": "text", "text": "Oslo?"}]),
                          "messages.0.content must be a text, got a list"),
    "a meta that is none": (row(USER, ANSWER, meta="capitals"), "meta must be an object"),
    "an id that is none": (row(USER, ANSWER, id=["a"]), "id must be a text or a whole number"),
    # Turns that are none.
    "no turns": (row(), "messages is empty"),
    "no answer": (row(USER), "the last message is 'user'"),
    "an empty answer": (last(content=" \n"), "messages.1.content: the assistant's answer is empty"),
    "nobody asked": (row(SYSTEM, ANSWER), "there is no message of a user"),
    "a turn that is a text": (row("Oslo?", ANSWER), "messages.0 must be an object"),
    "a turn of nobody": (row({"content": "Oslo?"}, ANSWER), "messages.0.role is missing"),
    "a turn of a robot": (user(role="robot"), "messages.0.role is 'robot'"),
    "a role that is a list": (user(role=["user"]), "messages.0.role is ['user']"),
    "a turn of nothing": (user(content=None), "messages.0.content must be a text, got nothing"),
    "messages that are a text": (row() | {"messages": "Oslo?"}, 'it has no list "messages"'),
    # Half a surrogate pair.
    "half in a question": (user(content=f"Oslo {HALF}?"), f"{LONE_SURROGATE} (messages.0.content)"),
    "half in an answer": (last(content=f"{HALF}\U0001f600"),
                         f"{LONE_SURROGATE} (messages.1.content)"),
    "half in an id": (row(USER, ANSWER, id=f"a{HALF}"), f"{LONE_SURROGATE} (id)"),
    "half in meta": (row(USER, ANSWER, meta={"a": [1, {"b": "\udc00"}]}),
                     f"{LONE_SURROGATE} (meta.a.1.b)"),
    "half in a key": (row(USER, ANSWER, meta={HALF: 1}), f"{LONE_SURROGATE} (the key '\\ud83d')"),
    "half in what nobody reads": (row(USER, ANSWER, other=[HALF]), f"{LONE_SURROGATE} (other.0)"),
    "halves the wrong way round": (user(content="\ude00\ud83d"), f"{LONE_SURROGATE} (messages.0"),
}  # fmt: skip
GOOD = [row({"role": "user", "content": f"Say {n}"}, ANSWER) for n in range(24)]
AT = 5  # the line of the row that is looked at
FILES = ", train: d.jsonl, validation: v.jsonl, test: t.jsonl"
BAKEOFF = f"""\
name: rows
task: {{id: chat{FILES}}}
contenders: [{{name: tuned, id: hosted, model: m, base_url: "http://127.0.0.1:9/v1"}}]
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes files with a row among good ones: a training file with the two others, a bake-off."""

    def write(given: Any) -> Path:
        rows = [*GOOD[: AT - 1], given, *GOOD[AT - 1 : -2]]
        file = tmp_path / "d.jsonl"
        file.write_text("".join(json.dumps(each) + "\n" for each in rows))
        for name, each in (("v", GOOD[-2]), ("t", GOOD[-1])):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps(each) + "\n")
        (tmp_path / "b.yaml").write_text(BAKEOFF)
        return file

    return write


def work(train: list[Example], directory: ContenderDir = NULL_DIR) -> ContenderContext:
    return ContenderContext(
        folder=Path(), train=train, validation=[], test=[], template=CHAT_PASS_THROUGH,
        prompt="full", max_new_tokens=8, directory=directory, progress=SilentProgress(),
    )  # fmt: skip


TUNED = HostedConfig(name="tuned", id="hosted", model="m", base_url="http://127.0.0.1:9/v1")


def uploaded(train: list[Example], directory: ContenderDir = NULL_DIR) -> list[Any]:
    """What a hosted job would be sent."""
    _, sent = fine_tuning_job.build_training_files(TUNED, work(train, directory))["training_file"]
    return [json.loads(line) for line in sent.splitlines()]


@pytest.mark.parametrize("name", TABLE)
def test_every_reader_takes_and_refuses_the_same_rows(
    written: Callable[[Any], Path], tmp_path: Path, name: str
) -> None:
    given, expected = TABLE[name]
    file = written(given)
    pytest.importorskip("fastapi")
    from tuneoff.server.errors import ApiError
    from tuneoff.server.uploads import TrainingFileValidator

    def as_a_server() -> int:
        check = TrainingFileValidator()
        check.feed(file.read_bytes())
        check.finish()
        return check.examples

    settings = TaskConfig(id="chat", train="d.jsonl", validation="v.jsonl", test="t.jsonl")
    readers: list[Callable[[], Any]] = [
        lambda: check_file(file)["examples"],
        lambda: write_starter(file, tmp_path / "new.yaml")["examples"],
        lambda: check_file(tmp_path / "b.yaml")["split_sizes"]["train"],
        lambda: len(chat.load(settings, DataPaths(tmp_path))["train"]),
        as_a_server,
    ]
    if isinstance(expected, list):
        assert [read() for read in readers] == [len(GOOD) - 1] * len(readers)
        sent = uploaded(chat.read_examples(file))
        assert sent[AT - 1] == {"messages": expected}
        assert [find_fault(each) for each in sent] == [None] * len(sent)
        return
    fault = find_fault(given)
    assert fault is not None
    assert expected in fault
    for read in readers:
        with pytest.raises((DataError, ApiError)) as refused:
            read()
        where = f"Line {AT}" if refused.type is ApiError else f"{file.name}:{AT}"
        assert f"{where}: {fault}." in str(refused.value)
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    "name",
    ["an earlier answer without a weight", "what a tool said", "a name", "contents in parts"],
)
def test_a_task_of_ones_own_uploads_no_other_rows(name: str) -> None:
    given, expected = TABLE[name]
    *before, answer = given["messages"]
    made = [Example(str(n), {"messages": before}, answer["content"]) for n in range(12)]
    with pytest.raises(DataError) as refused:
        uploaded(made)
    assert str(expected) in str(refused.value)
    assert "line 1 (example '0')" in str(refused.value)


def test_what_was_stored_by_earlier_rules_is_still_read(tmp_path: Path) -> None:
    """A server's upload, and a hosted job that is under way: neither is refused afterwards."""
    old = row(USER, ANSWER, {"role": "tool", "tool_call_id": "c", "content": "x"}, ASKED, LAST)
    file = tmp_path / "file-1.jsonl"
    file.write_text(f"{json.dumps(old)}\n" * 12)
    examples = list(chat.read_stored_examples(file))
    assert examples[0].completion == "ROME"
    assert [turn["role"] for turn in examples[0].inputs["messages"]] == [
        "user", "assistant", "tool", "user",
    ]  # fmt: skip
    directory = ContenderDir(tmp_path / "tuned")
    with pytest.raises(DataError, match=r"messages\.2\.role is 'tool'"):
        uploaded(examples, directory)
    directory.write_job({"job_id": "ftjob-1"})
    turns = [*examples[0].inputs["messages"], LAST]
    assert uploaded(examples, directory)[0] == {"messages": turns}


def test_a_weight_is_no_content() -> None:
    turns = [SYSTEM, USER, LEFT_OUT, ASKED]
    weighted = Example("1", {"messages": turns}, "ROME")
    plain = replace(weighted, inputs={"messages": [SYSTEM, USER, ANSWER, ASKED]})
    assert render_messages(weighted, CHAT_PASS_THROUGH) == plain.inputs["messages"]
    assert render_conversation(weighted, CHAT_PASS_THROUGH) == [*turns, LAST]
    assert render_text(weighted, CHAT_PASS_THROUGH) == render_text(plain, CHAT_PASS_THROUGH)
    for rendering in ("chat", "text"):
        hashes = {hash_prompts([e], CHAT_PASS_THROUGH, rendering) for e in (weighted, plain)}  # type: ignore[arg-type]
        assert len(hashes) == 1
    assert hash_content([weighted]) == hash_content([plain])
    assert splits.build_input_key(weighted) == splits.build_input_key(plain)
    shown = render_messages(plain, CHAT_PASS_THROUGH, [weighted])
    assert all("weight" not in turn for turn in shown)


def test_an_old_run_keeps_its_own_examples(tmp_path: Path) -> None:
    """Its answers were stored without the blanks around them, its turns without weights."""
    stored = {
        "id": "d-1", "inputs": {"messages": [USER, ANSWER, ASKED]}, "completion": "ROME",
        "meta": {}, "messages": [USER, ANSWER, ASKED],
        "sha256": "7d0e",
    }  # fmt: skip
    run = RunDir(tmp_path)
    run.write_examples("test", [stored])
    found = run.examples("test")
    assert found == [Example("d-1", {"messages": [USER, ANSWER, ASKED]}, "ROME")]
    assert hash_content(found) == (
        "2e916a94de3d880cfb38682e6ff0a8dd896eaea5dd73ef19ec2e3c74fea24a75"
    )
    assert render_line(render_conversation(found[0], CHAT_PASS_THROUGH)) == (
        '{"messages": [{"role": "user", "content": "Oslo?"}, {"role": "assistant", "content": '
        '"OSLO"}, {"role": "user", "content": "And Rome?"}, {"role": "assistant", "content": '
        '"ROME"}]}\n'
    )


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize("torn", ["prompt", "completion", "system", "key", "nobody's"])
def test_half_a_pair_in_a_column_is_refused_with_its_line(
    tmp_path: Path, suffix: str, torn: str
) -> None:
    file, columns = tmp_path / f"d.{suffix}", Columns(system="system", id="key")
    rows = [{"prompt": f"q{n}", "completion": "a", "system": "s", "key": f"k{n}", "nobody's": "x"}
            for n in range(3)]  # fmt: skip
    rows[1][torn] += HALF
    text = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    file.write_text(text)
    with pytest.raises(DataError, match=LONE_SURROGATE) as refused:
        chat.read_examples(file, columns)
    assert str(refused.value).startswith((f"{file}:2: ", f"{file}, row 2: "))


def test_half_a_pair_of_ones_own_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from tuneoff.prompts import Template\nfrom tuneoff.records import Example\n"
        "SCORER, SOURCES, MAX_NEW_TOKENS, CLUSTER = 'text', (), 5, None\n"
        "def load(settings, place):\n"
        "    rows = [Example(str(n), {'x': f'q{n}'}, 'a', {'m': ['\\ud83d' * (n == 8)]}) "
        "for n in range(9)]\n"
        "    return {'train': rows[:3], 'validation': rows[3:6], 'test': rows[6:]}\n"
        "def template(settings): return Template('', '', '', '{x}', '{x}\\n')\n"
        "def databases(settings, place, into): return None\n"
    )
    file = tmp_path / "b.yaml"
    file.write_text(BAKEOFF.replace("id: chat", "id: ./mine.py").replace(FILES, ""))
    for read in (
        lambda: check_file(file),
        lambda: prepare.load_examples(prepare.resolve(load(file))),
    ):
        with pytest.raises(DataError) as refused:
            read()
        assert f"split test: example '8': {LONE_SURROGATE} (meta.m.0)" in str(refused.value)


@pytest.mark.parametrize(
    "row",
    [
        '{"messages": [{"role": "user", "content": "a", "content": "b"}, ANSWER]}',
        '{"messages": [{"role": "user", "content": "a"}, ANSWER], "extra": NaN}',
        '{"messages": [{"role": "user", "content": "a"}, ANSWER], "x": %s}'
        % ("[" * 150 + "]" * 150),
    ],
)
def test_what_is_no_row_as_json_is_refused_at_upload_too(tmp_path: Path, row: str) -> None:
    from tuneoff.server.errors import ApiError
    from tuneoff.server.uploads import TrainingFileValidator

    answer, deep = '{"role": "assistant", "content": "c"}', "[" * 150 + "]" * 150
    line = row.replace("ANSWER", answer).replace("DEEP", deep) + "\n"
    file = tmp_path / "d.jsonl"
    file.write_text(line)
    with pytest.raises(DataError):
        chat.read_examples(file)
    with pytest.raises(ApiError):
        TrainingFileValidator().feed(line.encode())
    # An earlier version stored it, and it stays what it was.
    assert [example.completion for example in chat.read_stored_examples(file)] == ["c"]
