"""A model that a server tuned, taken out of its data directory while it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from running import examples, request, server, upload

import tuneoff
from tuneoff.errors import ConfigError

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def served(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The data directory of a running server, and the model that it tuned."""
    data = tmp_path_factory.mktemp("served-export") / "data"
    with server(data, "--base", str(tiny_base)) as (port, _):
        status, file = upload(port, examples(16, "yes, it is"))
        assert status == 200
        numbers = {"n_epochs": 6, "batch_size": 8, "learning_rate_multiplier": 100}
        body = {"model": tiny_base.name, "training_file": file["id"], "hyperparameters": numbers}
        status, job = request(port, "POST", "/v1/fine_tuning/jobs", body)
        assert status == 200, job
        end = time.monotonic() + 240
        while job["status"] != "succeeded":
            assert job["status"] in ("queued", "running"), job
            assert time.monotonic() < end
            time.sleep(0.2)
            _, job = request(port, "GET", f"/v1/fine_tuning/jobs/{job['id']}")
        yield data, port, job


@pytest.mark.parametrize("format", ["adapter", "merged"])
def test_it_answers_as_when_served(served: Any, format: str, tmp_path: Path) -> None:
    data, _, job = served
    said: list[str] = []
    found = tuneoff.export_contender(
        data, job["fine_tuned_model"], format, tmp_path / "out", strict=True, say=said.append,
        **({"dtype": "float32"} if format == "merged" else {}),
    )  # fmt: skip
    assert found.parity is not None
    assert (found.parity["parity"]["asked"], found.parity["parity"]["different"]) == (16, ())
    assert f"{job['fine_tuned_model']}: 16 of 16 answers are those that were served." in said[-1]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- examples: 16, epochs: 6" in card


def test_its_checkpoints_are_models_too(served: Any, tmp_path: Path) -> None:
    data, port, job = served
    _, found = request(port, "GET", f"/v1/fine_tuning/jobs/{job['id']}/checkpoints")
    name = found["data"][-1]["fine_tuned_model_checkpoint"]
    exported = tuneoff.export_contender(data, name, "adapter", tmp_path / "out", strict=True)
    assert "adapter_model.safetensors" in exported.files


def test_gguf_of_a_served_model(served: Any, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    data, _, job = served
    name = job["fine_tuned_model"]
    found = tuneoff.export_contender(data, name, "gguf", tmp_path / "out", outtype="f32")
    assert found.parity is not None
    assert found.parity["passed"]
    assert f"{name.replace(':', '-')}-f32.gguf" in found.files


def test_models_that_are_not_there(served: Any, tmp_path: Path) -> None:
    data, _, job = served
    with pytest.raises(ConfigError, match="CONTENDER: unknown model 'ft:x'") as caught:
        tuneoff.export_contender(data, "ft:x", "merged", tmp_path / "out")
    assert job["fine_tuned_model"] in str(caught.value)
