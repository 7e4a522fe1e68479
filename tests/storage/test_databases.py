"""Databases as they are committed: with the log or the hot journal that lies beside the file."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tuneoff.errors import DataError
from tuneoff.scoring.base import Options, ScoringInput, ScoringMode
from tuneoff.scoring.sql.derived_databases import derive_suites
from tuneoff.scoring.sql.scorer import failing, groups, score_rows
from tuneoff.storage.databases import find_committed, find_original, hash_databases
from tuneoff.tasks.text_to_sql import serialize_schema


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def copied(live: Path, to: Path, endings: tuple[str, ...]) -> Path:
    """The files of a database as they lie there, in a folder of its id."""
    (to / "shop").mkdir(parents=True)
    for ending in endings:
        shutil.copy(f"{live}{ending}", to / "shop" / f"shop.sqlite{ending}")
    return to


def begun(live: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(live, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
    connection.execute("INSERT INTO item VALUES (1, 'pen'), (2, 'ink')")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return connection


def in_log(tmp: Path) -> Path:
    """Rows, a table and a deletion that are committed in the log alone."""
    with closing(begun(tmp / "live", "WAL")) as connection:
        connection.execute("INSERT INTO item VALUES (3, 'cup'), (4, 'lamp')")
        connection.execute("CREATE TABLE sale (day TEXT)")
        return copied(tmp / "live", tmp / "dbs", ("", "-wal"))


def in_a_long_log(tmp: Path) -> Path:
    """A log that is larger than the file, with a transaction at its end that was never
    committed."""
    with closing(begun(tmp / "live", "WAL")) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT INTO item VALUES (3, 'cup'), (4, ?)", ("x" * 90_000,))
        connection.execute("CREATE TABLE sale (day TEXT)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO item (name) VALUES (?)", [("y" * 9000,)] * 40)
        folder = copied(tmp / "live", tmp / "dbs", ("", "-wal"))
        size = {e: (folder / "shop" / f"shop.sqlite{e}").stat().st_size for e in ("", "-wal")}
        assert size["-wal"] > size[""] + 40 * 9000
        return folder


def in_hot_journal(tmp: Path) -> Path:
    """A transaction that was written into the file in part, and has to be undone."""
    with closing(begun(tmp / "live", "DELETE")) as connection:
        connection.execute("INSERT INTO item VALUES (3, 'cup'), (4, 'lamp')")
        connection.execute("CREATE TABLE sale (day TEXT)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM item")
        connection.executemany("INSERT INTO item (name) VALUES (?)", [("y" * 9000,)] * 40)
        return copied(tmp / "live", tmp / "dbs", ("", "-journal"))


def linked(tmp: Path) -> Path:
    """A folder of links to a file and its log, whose names are others."""
    folder = in_log(tmp)
    blobs = tmp / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted((folder / "shop").iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(blobs / str(number))
    return folder


@pytest.mark.parametrize("make", [in_log, in_a_long_log, in_hot_journal, linked])
@pytest.mark.parametrize("mode", ["strict", "official"])
def test_every_reader_sees_what_is_committed(
    tmp_path: Path, make: Callable[[Path], Path], mode: ScoringMode
) -> None:
    folder = make(tmp_path)
    file = folder / "shop" / "shop.sqlite"
    before = content(tmp_path)
    (folder / "shop").chmod(0o555)
    rows = [
        ScoringInput("right", "SELECT count(*) FROM item", "SELECT 4", {"db_id": "shop"}),
        ScoringInput(
            "wrong",
            "SELECT id FROM item WHERE id > 2",
            "SELECT id FROM item WHERE id > 9",
            {"db_id": "shop"},
        ),
    ]
    options = Options(databases=folder, mode=mode, workers=1)
    found = [row.scores["execution_accuracy"] for row in score_rows(rows, options)]
    assert found == [True, False]
    bad = ScoringInput("bad", "SELECT nme FROM item", "", {"db_id": "shop"})
    assert dict(failing([bad], options))["bad"] == (
        f"it does not run on {file} (no such column: nme)"
    )
    assert groups(rows[0], options) == {"hardness": "easy"}
    assert serialize_schema(file) == (
        "item : id [ INTEGER ] primary_key name [ TEXT ] sale : day [ TEXT ]"
    )
    derive_suites(folder, [("shop", "SELECT day FROM sale")], tmp_path / "more", 1)
    with closing(sqlite3.connect(tmp_path / "more" / "shop" / "derived-00.sqlite")) as derived:
        assert derived.execute("SELECT count(*) > 0 FROM sale").fetchone() == (1,)
    shutil.rmtree(tmp_path / "more")
    (folder / "shop").chmod(0o755)
    assert content(tmp_path) == before
    assert find_original(str(find_committed(file).resolve())) == str(file)


def test_the_hash_is_of_what_lies_beside_the_file_as_well(tmp_path: Path) -> None:
    folder = in_log(tmp_path)
    file, log = (folder / "shop" / f"shop.sqlite{ending}" for ending in ("", "-wal"))
    both = hash_databases(folder, ["shop"])
    kept = log.read_bytes()
    log.write_bytes(b"")
    alone = hash_databases(folder, ["shop"])
    assert (find_committed(file), len({both["shop"], alone["shop"]})) == (file, 2)
    log.unlink()
    (folder / "shop" / "shop.sqlite-journal").write_bytes(bytes(512))  # its transaction has ended
    assert (find_committed(file), hash_databases(folder, ["shop"])) == (file, alone)
    log.write_bytes(kept)
    assert hash_databases(folder, ["shop"]) == both


def test_what_cannot_be_settled_is_refused(tmp_path: Path) -> None:
    with closing(begun(tmp_path / "live", "WAL")) as connection:
        connection.execute("INSERT INTO item VALUES (3, 'cup')")
        file = copied(tmp_path / "live", tmp_path / "dbs", ("", "-wal")) / "shop" / "shop.sqlite"
    file.write_bytes(b"no database" * 400)
    with pytest.raises(DataError, match=r"shop\.sqlite: .*`PRAGMA wal_checkpoint\(TRUNCATE\)`"):
        find_committed(file)


def test_a_database_that_is_written_to_meanwhile(tmp_path: Path) -> None:
    """Each reading is of one state: two tables that are written together are equally long."""
    live = tmp_path / "live.sqlite"
    with closing(begun(live, "WAL")) as connection:
        connection.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO other SELECT * FROM item")
    code = (
        "import sqlite3, sys, time\n"
        f"c = sqlite3.connect({str(live)!r}, isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint = 3')\n"
        "while True:\n"
        "    c.execute('BEGIN')\n"
        "    for table in ('item', 'other'):\n"
        "        c.execute(f'INSERT INTO {table} (name) VALUES (?)', ('z' * 3000,))\n"
        "    c.execute('COMMIT')\n"
        "    print(1, flush=True)\n"
        "    time.sleep(0.02)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        counts = []
        for _ in range(5):
            writer.stdout.readline()
            with closing(
                sqlite3.connect(f"file:{find_committed(live)}?immutable=1", uri=True)
            ) as read:
                counts.append([
                    read.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in ("item", "other")
                ])  # fmt: skip
        writer.kill()
    assert all(item == other > 2 for item, other in counts)
    assert counts == sorted(counts)
