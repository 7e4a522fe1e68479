"""A finished run directory to report on: three contenders, one failed, hostile answers."""

from __future__ import annotations

import pytest
from made_results import HOSTILE, contender, pair, results, training, write_answers

from tuneoff.records import LossRow
from tuneoff.results import LatencyStats, Recommendation
from tuneoff.storage.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """SQL and functional inputs; `lora` and `few-shot` answered, `hosted` failed."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "demo")
    sql = [
        {"question": f"How many are older than {i}? {HOSTILE}", "context": "CREATE TABLE t (a)"}
        for i in range(20)
    ]
    functional = [{"sentence": f"Dirt {i} is a good game."} for i in range(20)]
    run.write_examples(
        "test",
        (
            {"id": f"e{i}", "inputs": inputs, "completion": f"SELECT {i}", "meta": {}}
            for i, inputs in enumerate(sql + functional)
        ),
    )
    write_answers(run, "lora", [i % 5 != 0 for i in range(40)])
    write_answers(run, "few-shot", [i % 3 == 0 for i in range(40)])
    losses = [(0, 0, 5.25), (1, 32, 0.75), (2, 64, 0.125), (3, 96, None)]
    run.write_results(
        results(
            [
                contender(
                    "few-shot",
                    0.3333,
                    id="prompted",
                    error_classes={"wrong": 26},
                    prompt_sha256="b" * 64,
                ),
                contender("hosted", id="hosted", error="openai refused the key | <b>401</b>."),
                contender(
                    "lora",
                    0.8125,
                    training=training(),
                    prompt_sha256="a" * 64,
                    loss=tuple(LossRow(s, n, v, v) for s, n, v in losses),
                    error_classes={"unknown column": 7, "<b>odd</b> | class": 1},
                    serving=LatencyStats(0.041, 0.09, 24.3, 121.4, 19.8),
                ),
            ],
            comparisons=(pair("few-shot", "lora", "b better", -0.4792),),
            recommendation=Recommendation("lora", ("lora: 81.2%.",), ("hosted failed: <i>x</i>",)),
        )
    )
    return run
