"""A run's contenders, served: what is served is what was scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import request, server

import tuneoff
from tuneoff import prompts
from tuneoff.bakeoff.answer_check import Agreement
from tuneoff.errors import ConfigError, RunDirectoryError
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("fastapi")
from tuneoff.inference.transformers_backend import TransformersBackend
from tuneoff.server.run_models import check_agreement, load_servable
from tuneoff.tasks.functional_representation import SAMPLE

TEXT = """\
name: served
task:
  id: functional_representation
  source: sample
  max_new_tokens: 12
  limit: {{train: 32, validation: 8, test: 12}}
contenders:
  - {{name: prompted, id: prompted, base: {base}}}
  - name: lora
    id: local
    base: {base}
    seeds: [0, 1]
    lora: {{r: 4, alpha: 8, target_modules: attention}}
    train: {{max_steps: 6, batch_size: 8, learning_rate: 1.0e-2}}
  - name: full
    id: local
    base: {base}
    method: full
    train: {{max_steps: 4, batch_size: 8, learning_rate: 1.0e-2}}
"""


@pytest.fixture(scope="module")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served-run")
    (folder / "b.yaml").write_text(TEXT.format(base=tiny_base))
    tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def host() -> Any:
    running = TransformersBackend()
    yield running
    running.close()


def test_the_tuned_contenders_answer_as_they_were_scored(
    run: Path, host: TransformersBackend
) -> None:
    ready = load_servable(run)
    assert [each.served.name for each in ready] == ["lora", "full"]
    for each in ready:
        parity = check_agreement(host, each)
        assert (parity.asked, parity.different, parity.exact) == (12, (), True)
        assert parity.passed
        assert "12 of 12 answers are those that were scored" in parity.lines()[0]


def test_an_answer_that_was_another_is_shown(run: Path, host: TransformersBackend) -> None:
    (ready,) = load_servable(run, "full")
    first = next(iter(ready.tuned.predictions))
    ready.tuned.predictions[first] = tuneoff.Prediction(first, "something else")
    parity = check_agreement(host, ready)
    assert [each[:2] for each in parity.different] == [(first, "something else")]
    assert not parity.passed
    assert f"{first}: scored 'something else'" in parity.lines()[1]


@pytest.mark.parametrize(
    ("parity", "passed", "warned"),
    [
        (Agreement("lora", 0, 0, True, ()), False, ""),  # nothing compared is nothing shown
        (Agreement("lora", 4, 3, True, ()), True, ""),
        (Agreement("lora", 4, 4, True, ()), False, "NONE of the 4 answers is the text"),
        (Agreement("lora", 6, 0, False, (), as_good=6), False, "NONE of the 6 answers is the text"),
        # Right both times in other words shows something, wrong both times does not.
        (Agreement("lora", 6, 0, False, (), as_good=5), True, ""),
        (Agreement("lora", 6, 0, False, (), as_good=5, untold=3), True, ""),
        (
            Agreement("lora", 6, 0, False, (), as_good=4, untold=4),
            False,
            "4 of 6 answers are other",
        ),
        (Agreement("lora", 1, 0, True, (("id", "a", "b"),)), False, "NONE of the 1 answers"),
    ],
)
def test_what_shows_that_two_models_are_one(parity: Agreement, passed: bool, warned: str) -> None:
    assert parity.passed is passed
    assert warned in "".join(parity.warnings())
    assert bool(parity.warnings()) is bool(warned)


def test_through_the_server(run: Path, tmp_path: Path) -> None:
    example = RunDir(run).examples("test")[0]
    predictions = {
        "lora": RunDir(run).contender("lora").seed(0).predictions(),
        "full": RunDir(run).contender("full").predictions(),
    }
    with server(tmp_path / "data", str(run), "--strict") as (port, _):
        status, models = request(port, "GET", "/v1/models")
        assert (status, [each["id"] for each in models["data"]]) == (200, ["lora", "full"])
        for name, scored in predictions.items():
            body = {"model": name, "prompt": prompts.render_text(example, SAMPLE), "temperature": 0,
                    "max_tokens": 12}  # fmt: skip
            status, answer = request(port, "POST", "/v1/completions", body)
            assert status == 200
            assert answer["choices"][0]["text"] == scored[example.id].prediction
        assert request(port, "DELETE", "/v1/models/lora")[0] == 403


def test_strict_does_not_open_on_a_difference(cli: Any, run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "contenders" / "full" / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "prediction": "x"}) + "\n" for row in rows))
    code, _, err = cli(
        "serve", copy, "--contender", "full", "--strict", "--data-dir", tmp_path / "data"
    )
    assert code == 2
    assert "full: 0 of 12 answers are those that were scored" in err
    assert "--strict: full does not answer here as it did" in err


def test_what_cannot_be_served(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"there is no bakeoff\.yaml"):
        load_servable(tmp_path)
    with pytest.raises(ConfigError, match="--contender: unknown contender 'lor'"):
        load_servable(run, "lor")
    with pytest.raises(ConfigError, match="no contender of it was tuned here as prompted"):
        load_servable(run, "prompted")
