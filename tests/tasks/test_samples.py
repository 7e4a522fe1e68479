"""The generated samples: sizes, no leakage between splits, answers that hold."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.records import SPLITS, Example, Split
from tuneoff.tasks.samples import functional, names, questions, schemas, sql

Splits = dict[Split, list[Example]]
MODULES = (functional, sql)
SLOT = r"[a-z]+\[[^\[\],]+(?:, [^\[\],]+)?\]"
CALL = re.compile(rf"([a-z]+)\(({SLOT}(?:, {SLOT})*)\)")


@pytest.fixture(scope="module")
def functional_splits() -> Splits:
    return functional.generate()


@pytest.fixture(scope="module")
def sql_splits() -> Splits:
    return sql.generate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("databases")
    sql.write_databases(path)
    return path


def slots(completion: str) -> tuple[str, dict[str, list[str]]]:
    """Function and values by attribute, or a failed assertion."""
    match = CALL.fullmatch(completion)
    assert match, completion
    pairs = re.findall(r"([a-z]+)\[([^\]]+)\]", match[2])
    values = {name: text.split(", ") for name, text in pairs}
    assert len(values) == len(pairs), completion
    return match[1], values


def ask(folder: Path, example: Example) -> list[tuple[object, ...]]:
    """The rows that the reference query of an example gives."""
    db_id = example.meta["db_id"]
    with closing(sqlite3.connect(folder / db_id / f"{db_id}.sqlite")) as connection:
        return connection.execute(example.completion).fetchall()


@pytest.mark.parametrize(("module", "train"), [(functional, 900), (sql, 1200)])
def test_sizes_ids_and_determinism(module, train: int) -> None:
    splits = module.generate(3)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": train,
        "validation": 150,
        "test": 200,
    }
    ids = [example.id for rows in splits.values() for example in rows]
    assert len(set(ids)) == len(ids)
    assert module.generate(3) == splits
    assert module.generate(4) != splits


@pytest.mark.parametrize("module", MODULES)
def test_one_input_has_one_reference_and_one_split(module) -> None:
    # Across seeds the same input may come again: then with the same answer.
    references: dict[object, str] = {}
    for seed in range(4):
        examples = [example for rows in module.generate(seed).values() for example in rows]
        inputs = [tuple(sorted(example.inputs.items())) for example in examples]
        assert len(set(inputs)) == len(inputs)
        for key, example in zip(inputs, examples, strict=True):
            assert references.setdefault(key, example.completion) == example.completion


@pytest.mark.parametrize("module", MODULES)
def test_a_constant_answer_scores_under_five_percent(module) -> None:
    test = module.generate()["test"]
    (_, count), *_ = Counter(example.completion for example in test).most_common(1)
    assert count / len(test) < 0.05


def test_names_of_one_split_are_in_no_other(functional_splits: Splits) -> None:
    found: dict[Split, set[str]] = {}
    for split in SPLITS:
        found[split] = set()
        for example in functional_splits[split]:
            values = slots(example.completion)[1]
            found[split] |= {
                name.split()[0] for key in ("hut", "massif") for name in values.get(key, [])
            }
        assert found[split] <= set(names.list_name_words(split))
        assert len(found[split]) > 50
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_the_call_is_well_formed_and_follows_from_the_sentence(functional_splits: Splits) -> None:
    functions = set()
    for example in (row for rows in functional_splits.values() for row in rows):
        sentence = example.inputs["sentence"]
        function, values = slots(example.completion)
        functions.add(function)
        assert function == example.meta["function"]
        assert function in functional.FUNCTIONS
        order = [functional.ATTRIBUTES.index(name) for name in values]
        assert order == sorted(order)
        assert 2 <= len(values) <= 5
        assert 5 <= len(sentence.split()) <= 33
        for name, texts in values.items():
            if name in functional.FLAG_CLAUSES:
                stated = functional.FLAG_CLAUSES[name]
                assert any(clause in sentence for clause in stated[texts[0]]), example
                continue
            places = [sentence.index(text) for text in texts]
            assert places == sorted(places), example
    assert functions == set(functional.FUNCTIONS)


def test_no_frame_or_clause_stands_for_two_things() -> None:
    groups = [*functional.FRAMES.values(), *functional.CLAUSES.values()]
    groups += [texts for flags in functional.FLAG_CLAUSES.values() for texts in flags.values()]
    texts = [text for group in groups for text in group]
    assert all(len(group) >= 5 for group in groups)
    assert len(set(texts)) == len(texts)
    assert set(functional.FRAMES) == set(functional.FUNCTIONS)
    clauses = set(functional.CLAUSES) | set(functional.FLAG_CLAUSES) | {"hut"}
    assert clauses == set(functional.ATTRIBUTES)
    # A value of two attributes could not be told from the copied word alone.
    values = [value for group in functional.ENUMERATIONS.values() for value in group]
    assert len(set(values)) == len(values)


def test_no_clause_contains_a_clause_of_the_opposite_flag() -> None:
    for flags in functional.FLAG_CLAUSES.values():
        for yes in flags["yes"]:
            assert not any(yes in no or no in yes for no in flags["no"])


def test_every_split_asks_in_at_least_twelve_shapes(sql_splits: Splits) -> None:
    for rows in sql_splits.values():
        shapes = Counter(example.meta["shape"] for example in rows)
        assert len(shapes) >= 12
        assert min(shapes.values()) >= 5
    assert all(len(set(asked)) >= 3 for _, asked in questions.SHAPES.values())


def test_tables_of_one_split_are_in_no_other() -> None:
    tables: dict[Split, set[str]] = {split: set() for split in SPLITS}
    columns: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for database in schemas.build_databases():
        for table in (database.parent, database.child):
            assert table.name not in tables[database.split]
            tables[database.split].add(table.name)
            columns[database.split] |= set(table.columns)
    assert [len(tables[split]) for split in SPLITS] == [80, 12, 16]
    for split in SPLITS:
        others = {name for other in SPLITS if other != split for name in tables[other]}
        assert not tables[split] & others
        # A column that is called like a table would make questions ambiguous.
        assert not columns[split] & (tables[split] | others)
    assert columns["test"] & columns["train"] <= sql.GENERIC


def test_the_query_follows_from_question_and_context(sql_splits: Splits) -> None:
    for example in (row for rows in sql_splits.values() for row in rows):
        question, context = example.inputs["question"], example.inputs["context"]
        tables = re.findall(r"(?:FROM|JOIN) (\w+)", example.completion)
        assert all(table in question for table in tables), example
        keys = {f"{table}_id" for table in re.findall(r"CREATE TABLE (\w+)", context)}
        words = set(re.findall(r"\b[a-z_]+\b", example.completion)) - keys
        assert all(re.search(rf"\b{word}(s|es)?\b", question) for word in words), example
        assert all(re.search(rf"\b{word}\b", context) for word in words | set(tables))
        for value in re.findall(r"'([^']*)'|> (\d+)|< (\d+)", example.completion):
            assert "".join(value) in question, example


def test_gold_queries_run_and_most_say_something(folder: Path, sql_splits: Splits) -> None:
    for rows in sql_splits.values():
        full = 0
        for example in rows:
            result = ask(folder, example)
            full += any(cell not in (None, 0) for row in result for cell in row)
        assert full / len(rows) >= 0.85


def test_the_context_is_the_schema_of_the_database(folder: Path, sql_splits: Splits) -> None:
    for example in sql_splits["test"]:
        db_id = example.meta["db_id"]
        with closing(sqlite3.connect(folder / db_id / f"{db_id}.sqlite")) as connection:
            for statement in example.inputs["context"].split(" ; "):
                table, columns = re.fullmatch(r"CREATE TABLE (\w+) \((.*)\)", statement).groups()
                info = connection.execute(f"PRAGMA table_info({table})").fetchall()
                assert ", ".join(f"{row[1]} {row[2]}" for row in info) == columns
                (rows,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
                assert 20 <= rows <= 60
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_numbers_and_names_are_unique_within_a_table() -> None:
    for database in schemas.build_databases():
        rows = sql.generate_rows(database, 0)
        for table in (database.parent, database.child):
            header = database.header(table)
            for column in (table.title, *table.numbers):
                cells = [row[header.index(column)] for row in rows[table.name]]
                assert len(set(cells)) == len(cells)


def test_a_query_of_the_wrong_shape_usually_gives_another_result(
    folder: Path, sql_splits: Splits
) -> None:
    """Two different references about one database seldom give the same rows."""
    results: dict[str, dict[str, list[tuple[object, ...]]]] = {}
    for example in sql_splits["test"]:
        database = results.setdefault(example.meta["db_id"], {})
        database[example.completion] = ask(folder, example)
    for database in results.values():
        distinct = {repr(sorted(rows, key=repr)) for rows in database.values()}
        assert len(distinct) / len(database) > 0.85


def test_databases_are_the_same_for_a_seed_and_written_once(
    folder: Path, tmp_path: Path, sql_splits: Splits
) -> None:
    kept = tmp_path / "lighthouse_keeper" / "lighthouse_keeper.sqlite"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    sql.write_databases(tmp_path)
    assert kept.read_bytes() == b"mine"
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) == 54
    assert written == {Path(db_id, f"{db_id}.sqlite") for db_id in {p.stem for p in written}}
    for example in sql_splits["test"]:
        assert ask(folder, example) == ask(tmp_path, example)
    database = schemas.build_databases()[0]
    assert sql.generate_rows(database, 1) != sql.generate_rows(database, 0)


@pytest.mark.parametrize("module", MODULES)
def test_what_a_pretraining_corpus_must_not_hold_is_listed(module) -> None:
    blocked = module.content_words()
    assert all(word == word.lower() and word.isalpha() and len(word) >= 4 for word in blocked)
    assert names.list_all_name_words() <= blocked
    assert not blocked & module.GENERIC
    assert len(module.GENERIC) <= 10
    assert module.INSTRUCTION in module.templates()
    assert len(set(module.templates())) == len(module.templates())
    assert len(module.INSTRUCTION.split()) <= 55


def test_listed_words_cover_the_answers(functional_splits: Splits, sql_splits: Splits) -> None:
    allowed = functional.content_words() | functional.GENERIC
    for example in (row for rows in functional_splits.values() for row in rows):
        words = set(re.findall(r"[a-z]{4,}", example.completion.lower()))
        assert words <= allowed, example
    allowed = sql.content_words() | sql.GENERIC
    for example in (row for rows in sql_splits.values() for row in rows):
        words = set(re.findall(r"[a-z]{4,}", re.sub(r"\b[A-Z]+\b", "", example.completion).lower()))
        assert words <= allowed, example
