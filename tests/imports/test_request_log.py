"""Request logs become training and test rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli

from tuneoff.imports import import_files, request_forms
from tuneoff.imports.log_fields import read_time
from tuneoff.imports.options import ImportOptions
from tuneoff.imports.request_forms import LeftOutError, read_conversation

MODEL = "ft:gpt-4.1-mini-2025-04-14:acme::abc"
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Peru?"}]
ANSWER = {"role": "assistant", "content": "Lima", "refusal": None, "tool_calls": None}
BODY = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1790000000, "model": MODEL,
    "choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}],
}  # fmt: skip
RESPONSE = {
    "object": "response", "created_at": 1790000000, "model": MODEL, "status": "completed",
    "incomplete_details": None, "error": None,
    "output": [
        {"type": "reasoning", "summary": []},
        {
            "type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "Lima", "annotations": []}],
        },
    ],
}  # fmt: skip
REQUEST = {"model": "gpt-4.1-mini", "messages": ASKED, "user": "u1"}
PARTS = [{"role": "user", "content": [{"type": "input_text", "text": "Peru?"}]}]

# Rows of each form, all of them the same conversation.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "stored": (
        "OpenAI's stored completions",
        {**BODY, "messages": [{**turn, "id": "m", "name": None} for turn in ASKED]},
    ),
    "stored with its answer": (
        "OpenAI's stored completions", {**BODY, "messages": [*ASKED, {**ANSWER, "id": "m"}]},
    ),
    "stored response": (
        "OpenAI's stored responses", {**RESPONSE, "instructions": "Be brief.", "input": PARTS},
    ),
    "pair": ("requests with responses", {"request": REQUEST, "response": BODY}),
    "pair with body": (
        "requests with responses",
        {"request": REQUEST, "response": {"status_code": 200, "body": json.dumps(BODY)}},
    ),
    "pair of the responses API": (
        "requests with responses",
        {"request": {"input": "Peru?", "instructions": "Be brief."}, "response": RESPONSE},
    ),
    "helicone": (
        "Helicone's requests",
        {"request_body": REQUEST, "response_body": BODY, "response_status": 200},
    ),
    "litellm": (
        "LiteLLM's log",
        {"messages": ASKED, "response": BODY, "status": "success", "model_parameters": {}},
    ),
    "openpipe": ("inputs with outputs", {"input": REQUEST, "output": BODY, "tags": {}}),
    "langfuse": (
        "inputs with outputs",
        {"input": json.dumps(ASKED), "output": json.dumps(ANSWER), "level": "DEFAULT"},
    ),
    "chat": ("chat rows", {"messages": [*ASKED, ANSWER]}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_form_gives_the_same_conversation(name: str) -> None:
    form, row = ROWS[name]
    assert request_forms.recognize_rows([row])
    found = read_conversation(row)
    assert found.form == form
    assert found.turns == [*ASKED, {"role": "assistant", "content": "Lima"}]


def test_times_models_and_ids_are_found_where_tools_write_them() -> None:
    helicone = read_conversation(
        {
            "request_body": {**REQUEST, "response_format": {"type": "json_object"}},
            "response_body": BODY, "request_created_at": "2026-11-02T03:04:05.5Z",
            "request_user_id": "u2", "request_properties": {"Helicone-Session-Id": "s1"},
        }
    )  # fmt: skip
    # 2026-11-02T00:00:00Z is day 20,759 since 1970: 56 years and 14 leap days, 305 days.
    assert helicone.seconds == 20_759 * 86_400 + 3 * 3600 + 4 * 60 + 5.5
    assert helicone.models == (MODEL, "gpt-4.1-mini")
    assert (helicone.user, helicone.conversation, helicone.had_format) == ("u2", "s1", True)
    litellm = read_conversation({**ROWS["litellm"][1], "startTime": 1790000000123, "end_user": "e"})
    assert (litellm.seconds, litellm.user) == (1790000000.123, "e")
    text = read_conversation({"prompt": "Peru?", "completion": "Lima", "time": 0.25})
    assert (text.turns[0]["content"], text.seconds, text.models) == ("Peru?", None, ())


@pytest.mark.parametrize(
    "text",
    ['{"name": "Ann"}', '{"content": "Ann"}', '["a", "b"]', '{"error": "none", "n": 1}', "[1]"],
)
def test_text_that_is_json_stays_a_text(text: str) -> None:
    for row in (
        {"input": text, "output": text},
        {"request": text, "response": text},
        {"messages": text, "response": text},
    ):
        conversation = read_conversation(row)
        assert [turn["content"] for turn in conversation.turns] == [text, text]


@pytest.mark.parametrize(
    "value",
    [0.25, True, 10**400, "nan", "1e400", "0001-01-01T00:00:00Z", "9999-12-31T23:00:00-14:00", "²"],
)
def test_what_is_no_time_of_a_log_is_no_time(value: Any) -> None:
    assert read_time(value) is None


def _answered(**changes: Any) -> dict[str, Any]:
    return {"request": REQUEST, "response": {**BODY, "choices": [changes]}}


LEFT_OUT = [
    (request_forms.FAILED, {"request": REQUEST, "response": {"error": {"message": "slow down"}}}),
    (request_forms.FAILED, {"request": REQUEST, "response": BODY, "status": 429}),
    (request_forms.FAILED, {"request": REQUEST, "response": BODY, "status_code": 500.0}),
    (request_forms.FAILED, {"input": "x", "output": '{"error": {"message": "slow down"}}'}),
    (request_forms.FAILED, {"messages": ASKED, "response": "", "status": "failure"}),
    (request_forms.NO_ANSWER, {"request": "x", "response": '{"object": "list", "data": []}'}),
    (request_forms.NO_ANSWER, {"request_body": REQUEST, "response_body": '{"candidates": []}'}),
    (request_forms.CUT_OFF, _answered(message=ANSWER, finish_reason="length")),
    (request_forms.CUT_OFF, {"input": "x", "output": "y", "finish_reason": "length"}),
    (request_forms.CUT_OFF, {"request": REQUEST, "response": {
        "role": "assistant", "content": "y", "stop_reason": "max_tokens"}}),
    (request_forms.FILTERED, _answered(message=ANSWER, finish_reason="content_filter")),
    (request_forms.CUT_OFF, {"request": {"input": "x"}, "response": RESPONSE | {
        "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}}),
    (request_forms.TOOLS, _answered(message={**ANSWER, "tool_calls": [{"id": "c"}]})),
    (request_forms.TOOLS, {"request": {**REQUEST, "tools": [{"a": 1}]}, "response": BODY}),
    (request_forms.TOOLS, {"messages": [*ASKED, {"role": "tool", "content": "1"}, ANSWER]}),
    (request_forms.REFUSED, _answered(message={**ANSWER, "content": None, "refusal": "No."})),
    (request_forms.MEDIA, {"messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER]}),
    (request_forms.NO_ANSWER, _answered(message={**ANSWER, "content": " \n"})),
    (request_forms.NO_ANSWER, {"messages": ASKED}),
    (request_forms.NO_PROMPT, BODY),
    (request_forms.CONTINUES, {**RESPONSE, "input": "And?", "previous_response_id": "resp_1"}),
    (request_forms.NO_USER, {"messages": [ASKED[0], ANSWER]}),
    (request_forms.NAMED, {"messages": [{**ASKED[1], "name": "ann"}, ANSWER]}),
    (request_forms.UNFIT, {"messages": [{"role": "user", "content": "\ud83d"}, ANSWER]}),
    (request_forms.UNKNOWN, {"instruction": "a", "input": "b", "output": "c"}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "row"), LEFT_OUT)
def test_what_cannot_be_trained_on_is_left_out_by_reason(reason: str, row: dict[str, Any]) -> None:
    with pytest.raises(LeftOutError) as raised:
        read_conversation(row)
    assert str(raised.value) == reason


# --- whole imports ----------------------------------------------------------------------------


def _row(hour: float | None, question: str, answer: str = "Yes.", **more: Any) -> dict[str, Any]:
    """A row of a log; hours are counted from 2026-09-21, 14:13:20."""
    times = {} if hour is None else {"timestamp": 1790000000 + hour * 3600}
    turns = more.pop("turns", [{"role": "user", "content": question}])
    choices = [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]
    response = {"model": more.pop("model", MODEL), "choices": choices}
    return {**times, "request": {"messages": turns}, "response": response, **more}


def _write(file: Path, rows: Iterable[Any]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


def count_rows(found: dict[str, Any]) -> int:
    """Whatever became of a row, it is counted once."""
    reasons = [*found["left_out"].values(), *found["unreadable"].values()]
    kept = found["split"]["train"] + found["split"]["test"] + found["older_than_limit"]
    return kept + sum(found["repeats"].values()) + sum(each["rows"] for each in reasons)


def _questions(file: Path) -> list[str]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row["messages"][-2]["content"] for row in rows]


def _import(tmp_path: Path, rows: Iterable[Any], **options: Any) -> tuple[dict[str, Any], Path]:
    out = tmp_path / "out"
    found, _ = import_files([_write(tmp_path / "log.jsonl", rows)], out, ImportOptions(**options))
    return found, out


def test_a_log_becomes_two_files_that_check_takes(cli: Cli, tmp_path: Path) -> None:
    rows: list[Any] = [_row(9 - hour, f"Question {hour}?") for hour in range(10)]
    rows += [_row(20, "Question 3?"), _row(-5, "Question 4?", "An old answer.")]
    rows += [b'{"request": ', b'{"a": "\xff"}', b"[1]", _row(1, "Cut?", status_code=500)]
    file = _write(tmp_path / "log.jsonl", rows)
    out = tmp_path / "out"
    command = ("import", file, "--out", out, "--test-share", 0.2, "--json")
    code, text, _ = cli(*command)
    assert code == 0
    found = json.loads(text)
    assert found["rows"] == 16
    assert found["rows"] == count_rows(found)
    assert found["repeats"] == {"exact": 1, "other_answers": 1}
    assert found["unreadable"] == {
        "not JSON": {"rows": 1, "first": f"{file}:13"},
        "not UTF-8": {"rows": 1, "first": f"{file}:14"},
        "not a JSON object": {"rows": 1, "first": f"{file}:15"},
    }
    assert found["left_out"] == {request_forms.FAILED: {"rows": 1, "first": f"{file}:16"}}
    # By time: 9, 8, … 0, but for 3, which was asked again at the end.
    assert _questions(out / "train.jsonl") == [f"Question {n}?" for n in (9, 8, 7, 6, 5, 4, 2, 1)]
    assert _questions(out / "test.jsonl") == ["Question 0?", "Question 3?"]
    assert found["split"]["train_to"] == "2026-09-21T22:13:20+00:00"
    assert found["split"]["test_from"] == "2026-09-21T23:13:20+00:00"
    assert sorted(path.name for path in out.iterdir()) == ["test.jsonl", "train.jsonl"]

    code, text, _ = cli("check", out / "train.jsonl")
    assert (code, "fine. 8 examples" in text) == (0, True)
    starter = out / "bakeoff.yaml"
    assert cli("init", out / "train.jsonl", "--test", out / "test.jsonl", "--out", starter)[0] == 0
    assert "  test: test.jsonl\n" in starter.read_text()

    before = (out / "train.jsonl").read_bytes()
    assert cli(*command)[0] == 0
    code, _, err = cli("import", file, "--out", out)
    assert (code, "give another folder with --out" in err) == (2, True)
    assert (out / "train.jsonl").read_bytes() == before
    assert not (out / ".import").exists()


def test_what_is_in_train_is_not_in_test(tmp_path: Path) -> None:
    def talk(*texts: str) -> list[dict[str, str]]:
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]

    shots = talk("1 + 1?", "2")
    rows = [
        *(_row(hour, f"Old {hour}?") for hour in range(10)),
        _row(10, "Where is it?", "Here."),
        _row(11, "", turns=[*shots, *talk("2 + 2?")]),
        _row(12, "Session?", conversation_id="c1"),
        # Newer: near an old prompt; the next turn of an old conversation, by its turns and by its
        # id; and examples shown in every prompt, which make no conversation.
        _row(20, "old 3 ?"),
        _row(21, "", turns=talk("Where is it?", "Here.", "And now?")),
        _row(22, "Another?", conversation_id="c1"),
        _row(23, "", turns=[*shots, *talk("3 + 3?")]),
    ]
    found, out = _import(tmp_path, rows, test_share=4 / 17)
    assert (found["split"]["moved_to_train"], found["split"]["test"]) == (3, 1)
    assert _questions(out / "test.jsonl") == ["3 + 3?"]
    row = json.loads((out / "test.jsonl").read_text())
    assert [turn.get("weight") for turn in row["messages"]] == [None, 0, None, None]


def test_rows_without_a_time(tmp_path: Path) -> None:
    mixed = [_row(None, "A?"), _row(1, "B?"), _row(None, "C?"), _row(2, "D?")]
    found, out = _import(tmp_path, mixed, test_share=0.5)
    assert (found["split"]["by"], found["split"]["without_time"]) == ("time", 2)
    assert _questions(out / "train.jsonl") == ["A?", "C?"]
    (tmp_path / "none").mkdir()
    found, out = _import(tmp_path / "none", [_row(None, text) for text in "ABCDEFGHIJ"])
    assert (found["split"]["by"], found["split"]["test_from"]) == ("order", None)
    assert _questions(out / "test.jsonl") == ["J"]


def test_a_large_share_leaves_a_row_to_train_on(tmp_path: Path) -> None:
    found, _ = _import(tmp_path, [_row(hour, f"Q{hour}?") for hour in range(3)], test_share=0.99)
    assert (found["split"]["train"], found["split"]["test"]) == (1, 2)


def test_options_choose_rows(cli: Cli, tmp_path: Path) -> None:
    rows = [_row(hour, f"Q{hour}?", model=("a", "b")[hour % 2]) for hour in range(12)]
    rows.append(_row(13, "Q1?", "No.", model="b"))
    packed = tmp_path / "logs" / "log.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(_write(tmp_path / "x", rows).read_bytes()))
    # Of b: 1, 3, … 11 and 1 again; the newest five; those from 2026-09-22 on are at 11 and 13.
    code, text, _ = cli(
        "import", packed.parent, "--out", tmp_path / "out", "--model", "b", "--limit", 5,
        "--repeats", "all", "--test-from", "2026-09-22T01:00:00", "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(text)
    assert found["rows"] == count_rows(found)
    assert (found["models"], found["older_than_limit"]) == ({"a": 6, "b": 7}, 2)
    assert _questions(tmp_path / "out" / "train.jsonl") == ["Q5?", "Q7?", "Q9?"]
    assert _questions(tmp_path / "out" / "test.jsonl") == ["Q11?", "Q1?"]


def test_personal_data_is_pointed_out_and_replaced_only_if_asked(tmp_path: Path) -> None:
    rows = [
        _row(0, "Hello?", user="ann@mail.com"),
        _row(1, "Write to ann@mail.com or bob@mail.com.", "I call +49 30 1234567."),
    ]
    found, out = _import(tmp_path, rows, test_share=0)
    log = tmp_path / "log.jsonl"
    assert found["personal_data"]["email"] == {
        "found": 3, "rows": 2, "first": [
            {"line": "train.jsonl:1", "source": f"{log}:1", "value": "an…om"},
            {"line": "train.jsonl:2", "source": f"{log}:2", "value": "an…om"},
        ],
    }  # fmt: skip
    assert "ann@mail.com" in (out / "train.jsonl").read_text()
    (tmp_path / "redacted").mkdir()
    found, out = _import(tmp_path / "redacted", rows, test_share=0, redact=("email",))
    assert found["personal_data"]["email"]["found"] == 3
    assert [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()] == [
        {"messages": [
            {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]},
        {"messages": [
            {"role": "user", "content": "Write to [EMAIL] or [EMAIL]."},
            {"role": "assistant", "content": "I call +49 30 1234567."}]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([{"a": 1}], (), "the form of its rows is not known (the first one's keys: a)"),
        ([b"{", b"x"], (), "there is no row that can be read"),
        ([BODY], (), "put them into its row as `messages`"),
        ([_row(0, "x", status=500)], (), "none of 1 rows became a training row"),
        ([_row(0, "x")], ("--model", "gpt-5"), f"there are: {MODEL} (1)"),
        ([_row(None, "x")], ("--test-from", "2026-11-01"), "no row of the log has a time"),
        ([_row(0, "x")], ("--redact", "mail"), "unknown kind 'mail' (allowed: card, email"),
        ([_row(0, "x")], ("--test-share", "1"), "it must be from 0 to below 1"),
        ([_row(0, "x")], ("--repeats", "first"), "(allowed: all, latest"),
        ([_row(0, "x")], ("--reference", "ideal"), "--reference: it does nothing for request logs"),
        ([_row(0, "x")], ("--out", "."), "is read from there; give another folder"),
    ],
)
def test_one_sentence_says_why_nothing_was_imported(
    rows: list[Any], options: tuple[str, ...], sentence: str, cli: Cli, tmp_path: Path
) -> None:
    file = _write(tmp_path / "log.jsonl", rows)
    options = tuple(str(tmp_path) if option == "." else option for option in options)
    code, _, err = cli("import", file, "--out", tmp_path / "out", *options)
    assert code == 2
    assert err.startswith("error: ")
    assert sentence in err
    assert not (tmp_path / "out").exists()
