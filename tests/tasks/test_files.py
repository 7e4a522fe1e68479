"""Files as people have them: what `check` says of one, it says of a bake-off with it, and so does
`init`; what is read is what is in the file, or one sentence says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Cli

from tuneoff.bakeoff.check import check_file
from tuneoff.bakeoff.starter import write_starter
from tuneoff.config.base import Columns
from tuneoff.config.load import load, parse
from tuneoff.errors import DataError, RunDirectoryError
from tuneoff.storage.resume import dump_resolved, open_run_dir, save_config
from tuneoff.tasks import chat
from tuneoff.tasks.base import DataPaths
from tuneoff.tasks.columns import find_columns
from tuneoff.tasks.readers import MAX_NESTING, read_records
from tuneoff.tasks.streaming import open_stream

Make = bytes | Callable[[Path], None]
PLAIN = [{"prompt": f"word {i}", "completion": f"Wort {i}"} for i in range(30)]


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(delimiter: str, rows: list[tuple[str, ...]], end: str = "\n") -> str:
    return "".join(delimiter.join(row) + end for row in rows)


def parquet(**columns: list[Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), path)

    return write


def twice_named(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    names = ["prompt", "answer", "answer"]
    columns = [pyarrow.array([f"{name} {i}" for i in range(30)]) for name in names]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), path)


def damaged(path: Path) -> None:
    parquet(prompt=[f"q {i}" for i in range(900)], answer=[f"a {i}" for i in range(900)])(path)
    content = bytearray(path.read_bytes())
    content[20:400] = b"\xff" * 380
    path.write_bytes(content)


def no_utf8(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.array([b"fine"] * 25 + [b"caf\xe9"] + [b"fine"] * 4, pyarrow.binary())
    made = pyarrow.table({"prompt": texts.cast(pyarrow.string(), safe=False), "answer": ["a"] * 30})
    pyarrow.parquet.write_table(made, path)


MANY = jsonl(PLAIN)
NUMBERED = [(f"q {i}", f"a {i}") for i in range(30)]
DEEP = "[" * 50_000
# (name, content, what the refusal holds): what cannot be used is one sentence.
REFUSED: dict[str, tuple[str, Make, tuple[str, ...]]] = {
    "a name twice": ("d.csv", b"prompt,answer,answer\nq,a,b\n", ("d.csv:1", "'answer'", "rename")),
    "a name twice but for blanks": ("d.csv", b"prompt,answer, answer \nq,a,b\n", ("'answer'",)),
    "a name twice after a mark": (
        "d.tsv", "\ufeffanswer\tprompt\tanswer\n1\t2\t3\n".encode(), ("two columns are named",),
    ),
    "a name twice in Parquet": ("d.parquet", twice_named, ("two columns are named 'answer'",)),
    "a key twice": (
        "d.jsonl", (MANY + '{"prompt": "a", "completion": "b", "prompt": "c"}\n').encode(),
        ("d.jsonl:31", "'prompt' is there twice"),
    ),
    "a key twice within": (
        "d.json", b'[{"prompt": "a", "completion": "b", "meta": {"x": 1, "x": 2}}]',
        ("'x' is there twice",),
    ),
    "names that differ in case": (
        "d.jsonl", b'{"prompt": "a", "Answer": "b", "answer": "c"}\n', ("'Answer' and 'answer'",),
    ),
    "an id twice": (
        "d.jsonl",
        jsonl([{"messages": [{"role": "user", "content": f"q{i}"},
                             {"role": "assistant", "content": "a"}], "id": f"{i % 29}"}
               for i in range(30)]).encode(),
        ("'0' is there twice", "d.jsonl:1 and ", "d.jsonl:30"),
    ),
    "a null answer": (
        "d.jsonl", (MANY + '{"prompt": "q", "completion": null}\n').encode(),
        ("d.jsonl:31: 'completion' is null",),
    ),
    "a null in Parquet": (
        "d.parquet", parquet(prompt=["q"] * 30, answer=["a"] * 28 + [None, "a"]),
        ("d.parquet, row 29", "'answer' is null"),
    ),
    "a NaN in Parquet": (
        "d.parquet", parquet(prompt=["q"] * 3, answer=[float("nan")] * 3), ("row 1", "null"),
    ),
    "an input that is a number": (
        "d.jsonl", b'{"instruction": "Double it.", "input": 5, "output": "10"}\n',
        ("task.columns.prompt: 'input' must be text, got int",),
    ),
    "an empty cell": ("d.csv", b"prompt,answer\nq,a\nq,\n", ("d.csv:3", "'answer' is empty")),
    "a record too short after one of three lines": (
        "d.csv", b'prompt,answer\n"one\ntwo\nthree",a\nq\n', ("d.csv:5", "not as many fields"),
    ),
    "a quote that is never closed": (
        "d.csv", b'prompt,answer\nq,a\n"q,a\nq,a\n', ("d.csv:3", "not CSV", "written twice"),
    ),
    "the header once more": (
        "d.csv", b"prompt,answer\nq,a\nprompt,answer\n", ("d.csv:3", "once more"),
    ),
    "one column": ("d.csv", b"prompt\nq\n", ("no column looks like an answer",)),
    "nested deeply": (
        "d.jsonl", (MANY + '{"prompt": ' + DEEP + "\n").encode(), ("d.jsonl:31", "levels deep"),
    ),
    "nested a little too deeply": (
        "d.json",
        ('[{"prompt": "q", "completion": "a", "meta": '
         + "[" * MAX_NESTING + "]" * MAX_NESTING + "}]").encode(),
        ("levels deep",),
    ),
    "a huge number": (
        "d.jsonl", (MANY + '{"prompt": %s}\n' % ("1" * 9999)).encode(), ("d.jsonl:31", "digits"),
    ),
    "not a number": (
        "d.jsonl", (MANY + '{"prompt": "q", "completion": NaN}\n').encode(), ("NaN", "null"),
    ),
    "infinity": ("d.json", b'[{"prompt": "q", "n": -Infinity}]', ("-Infinity is not JSON",)),
    "half a pair": (
        "d.jsonl", (MANY + '{"prompt": "\\uD83D", "completion": "a"}\n').encode(),
        ("d.jsonl:31: half a surrogate pair is no text",),
    ),
    "cut JSONL": ("d.jsonl", (MANY + '{"prompt": "q').encode(), ("d.jsonl:31", "not JSON")),
    "cut JSON": ("d.json", json.dumps(PLAIN)[:-9].encode(), ("d.json:1", "not JSON")),
    "JSONL that is called JSON": ("d.json", MANY.encode(), ("d.json:2", ".jsonl")),
    "damaged Parquet": ("d.parquet", damaged, ("d.parquet", "damaged")),
    "cut Parquet": ("d.parquet", b"PAR1" + b"x" * 50, ("d.parquet", "not Parquet")),
    "Parquet in Latin-1": ("d.parquet", no_utf8, ("row 26", "not UTF-8")),
    "packed": ("d.jsonl.gz", b"\x1f\x8b\x08\x00rest", ("'.gz'", "unpack it")),
    "packed but not called so": ("d.csv", b"\x1f\x8b\x08\x00rest", ("gzip", "unpack it")),
    "a folder": ("d.jsonl", Path.mkdir, ("this is a folder",)),
    "UTF-16 without a mark": (
        "d.csv", table(",", [("prompt", "answer"), *NUMBERED]).encode("utf-16-le"),
        ("d.csv:1", "NUL", "utf-16-le"),
    ),
    "UTF-16 that is cut": (
        "d.jsonl", MANY.encode("utf-16") + b"\x00", ("d.jsonl:31: this line is not utf-16",),
    ),
    "half a pair in UTF-16": (
        "d.jsonl", (MANY + '{"prompt": "').encode("utf-16") + b"\x3d\xd8q\0\n\0",
        ("d.jsonl:31: this line is not utf-16",),
    ),
    "neither UTF-8 nor cp1252": (
        "d.jsonl", MANY.encode() + b'{"prompt": "\x81", "completion": "a"}\n',
        ("d.jsonl:31", "neither", "task.columns.encoding"),
    ),
}  # fmt: skip

UMLAUTS = [{"prompt": f"{i} größer", "completion": "Café"} for i in range(200)]
LATIN = jsonl(PLAIN).encode() + '{"prompt": "größer", "completion": "Café"}\n'.encode("cp1252")
# (name, content, prompt and answer of the last example, what a warning holds or None)
READ: dict[str, tuple[str, Make, tuple[str, str], str | None]] = {
    "instruction and input": (
        "d.jsonl",
        jsonl([*({"input": "", "instruction": f"Say {i}.", "output": "yes"} for i in range(9)),
               {"input": "Oslo\n", "instruction": "In capitals:", "output": "OSLO"}]).encode(),
        ("In capitals:\n\nOslo\n", "OSLO"), None,
    ),
    "an input that is null, blank, or not there": (
        "d.jsonl",
        jsonl([{"instruction": "Say Oslo.", "output": "Oslo"},
               *({"instruction": f"Say {i}.", "input": (None, " ")[i % 2], "output": "yes"}
                 for i in range(30))]).encode(),
        ("Say 29.", "yes"), None,
    ),
    "question and context, and a title": (
        "d.csv",
        table(",", [("Title", "Context", "Question", "Answer"),
                    *(("About", f"It is {i}.", f"What is {i}?", f"{i} it is") for i in range(30))],
              ).encode(),
        ("What is 29?\n\nIt is 29.", "29 it is"), "'Title' is not used",
    ),
    "a context that is no text": (
        "d.jsonl",
        jsonl([{"question": f"q{i}", "context": ["x"], "answer": "a"} for i in range(30)]).encode(),
        ("q29", "a"), "'context' is not used",
    ),
    "messages with a text beside": (
        "d.jsonl",
        jsonl([{"messages": [{"role": "user", "content": f"q{i}"},
                             {"role": "assistant", "content": "a"}], "id": None, "context": "x y"}
               for i in range(30)]).encode(),
        ("q29", "a"), "'context' is not used",
    ),
    "numbers beside": (
        "d.csv", table(",", [("", "prompt", "answer", "score"),
                             *((str(i), f"q{i}", "a", "0.5") for i in range(30))]).encode(),
        ("q29", "a"), None,
    ),
    "semicolons and a decimal comma": (
        "d.csv", table(";", [("prompt", "answer"), *((f"{i},5, or so", "1,5") for i in range(30))])
        .encode(), ("29,5, or so", "1,5"), None,
    ),
    "tabs": ("d.tsv", table("\t", [("prompt", "answer"), *NUMBERED]).encode(), ("q 29", "a 29"),
             None),
    "tabs and quotes that quote nothing": (
        "d.tsv", table("\t", [("prompt", "answer"), *((f'"Oh," {i} said', "a") for i in range(30))])
        .encode(), ('"Oh," 29 said', "a"), None,
    ),
    "bars in a file called csv": (
        "d.csv", table("|", [("prompt", "answer"), *((f"a, b; {i}", "c, d") for i in range(30))])
        .encode(), ("a, b; 29", "c, d"), None,
    ),
    "a header with commas in quotes": (
        "d.csv", ('"prompt";"answer";"a, b, c"\n' + "".join(
            f'"{i}; ""y""";"1\n2";3\n' for i in range(30))).encode(), ('29; "y"', "1\n2"), None,
    ),
    "quotes behind a backslash": (
        "d.csv", ("prompt,answer\n" + "".join(
            f'"say \\"{i}\\", please",a\n' for i in range(30))).encode(),
        ('say "29", please', "a"), None,
    ),
    "single quotes": (
        "d.csv", ("'prompt','answer'\n" + "".join(
            f"'{i}, b','it''s'\n" for i in range(30))).encode(), ("29, b", "it's"), None,
    ),
    "blanks after commas": (
        "d.csv", table(", ", [("prompt", "answer"), *((f"q{i}", '"a, b"') for i in range(30))])
        .encode(), ("q29", "a, b"), None,
    ),
    "Excel's line": (
        "d.csv", table(";", [("sep=;",), ("prompt", "answer"), *NUMBERED], "\r\n").encode(),
        ("q 29", "a 29"), None,
    ),
    "line ends of old": (
        "d.csv", table(",", [("prompt", "answer"), *NUMBERED], "\r").encode(),
        ("q 29", "a 29"), None,
    ),
    "a long text": (
        "d.csv", table(",", [("prompt", "answer"), *NUMBERED, ("x " * 100_000, "long")]).encode(),
        ("x " * 100_000, "long"), None,
    ),
    "UTF-16 CSV": ("d.csv", table("\t", [("prompt", "answer"), *((f"größer {i}", "Café")
                   for i in range(30))]).encode("utf-16"), ("größer 29", "Café"), None),
    "UTF-16 JSONL, big end first": (
        "d.jsonl", b"\xfe\xff" + jsonl(UMLAUTS).encode("utf-16-be"), ("199 größer", "Café"), None,
    ),
    "UTF-32 JSON": ("d.json", json.dumps(UMLAUTS, ensure_ascii=False).encode("utf-32"),
                    ("199 größer", "Café"), None),
    "marks of files put together": (
        "d.jsonl", "".join("\ufeff" + line + "\n" for line in jsonl(UMLAUTS).splitlines()).encode(),
        ("199 größer", "Café"), None,
    ),
    "one line of cp1252": ("d.jsonl", LATIN, ("größer", "Café"), "line 31: '{\"prompt\": \"größer"),
    "cp1252 after a quoted record of two lines": (
        "d.csv", b'prompt,answer\n"a\nb",x\n' + table(",", NUMBERED).encode() + b"caf\xe9,x\n",
        ("café", "x"), "line 34: 'café,x'",
    ),
    "a Parquet row without a context": (
        "d.parquet", parquet(question=[f"q{i}" for i in range(30)], context=[None] * 29 + ["c"],
                             answer=["a"] * 30),
        ("q29\n\nc", "a"), None,
    ),
}  # fmt: skip


