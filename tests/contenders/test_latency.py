"""How fast own models answer: once, bounded, on real prompts, without touching predictions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

import tuneoff
from tuneoff.contenders import latency
from tuneoff.progress import SilentProgress
from tuneoff.records import Example, Prediction
from tuneoff.results import Results
from tuneoff.storage.run_dir import RunDir

FILE = """\
name: speed
task: {{id: functional_representation, source: sample, max_new_tokens: 6,
        limit: {{train: 16, validation: 4, test: 6}}}}
contenders:
  - {{name: prompted, id: prompted, base: {base}, shots: 1}}
  - {{name: lora, id: local, base: {base}, train: {{max_steps: 2, batch_size: 8}}, seeds: [0, 1]}}
"""


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("each", "count"),
    [(0.001, 49), (0.0625, 32), (1.0, 21), (8.0, 15), (3600.0, 1)],
    ids=["quick", "enough in two seconds", "no fewer than enough", "two minutes are over", "hours"],
)
def test_it_ends_when_there_are_enough_or_time_is_up(each: float, count: int) -> None:
    examples = [Example(str(n), {}, "") for n in range(60)]
    found = latency.collect_timings(examples, itertools.repeat(each))
    assert list(found.values()) == [each] * count
    assert list(found) == [example.id for example in examples[:count]]


def test_the_first_counts_only_where_there_is_no_other() -> None:
    assert latency.drop_warm_up([9.0, 1.0, 2.0]) == [1.0, 2.0]
    assert latency.drop_warm_up([9.0]) == [9.0]
    assert latency.drop_warm_up([]) == []


def test_percentiles_are_measured_values() -> None:
    values = [float(n) for n in range(20, 0, -1)]
    assert latency.compute_percentile(values, 0.95) == 19.0
    assert latency.compute_percentile(values, 0.5) == 10.0
    assert latency.compute_percentile([7.0], 0.95) == 7.0


def test_a_record_says_no_more_than_was_measured() -> None:
    answered = [Prediction(str(n), "x", seconds=0.25) for n in range(4)]
    few = latency.build_serving_record(answered, {"a": 9.0, "b": 1.0, "c": 3.0})
    assert few.alone_seconds == {"a": 9.0, "b": 1.0, "c": 3.0}
    assert (few.seconds_p50, few.seconds_p95) == (2.0, None)
    assert (few.requests_per_second, few.saturated, few.alone) == (4.0, 4, 2)
    nothing = latency.build_serving_record([Prediction("a", "x")], {})
    assert (nothing.seconds_p50, nothing.requests_per_second) == (None, None)
    many = latency.build_serving_record(answered, {str(n): float(n) for n in range(21)})
    assert many.seconds_p95 == 19.0


def test_prompts_are_spread_over_the_test_set() -> None:
    examples = [Example(str(n), {}, "") for n in range(10)]
    assert [e.id for e in latency.sample_evenly(examples, 4)] == ["0", "2", "5", "7"]
    assert latency.sample_evenly(examples, 20) == examples
    assert latency.sample_evenly([], 20) == []
    many = [Example(str(n), {}, "") for n in range(1000)]
    chosen = latency.choose_prompts(many)
    assert [example.id for example in chosen[:3]] == ["0", "47", "95"]
    assert len({example.id for example in chosen}) == len(chosen) == 49
    assert latency.choose_prompts(examples) == examples


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Results]:
    folder = tmp_path_factory.mktemp("speed")
    (folder / "b.yaml").write_text(FILE.format(base=tiny_base))
    run = RunDir(folder / "run")
    return run, tuneoff.run(tuneoff.load(folder / "b.yaml"), run.path)


def test_own_models_are_measured_once(finished: tuple[RunDir, Results]) -> None:
    run, results = finished
    prompted = run.contender("prompted").serving()
    lora = run.contender("lora").seed(0).serving()
    assert prompted is not None
    assert lora is not None
    assert run.contender("lora").seed(1).serving() is None, "the first seed speaks for all"
    for contender, record in zip(results.contenders, (prompted, lora), strict=True):
        assert record.alone == 5, "the first one does not count"
        assert len(record.alone_seconds) == 6
        assert record.saturated == 6
        assert contender.serving.seconds_p50 == record.seconds_p50
        assert (record.seconds_p50 or 0) > 0
        assert contender.serving.requests_per_second == record.requests_per_second
        assert contender.serving.concurrency == 1
        assert contender.serving.seconds_p95 is None, "five answers are no 95%"
        assert contender.place == "own"


def test_the_same_command_again_measures_nothing(
    finished: tuple[RunDir, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = finished
    contenders = run.path / "contenders"
    files = [*contenders.rglob("serving.json"), *contenders.rglob("predictions.jsonl")]
    assert len(files) == 5
    before = [file.read_bytes() for file in files]
    monkeypatch.setattr("tuneoff.bakeoff.run.write_report", lambda run: (run.path, run.path))
    monkeypatch.setattr("tuneoff.contenders.latency.measure_local", None)
    heard = Heard()
    tuneoff.run(tuneoff.load(run.path.parent / "b.yaml"), run.path, progress=heard)
    assert [file.read_bytes() for file in files] == before
    assert not [line for line in heard.lines if "not measured" in line]


def test_a_measurement_that_fails_leaves_the_scores(
    finished: tuple[RunDir, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, results = finished
    monkeypatch.setattr("tuneoff.bakeoff.run.write_report", lambda run: (run.path, run.path))
    kept = run.path / "contenders/prompted/serving.json"
    text = kept.read_text()
    kept.unlink()

    def broken(*_: object) -> None:
        raise RuntimeError("no memory left\nand more")

    monkeypatch.setattr("tuneoff.contenders.latency.measure_local", broken)
    heard, file = Heard(), run.path.parent / "b.yaml"
    off = tuneoff.load(file).model_copy(update={"measure": False})
    untimed = tuneoff.run(off, run.path, progress=heard).contenders[0].serving
    assert not [line for line in heard.lines if "not measured" in line]
    assert (untimed.seconds_p50, untimed.requests, untimed.concurrency) == (None,) * 3
    assert untimed.requests_per_second == results.contenders[0].serving.requests_per_second
    again = tuneoff.run(tuneoff.load(run.path.parent / "b.yaml"), run.path, progress=heard)
    kept.write_text(text)
    line = "warning: prompted: its speed was not measured: RuntimeError: no memory left"
    assert line in heard.lines
    prompted = again.contenders[0]
    assert prompted.error is None
    assert prompted.scores == results.contenders[0].scores
    assert prompted.serving.seconds_p50 is None
    events = [json.loads(row) for row in run.events.read_text().splitlines()]
    assert "not measured" in {event["event"] for event in events}
