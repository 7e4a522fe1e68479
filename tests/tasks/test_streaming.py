"""Going through chat files row by row gives the splits that loading them gives."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tuneoff.config.schema import TaskConfig
from tuneoff.errors import DataError
from tuneoff.records import SPLITS, Example, Split
from tuneoff.tasks import chat, splits
from tuneoff.tasks.base import DataPaths
from tuneoff.tasks.streaming import open_stream


def write(path: Path, questions: list[int]) -> str:
    def line(question: int, answer: int) -> str:
        turns = [
            {"role": "user", "content": f"What is {question}?"},
            {"role": "assistant", "content": f"It is {answer}."},
        ]
        return json.dumps({"messages": turns})

    path.write_text("".join(line(q, i) + "\n" for i, q in enumerate(questions)))
    return str(path)


@pytest.mark.parametrize("given", [[], ["test"], ["validation"], ["validation", "test"]])
@pytest.mark.parametrize("limit", [{}, {"train": 70, "test": 5}])
def test_the_same_splits(given: list[Split], limit: dict[str, int], tmp_path: Path) -> None:
    drawer = random.Random(5)
    files: dict[str, Any] = {
        split: write(tmp_path / f"{split}.jsonl", [base + drawer.randrange(60) for _ in range(n)])
        for split, n, base in (("train", 150, 0), ("validation", 20, 100), ("test", 30, 200))
        if split in ("train", *given)
    }
    settings = TaskConfig.model_validate({"id": "chat", "seed": 3, "limit": limit, **files})
    place = DataPaths(tmp_path, None)
    complete, _ = splits.carve_validation(chat.load(settings, place), None, settings.seed)
    loaded = splits.apply_limits(complete, settings.limit, settings.seed)
    found = open_stream(settings, place)
    for _ in range(2):
        rows: dict[Split, list[Example]] = {split: [] for split in SPLITS}
        for split, example in found:
            rows[split].append(example)
        for split in SPLITS:
            assert found.sizes[split] == len(loaded[split])
            assert {e.id for e in rows[split]} == {e.id for e in loaded[split]}


def test_a_broken_row_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    write(file, [1, 2, 3])
    file.write_text(file.read_text() + '{"messages": []}\n')
    settings = TaskConfig(id="chat", train=str(file))
    with pytest.raises(DataError, match=r"train.jsonl:4: messages is empty"):
        open_stream(settings, DataPaths(tmp_path, None))
