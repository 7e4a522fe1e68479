"""The way to the hub: `datasets` on local Parquet files, and what is said without network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneoff.config.schema import TaskConfig
from tuneoff.errors import DataError
from tuneoff.tasks import functional_representation, text_to_sql
from tuneoff.tasks.base import DataPaths

VIGGO = [
    {"target": f"Boat {i} is blue.", "meaning_representation": f"tell(name[Boat {i}])"}
    for i in range(3)
]


def write_parquet(folder: Path, split: str, rows: list[dict[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


def test_viggo_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / "hub", split, VIGGO)
    monkeypatch.setattr(functional_representation, "HUB_ID", str(tmp_path / "hub"))
    settings = TaskConfig(id="functional_representation", source="viggo")
    loaded = functional_representation.load(settings, DataPaths(tmp_path))
    assert [e.inputs["sentence"] for e in loaded["train"]] == [r["target"] for r in VIGGO]
    assert loaded["test"][2].completion == "tell(name[Boat 2])"
    assert loaded["test"][2].id == "viggo-test-00003"


def test_the_intersection_is_computed_from_the_hubs_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    question = {"question": "How many?", "answer": "SELECT 1", "context": "CREATE TABLE a (b INT)"}
    write_parquet(tmp_path / "context", "train", [question])
    spider = [{"question": "How many?", "query": "SELECT 1", "db_id": "d"}]
    for split in ("train", "validation"):
        write_parquet(tmp_path / "spider", split, spider)
    monkeypatch.setattr(text_to_sql, "CREATE_CONTEXT_HUB", str(tmp_path / "context"))
    monkeypatch.setattr(text_to_sql, "SPIDER_HUB", str(tmp_path / "spider"))
    settings = TaskConfig(id="text_to_sql", source="spider-create-context", splits="seed")
    loaded = text_to_sql.load(settings, DataPaths(tmp_path))
    assert [e.meta["db_id"] for e in loaded["test"]] == ["d"]


def test_without_network_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(functional_representation, "HUB_ID", str(tmp_path / "nowhere"))
    settings = TaskConfig(id="functional_representation", source="viggo")
    with pytest.raises(DataError, match="TUNEOFF_DATA"):
        functional_representation.load(settings, DataPaths(tmp_path))
