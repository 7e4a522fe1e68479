"""How fast own models answer: once, bounded, on real prompts, without touching predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tuneoff
from tuneoff.contenders import measuring
from tuneoff.progress import Silent
from tuneoff.records import Example, Prediction, Results
from tuneoff.rundir import RunDir

FILE = """\
name: speed
task: {{id: functional_representation, source: sample, max_new_tokens: 6,
        limit: {{train: 16, validation: 4, test: 6}}}}
contenders:
  - {{name: prompted, id: prompted, base: {base}, shots: 1}}
  - {{name: lora, id: local, base: {base}, train: {{max_steps: 2, batch_size: 8}}, seeds: [0, 1]}}
"""


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Clock:
    """Time that goes on by so much with each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def endless(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_it_ends_when_there_are_enough_or_time_is_up() -> None:
    quick = measuring.bounded(endless(0.05), 15.0, Clock(0.0625))
    # 2 seconds are over after 32 answers, which are enough; the first one is not counted.
    assert len(quick) == 31
    slow = measuring.bounded(endless(4.0), 15.0, Clock(4.0))
    assert len(slow) == 3
    hours = measuring.bounded(endless(3600.0), 15.0, Clock(3600.0))
    assert hours == [3600.0], "one answer is better than none, whatever it prepared"
    assert measuring.bounded(iter([1.0, 2.0, 3.0]), 15.0, Clock(0.0)) == [2.0, 3.0]
    assert measuring.bounded(iter([]), 15.0, Clock(0.0)) == []


def test_its_time_is_bounded_by_that_of_the_answers() -> None:
    limits = [measuring.limit(seconds) for seconds in (0.0, 1.0, 20.0, 10_000.0)]
    assert limits == [2.5, 2.5, 10.0, 15.0]


def test_percentiles_are_measured_values() -> None:
    values = [float(n) for n in range(20, 0, -1)]
    assert measuring.percentile(values, 0.95) == 19.0
    assert measuring.percentile(values, 0.5) == 10.0
    assert measuring.percentile([7.0], 0.95) == 7.0


def test_a_record_says_no_more_than_was_measured() -> None:
    answered = [Prediction(str(n), "x", seconds=0.25) for n in range(4)]
    few = measuring.record(answered, [1.0, 3.0])
    assert (few.seconds_p50, few.seconds_p95) == (2.0, None)
    assert (few.requests_per_second, few.saturated, few.alone) == (4.0, 4, 2)
    nothing = measuring.record([Prediction("a", "x")], [])
    assert (nothing.seconds_p50, nothing.requests_per_second) == (None, None)
    many = measuring.record(answered, [float(n) for n in range(1, 21)])
    assert many.seconds_p95 == 19.0


def test_prompts_are_spread_over_the_test_set() -> None:
    examples = [Example(str(n), {}, "") for n in range(10)]
    assert [e.id for e in measuring.spread(examples, 4)] == ["0", "2", "5", "7"]
    assert measuring.spread(examples, 20) == examples
    assert measuring.spread([], 20) == []


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
        assert 1 <= record.alone <= 6
        assert record.saturated == 6
        assert contender.serving.seconds_p50 == record.seconds_p50
        assert (record.seconds_p50 or 0) > 0
        assert contender.serving.requests_per_second == record.requests_per_second
        assert contender.serving.seconds_p95 is None, "six answers are no 95%"
        assert contender.place == "own"


def test_the_same_command_again_measures_nothing(
    finished: tuple[RunDir, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = finished
    files = sorted(run.path.rglob("serving.json")) + sorted(run.path.rglob("predictions.jsonl"))
    assert len(files) == 5
    before = [file.read_bytes() for file in files]
    monkeypatch.setattr("tuneoff.contenders.measuring.measured", None)
    heard = Heard()
    tuneoff.run(tuneoff.load(run.path.parent / "b.yaml"), run.path, progress=heard)
    assert [file.read_bytes() for file in files] == before
    assert not [line for line in heard.lines if "not measured" in line]


def test_a_measurement_that_fails_leaves_the_scores(
    finished: tuple[RunDir, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, results = finished
    kept = run.path / "contenders/prompted/serving.json"
    text = kept.read_text()
    kept.unlink()

    def broken(*_: object) -> None:
        raise RuntimeError("no memory left\nand more")

    monkeypatch.setattr("tuneoff.contenders.measuring.measured", broken)
    heard = Heard()
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
