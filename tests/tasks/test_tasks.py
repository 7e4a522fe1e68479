"""Loading of the three tasks: real files where they are, invented rows elsewhere."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

import pytest

from tuneoff.config.base import Columns, Limit
from tuneoff.config.schema import TaskConfig
from tuneoff.errors import ConfigError, DataError
from tuneoff.records import Example
from tuneoff.tasks import chat, functional_representation, splits, text_to_sql
from tuneoff.tasks.base import DataPaths, load_task
from tuneoff.tasks.text_to_sql import serialize_schema


def test_a_task_may_be_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "SCORER, SOURCES, MAX_NEW_TOKENS, CLUSTER = 'text', (), 5, None\n"
        "def load(settings, place): return {}\n"
        "def template(settings): return None\n"
        "def databases(settings, place, into): return None\n"
    )
    assert load_task("./mine.py", tmp_path).MAX_NEW_TOKENS == 5
    (tmp_path / "half.py").write_text("SCORER = 'text'\n")
    with pytest.raises(ConfigError, match="has no SOURCES, MAX_NEW_TOKENS"):
        load_task("./half.py", tmp_path)
    with pytest.raises(ConfigError, match=r"no such Python file"):
        load_task("./none.py", tmp_path)


# Raw rows as the two data sets have them; all invented.
RAW_CONTEXT = [
    {"question": "How many boats?", "context": "CREATE TABLE boat (a INT)",
     "answer": "SELECT count(*) FROM boat"},
    {"question": "Name the harbours.", "context": "CREATE TABLE harbour (name VARCHAR)",
     "answer": "SELECT name FROM harbour"},
    {"question": "How many boats?", "context": "CREATE TABLE boat (b INT)",
     "answer": "SELECT count(*) FROM boat"},
    {"question": "Only in the other set?", "context": "CREATE TABLE x (y INT)",
     "answer": "SELECT y FROM x"},
]  # fmt: skip
RAW_SPIDER = [
    {"question": "How many boats?", "query": "SELECT  count(*)  FROM boat", "db_id": "north"},
    {"question": "How many boats?", "query": "SELECT count(*) FROM boat", "db_id": "south"},
    {"question": "Name the harbours.", "query": "SELECT other FROM harbour", "db_id": "north"},
]


def test_the_intersection_matches_question_and_query() -> None:
    found = text_to_sql.intersect_rows(RAW_CONTEXT, RAW_SPIDER)
    assert [(row["context"], row["db_id"]) for row in found] == [
        ("CREATE TABLE boat (a INT)", "north"),
        ("CREATE TABLE boat (b INT)", "south"),
    ]


def test_the_intersection_is_computed_from_local_raw_files(tmp_path: Path) -> None:
    (tmp_path / "spider").mkdir()
    (tmp_path / "sql_create_context.json").write_text(json.dumps(RAW_CONTEXT))
    (tmp_path / "spider" / "train_spider.json").write_text(json.dumps(RAW_SPIDER[:1]))
    (tmp_path / "spider" / "dev.json").write_text(json.dumps(RAW_SPIDER[1:2]))
    settings = TaskConfig(id="text_to_sql", source="spider-create-context", splits="seed")
    loaded = text_to_sql.load(settings, DataPaths(tmp_path, tmp_path))
    assert [e.meta["db_id"] for e in loaded["train"]] == ["north"]
    assert loaded["validation"] == loaded["test"]
    assert [e.meta["db_id"] for e in loaded["test"]] == ["south"]


def test_viggo_is_read_whole(data_dir: Path) -> None:
    settings = TaskConfig(id="functional_representation", source="viggo")
    loaded = functional_representation.load(settings, DataPaths(data_dir, data_dir))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        "train": 5103, "validation": 714, "test": 1083,
    }  # fmt: skip
    assert splits.check_splits(loaded, seed_arrangement=False) == []


def test_spider_validation_is_never_test(data_dir: Path) -> None:
    settings = TaskConfig(id="text_to_sql", source="spider-create-context")
    loaded = text_to_sql.load(settings, DataPaths(data_dir, data_dir))
    assert len(loaded["test"]) == 568
    databases = {split: {e.meta["db_id"] for e in rows} for split, rows in loaded.items()}
    assert not databases["train"] & databases["validation"]
    assert not (databases["train"] | databases["validation"]) & databases["test"]
    assert 200 < len(loaded["validation"]) < 500
    splits.check_splits(loaded, seed_arrangement=False)


def test_the_seed_arrangement_validates_on_test(data_dir: Path) -> None:
    settings = TaskConfig(id="text_to_sql", source="spider-create-context", splits="seed")
    loaded = text_to_sql.load(settings, DataPaths(data_dir, data_dir))
    assert len(loaded["train"]) == 3961
    assert loaded["validation"] == loaded["test"]
    with pytest.raises(DataError, match="overlap"):
        splits.check_splits(loaded, seed_arrangement=False)
    assert any("568" in warning for warning in splits.check_splits(loaded, seed_arrangement=True))


def test_a_schema_in_spiders_own_form(data_dir: Path) -> None:
    folder = data_dir / "spider" / "databases" / "department_management"
    text = serialize_schema(next(folder.glob("*.sqlite")))
    assert text.startswith("department : Department_ID [ INT ] primary_key Name [ TEXT ]")
    assert " head : head_ID [ INT ] primary_key " in text
    assert (
        "management : department_ID [ INT ] primary_key "
        "management.department_ID = department.Department_ID"
    ) in text


def test_a_schema_names_keys_after_their_column(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE port (port_id integer PRIMARY KEY, name varchar(20))")
        database.execute("CREATE TABLE boat (port_id int REFERENCES port, hull text)")
    assert serialize_schema(file) == (
        "port : port_id [ INTEGER ] primary_key name [ VARCHAR(20) ] "
        "boat : port_id [ INT ] boat.port_id = port.port_id hull [ TEXT ]"
    )
    (tmp_path / "y.sqlite").write_text("no database, but long enough to be looked at" * 30)
    with pytest.raises(DataError, match="not a SQLite database"):
        serialize_schema(tmp_path / "y.sqlite")


def test_context_schema_replaces_the_create_tables(data_dir: Path) -> None:
    settings = TaskConfig(id="text_to_sql", source="spider-create-context", context="schema")
    loaded = text_to_sql.load(settings, DataPaths(data_dir, data_dir))
    example = next(e for e in loaded["test"] if e.meta["db_id"] == "concert_singer")
    assert "stadium : Stadium_ID [ INT ] primary_key" in example.inputs["context"]


@pytest.mark.parametrize("form", ["chat", "jsonl", "csv", "parquet"])
def test_own_data_in_four_forms(form: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": f" a{i}"} for i in range(3)]
    file = tmp_path / f"d.{'jsonl' if form == 'chat' else form}"
    if form == "chat":
        turns = [
            {"messages": [{"role": "user", "content": r["prompt"]},
                          {"role": "assistant", "content": r["completion"]}]}
            for r in rows
        ]  # fmt: skip
        file.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    elif form == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["prompt", "completion"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    examples = chat.read_examples(file, None if form == "chat" else Columns())
    assert [e.inputs["messages"][-1]["content"] for e in examples] == ["q0", "q1", "q2"]
    assert [e.completion for e in examples] == [" a0", " a1", " a2"]  # as they stand
    assert len({e.id for e in examples}) == 3


def test_a_column_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,answer\nq,a\n")
    with pytest.raises(DataError) as found:
        chat.read_examples(tmp_path / "d.csv", Columns(completion="anwser"))
    assert str(found.value) == (
        f"{tmp_path / 'd.csv'}:2: task.columns.completion: the row has no 'anwser' (it has: "
        "prompt, answer)."
    )


def test_splits_are_carved_when_not_given(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i % 40}", "completion": "a"} for i in range(80)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TaskConfig(id="chat", train="d.jsonl", columns=Columns())
    loaded = chat.load(settings, DataPaths(tmp_path))
    assert sum(len(rows) for rows in loaded.values()) == 80
    assert all(loaded.values())
    splits.check_splits(loaded, seed_arrangement=False)  # equal inputs stayed together


def test_a_limit_is_a_seeded_sample() -> None:
    examples = [Example(str(i), {"x": i}, "y") for i in range(50)]
    whole = {"train": examples, "validation": examples[:5], "test": examples[5:9]}
    first = splits.apply_limits(whole, Limit(train=10), 0)  # type: ignore[arg-type]
    assert len(first["train"]) == 10
    assert first["train"] == splits.apply_limits(whole, Limit(train=10), 0)["train"]  # type: ignore[arg-type]
    assert first["train"] != splits.apply_limits(whole, Limit(train=10), 1)["train"]  # type: ignore[arg-type]
    assert first["test"] == examples[5:9]


def test_near_duplicates_are_counted_apart() -> None:
    made = {
        "train": [Example("1", {"x": "How many boats?"}, "y")],
        "validation": [Example("2", {"x": "how many  boats"}, "y")],
        "test": [Example("3", {"x": "How many oars?"}, "y")],
    }
    assert splits.count_overlaps(made) == {  # type: ignore[arg-type]
        "train/validation": (0, 1), "train/test": (0, 0), "validation/test": (0, 0),
    }  # fmt: skip
