"""`tuneoff migrate` from a model that was tuned by a real `tuneoff serve` to an open one: listed,
saved, tuned anew from the very same file, compared. The server is gone before the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import server

from tuneoff.bakeoff.migration.exits import choose_training
from tuneoff.tasks.samples import functional

pytestmark = pytest.mark.slow
openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
JOB_SECONDS, TRAIN, TESTS, BASE = 240, 64, 24, "tiny"


def lines(split: str, count: int) -> bytes:
    """Examples of the functional sample as a provider takes them."""
    rows = (
        [
            {"role": "system", "content": functional.INSTRUCTION},
            {"role": "user", "content": str(example.inputs["sentence"])},
            {"role": "assistant", "content": example.completion},
        ]
        for example in functional.generate()[split][:count]
    )
    return "".join(json.dumps({"messages": turns}) + "\n" for turns in rows).encode()


@contextmanager
def tuned(folder: Path) -> Iterator[tuple[str, str]]:
    """Address of a server and the name of a model that the official SDK had it tune."""
    with server(folder) as (port, _):
        url = f"http://127.0.0.1:{port}/v1"
        with closing(openai.OpenAI(base_url=url, api_key="any", max_retries=0)) as client:
            ids = [
                client.files.create(
                    file=(f"{split}.jsonl", lines(split, n)), purpose="fine-tune"
                ).id
                for split, n in (("train", TRAIN), ("test", TESTS))
            ]
            numbers = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 20}
            job = client.fine_tuning.jobs.create(
                model=BASE, training_file=ids[0], validation_file=ids[1], seed=1, suffix="old",
                method={"type": "supervised", "supervised": {"hyperparameters": numbers}},
            )  # fmt: skip
            end = time.monotonic() + JOB_SECONDS
            while job.status != "succeeded":
                assert time.monotonic() < end
                assert job.status not in ("failed", "cancelled"), job.error
                time.sleep(0.2)
                job = client.fine_tuning.jobs.retrieve(job.id)
        yield url, str(job.fine_tuned_model)


def asked(place: Path) -> int:
    """How many answers were asked for, as the capture's recording has it."""
    recorded = place / "capture" / "contenders" / "hosted" / "exchanges.jsonl"
    rows = (json.loads(line) for line in recorded.read_text().splitlines())
    return sum(row["path"].endswith("/chat/completions") for row in rows)


def test_from_a_served_model_to_an_open_one(tmp_path: Path, cli: Any) -> None:
    place = tmp_path / "saved"
    with tuned(tmp_path / "data") as (url, model):
        code, out, err = cli("migrate", "--base-url", url, "--json")
        assert code == 0, err
        listing = json.loads(out)
        assert listing["new_jobs"]["possible"] == "not known"  # the server is nobody's book
        (row,) = listing["models"]
        assert (row["model"], row["base"], row["ends"]) == (model, BASE, None)
        assert all(each.startswith(model) for each in row["checkpoints"])
        assert row["training_file_there"] is row["validation_file_there"] is True
        command = ("migrate", model, "--out", place, "--base", BASE, "--base-url", url, "--json")
        code, out, err = cli(*command)
        assert code == 0, err
        found = json.loads(out)
        assert (found["train"], found["test"], found["answered"]) == (TRAIN, TESTS, TESTS)
        assert (place / "train.jsonl").read_bytes() == lines("train", TRAIN)
        assert (place / "test.jsonl").read_bytes() == lines("test", TESTS)
        kept = (place / "answers.jsonl").read_bytes()
        assert found["missing"] == {}
        assert json.loads((place / "job.json").read_text())["fine_tuned_model"] == model
        assert asked(place) == TESTS
        code, out, err = cli(*command)  # the same again: nothing is asked, nothing is changed
        assert (code, json.loads(out)) == (0, found), err
        assert asked(place) == TESTS
        assert (place / "answers.jsonl").read_bytes() == kept
    # The provider has switched it off.
    file = place / "bakeoff.yaml"
    written = yaml.safe_load(file.read_text())
    assert [each["id"] for each in written["contenders"]] == ["recorded", "local"]
    assert written["contenders"][1]["train"] == choose_training(TRAIN)
    written["contenders"][1]["train"] = {"max_steps": 6, "batch_size": 8}
    file.write_text(yaml.safe_dump(written))
    run = tmp_path / "run"
    code, out, err = cli("run", file, "--run-dir", run, "--json")
    assert code == 0, err
    results = json.loads(out)
    captured = results["contenders"][0]["scores"][results["primary_metric"]]
    assert captured["n"] == TESTS
    assert captured["value"] == found["score"]
    code, out, err = cli("migrate", "--parity", run, "--json")
    assert code == 0, err
    (own,) = json.loads(out)
    assert own["name"] == written["contenders"][1]["name"]
    value = results["contenders"][1]["scores"][results["primary_metric"]]["value"]
    assert own["difference"] == pytest.approx(value - found["score"])
    assert own["low"] <= own["difference"] <= own["high"]
    assert own["verdict"] in ("better", "matches", "worse", "not shown")
    assert (own["metric"], own["usd_per_month"], own["ends"]) == ("exact_match", None, None)
    code, out, err = cli("migrate", "--parity", run, "--fail-if-worse")
    assert (code, own["sentence"] in out) == (0 if own["holds"] else 1, True), err
    assert "No price known (name hardware); it has no end" in own["sentence"]