def write(folder: Path, name: str, content: Make) -> tuple[Path, Path]:
    """Writes a data file and a bake-off with it."""
    file, bakeoff = folder / name, folder / "b.yaml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content(file)
    (folder / "p.jsonl").write_text("{}\n")
    bakeoff.write_text(
        f"name: x\ntask: {{id: chat, train: {name}}}\n"
        "contenders: [{name: a, id: recorded, predictions: p.jsonl}]\n"
    )
    return file, bakeoff


@pytest.mark.parametrize(("name", "content", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused_wherever_it_is_read(
    name: str, content: Make, expected: tuple[str, ...], tmp_path: Path
) -> None:
    file, bakeoff = write(tmp_path, name, content)
    messages = []
    for refuse in (
        lambda: check_file(file),
        lambda: check_file(bakeoff),
        lambda: write_starter(file, tmp_path / "new.yaml"),
    ):
        with pytest.raises(DataError) as found:
            refuse()
        messages.append(str(found.value))
    assert len(set(messages)) == 1
    assert "\n" not in messages[0]
    for part in expected:
        assert part in messages[0]
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(("name", "content", "last", "expected"), READ.values(), ids=READ)
def test_a_file_is_read_the_same_wherever(
    name: str, content: Make, last: tuple[str, str], expected: str | None, tmp_path: Path
) -> None:
    file, bakeoff = write(tmp_path, name, content)
    of_file, of_bakeoff = check_file(file), check_file(bakeoff)
    assert set(of_file["warnings"]) <= set(of_bakeoff["warnings"])
    assert len(of_file["warnings"]) == (expected is not None)
    assert all((expected or "") in line for line in of_file["warnings"])
    started = write_starter(file, tmp_path / "new.yaml")
    assert started["warnings"] == of_file["warnings"]
    examples = chat.read_examples(file)
    settings = load(tmp_path / "new.yaml").task
    assert chat.read_examples(file, settings.columns) == examples
    assert of_file["examples"] == sum(of_bakeoff["split_sizes"].values()) == len(examples)
    assert (examples[-1].inputs["messages"][-1]["content"], examples[-1].completion) == last
    found: list[str] = []
    streamed = open_stream(settings, DataPaths(tmp_path, warn=found.append))
    assert sorted(each.id for _, each in streamed) == sorted(each.id for each in examples)
    assert found == of_file["warnings"]


def test_repeated_inputs_are_said_wherever(tmp_path: Path) -> None:
    rows = [*PLAIN, PLAIN[3], {"prompt": "WORD 4!", "completion": "x"}]
    file, bakeoff = write(tmp_path, "d.jsonl", jsonl(rows).encode())
    said = check_file(file)["warnings"]
    assert [line.partition(": ")[2] for line in said] == [
        "1 inputs are repeated; a split keeps equal ones together.",
        "1 more inputs differ only in case, blanks or punctuation.",
    ]
    assert set(said) <= set(check_file(bakeoff)["warnings"])


def test_columns_that_are_chosen_by_their_names_are_said(cli: Cli, tmp_path: Path) -> None:
    rows = [{"instruction": f"i{i}", "context": "c d", "response": "r"} for i in range(30)]
    file, bakeoff = write(tmp_path, "d.jsonl", jsonl(rows).encode())
    words = "prompt from instruction + context, answer from response"
    assert words in cli("check", file)[1]
    assert f"chosen by their names ({words})" in cli("check", bakeoff)[1]
    code, out, _ = cli("init", file, "--out", tmp_path / "new.yaml")
    assert (code, words in out) == (0, True)


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
def test_an_encoding_that_is_named(name: str, tmp_path: Path) -> None:
    rows = [("prompt", "answer"), ("Привет, мир", "да"), ("日本", "はい")]
    encoding = "gb18030"
    text = jsonl([dict(zip(rows[0], row, strict=True)) for row in rows[1:]])
    if name == "d.csv":
        text = table(";", rows)
    (tmp_path / name).write_bytes(text.encode(encoding))
    (tmp_path / f"marked{name}").write_bytes(text.encode("utf-8-sig"))
    for file in (tmp_path / name, tmp_path / f"marked{name}"):
        found = chat.read_examples(file, Columns(encoding=encoding))
        assert [example.completion for example in found] == ["да", "はい"]
    with pytest.raises(DataError, match=r"d\.\w+:\d: this line is not utf-8; name the file's own"):
        chat.read_examples(tmp_path / name, Columns(encoding="utf_8_sig"))


def test_rows_of_both_kinds_are_read_alike(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    file, bakeoff = write(tmp_path, "d.jsonl", jsonl([*PLAIN, {"messages": turns}]).encode())
    assert check_file(file)["examples"] == 31
    assert sum(check_file(bakeoff)["split_sizes"].values()) == 31


def test_an_encoding_alone_names_no_columns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "größer"}]
    file = tmp_path / "d.jsonl"
    file.write_bytes(jsonl([{"messages": turns}]).encode("utf-16-le"))
    (found,) = chat.read_examples(file, Columns(encoding="utf-16-le"))
    assert found.completion == "größer"


@pytest.mark.parametrize("line", [299, 1499])
def test_the_line_is_the_one_it_is(line: int, tmp_path: Path) -> None:
    """A text stream decodes some 8 KiB ahead of what it hands out."""
    rows = [f"{i},{'x' * 20}\n".encode() for i in range(2000)]
    rows[line] = b"\x81,x\n"
    file = tmp_path / "d.csv"
    file.write_bytes(b"prompt,answer\n" + b"".join(rows))
    with pytest.raises(DataError, match=f"d.csv:{line + 2}: "):
        list(read_records(file))


def test_ids_are_those_of_before(tmp_path: Path) -> None:
    """A record's id has its last line, as ever, and a message its first one."""
    file = tmp_path / "d.csv"
    file.write_text('prompt,answer\n"a\nb",x\nc,y\n')
    assert [example.id for example in chat.read_examples(file)] == ["d-3", "d-4"]
    assert [record.where[-2:] for record in read_records(file)] == [":2", ":4"]


def test_named_columns_that_are_not_there(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(jsonl(PLAIN))
    said: list[str] = []
    columns = Columns(prompt=("prompt", "inptu"), id="key")
    chat.load_checked_examples(file, columns, said.append)
    assert ["no row has a 'key'" in said[0], "no row has a 'inptu'" in said[1]] == [True, True]
    with pytest.raises(DataError, match=r"task\.columns\.system: no row has a 'sytem'"):
        chat.read_examples(file, Columns(system="sytem"))


def test_a_system_text_may_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("system,prompt,answer,id\nBe brief.,q,a,\n,q,b,7\n")
    columns = find_columns(file)
    assert columns is not None
    found = chat.read_examples(file, columns.model_copy(update={"id": "id"}))
    assert [len(example.inputs["messages"]) for example in found] == [2, 1]
    assert [example.id for example in found] == ["d-2", "7"]


def test_a_run_of_before_lists_and_encodings_is_the_same_file(tmp_path: Path) -> None:
    text = (
        "name: x\ntask: {id: chat, train: t.jsonl, columns: {prompt: q, completion: a}}\n"
        "contenders: [{name: a, id: local}]\n"
    )
    bakeoff = parse(text, tmp_path / "b.yaml")
    stored = dump_resolved(bakeoff)
    del stored["task"]["drop_overlap"], stored["task"]["columns"]["encoding"]
    assert stored["task"]["columns"]["prompt"] == "q"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bakeoff.yaml").write_text(yaml.safe_dump({**stored, "folder": ".."}))
    open_run_dir(tmp_path / "run", bakeoff)
    joined = parse(text.replace("prompt: q", "prompt: [q, r]"), tmp_path / "b.yaml")
    with pytest.raises(RunDirectoryError, match=r"changed: task.columns.prompt"):
        open_run_dir(tmp_path / "run", joined)
    save_config(tmp_path / "run", joined)
    open_run_dir(tmp_path / "run", joined)


def test_a_backslash_that_escapes_nothing_stays(tmp_path: Path) -> None:
    rows = [
        *((f'"q{i}"', f'"C:\\temp{i}"') for i in range(12)),
        ('"said \\"hi\\", ok"', '"\\frac"'),
    ]
    file = tmp_path / "d.csv"
    file.write_text("prompt,completion\n" + table(",", rows))
    last = chat.read_examples(file)[-1]
    assert last.inputs["messages"][0]["content"] == 'said "hi", ok'
    assert last.completion == "\\frac"
    assert chat.read_examples(file)[0].completion == "C:\\temp0"


@pytest.mark.parametrize("options", [["brick", "apple"], {"A": "brick"}, [{"text": "brick"}]])
def test_texts_in_a_list_that_nobody_uses_are_named(tmp_path: Path, options: Any) -> None:
    file = tmp_path / "d.jsonl"
    rows = [{"question": f"Fruit {i}?", "options": options, "answer": "x"} for i in range(30)]
    file.write_text(jsonl(rows))
    assert any("'options' is not used" in line for line in check_file(file)["warnings"])
