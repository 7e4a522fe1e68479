"""Repeated answers: K of each test example, each paid for once, and an example counts once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers import recompute
from world import PRICE, Trainer, bakeoff_file, hosted, prompted, rows
from world import run as carry_out

import tuneoff
from tuneoff.cli.tables import render_results
from tuneoff.contenders.batch_inference import BatchJobs, _collect_extra_answers
from tuneoff.contenders.samples import name_requests, read_request
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import BudgetError, ConfigError, DataError
from tuneoff.providers.base import BatchRow, Reply
from tuneoff.records import Example, Prediction
from tuneoff.report.view import describe_repeated_answers
from tuneoff.results import ContenderResult
from tuneoff.storage.run_dir import ContenderDir, RunDir

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")
TESTS = 12


def asked_with(file: Path, **changed: Any) -> ContenderResult:
    """Carries a file out with some of its one contender's settings changed."""
    value = yaml.safe_load(file.read_text())
    value["contenders"][0] |= changed
    file.write_text(yaml.safe_dump(value))
    results = carry_out(file)
    shown, samples = render_results(results), results.contenders[0].samples
    assert (f"answered each test example {samples} times" in shown) == (samples > 1)
    return results.contenders[0]


def sampled(file: Path) -> Counter[int]:
    """How many answers there are of each sample; no two of the same example and sample."""
    found = [(row["id"], row.get("sample", 0)) for row in rows(file, "asked")]
    assert len(found) == len(set(found))
    return Counter(sample for _, sample in found)


def test_more_samples_are_added_and_fewer_are_used(fake: Trainer, tmp_path: Path) -> None:
    fake.set(varies=True)
    contender = prompted(fake.url, price=PRICE, temperature=0.7)
    file = bakeoff_file(tmp_path / "b", contender, test=TESTS)
    once = asked_with(file)
    assert (once.samples, once.samples_disagree, once.cost.all_answers_usd) == (1, None, None)
    assert fake.saw()["chat_bodies"][0]["temperature"] == 0.7
    assert "temperature 0.7" in once.model
    first = rows(file, "asked")
    assert not any("sample" in row for row in [*first, *rows(file, "asked", "scores")])

    thrice = asked_with(file, samples=3)
    assert sampled(file) == dict.fromkeys(range(3), TESTS)
    assert rows(file, "asked")[:TESTS] == first
    assert fake.completions() == 3 * TESTS
    assert (thrice.samples, thrice.samples_disagree) == (3, 1.0)
    score = thrice.scores["exact_match"]
    # Right and wrong by turns, and which comes first depends on the question.
    right = sum(row["scores"]["exact_match"] for row in rows(file, "asked", "scores"))
    assert (score.n, score.value) == (TESTS, pytest.approx(right / (3 * TESTS)))
    assert 1 / 3 <= (score.value or 0) <= 2 / 3
    billed = fake.billed_usd()
    assert thrice.cost.all_answers_usd == pytest.approx(billed)
    assert thrice.cost.answering_usd == pytest.approx(billed / 3)
    # Only first answers are timed: the prompts of the others may be in a cache by then.
    assert thrice.serving.requests == once.serving.requests

    assert recompute(file.parent / "run").wrong == []

    twice = asked_with(file, samples=2)
    assert (fake.completions(), twice.samples, sampled(file)[2]) == (3 * TESTS, 2, TESTS)
    used = rows(file, "asked", "scores")
    right = sum(row["scores"]["exact_match"] for row in used)
    assert twice.scores["exact_match"].value == pytest.approx(right / (2 * TESTS))
    assert twice.cost.answering_usd == pytest.approx(billed / 3)
    assert {row.get("sample", 0) for row in used} == {0, 1}
    assert recompute(file.parent / "run").wrong == []


def test_a_budget_stops_in_the_second_sample_and_nothing_is_paid_twice(
    fake: Trainer, tmp_path: Path
) -> None:
    fake.set(bills=60.0, latency=0.005)
    contender = prompted(fake.url, price=PRICE, samples=3, concurrency=2)
    file = bakeoff_file(tmp_path / "b", contender, test=TESTS, budget_usd=0.0047, measure=False)
    with pytest.raises(BudgetError, match="everything done so far is kept"):
        carry_out(file)
    found = sampled(file)
    assert (found[0], found[2]) == (TESTS, 0)  # whole samples first
    assert 0 < found[1] < TESTS
    (file.parent / "bakeoff.yaml").write_text(file.read_text().replace("0.0047", "1.0"))
    assert asked_with(file).error is None
    assert sampled(file) == dict.fromkeys(range(3), TESTS)
    assert set(fake.saw()["asked"].values()) == {3}
    spent = Ledger(file.parent / "run" / "events.jsonl").spent()
    assert (float(spent.known), spent.uncertain) == (pytest.approx(fake.billed_usd()), 0)


def test_a_replay_gives_each_sample_its_own_answer(fake: Trainer, tmp_path: Path) -> None:
    """Though several of the same example were under way at once."""
    fake.set(varies=True, latency=0.005)
    contender = prompted(fake.url, record=True, samples=4, concurrency=16)
    file = bakeoff_file(tmp_path / "b", contender, test=3, measure=False)
    before = carry_out(file).contenders[0]
    assert fake.saw()["most_at_once"] > 3
    recorded = RunDir(file.parent / "run")
    again = tuneoff.run(tuneoff.load(file), tmp_path / "again", replay=recorded.path)
    replayed = RunDir(tmp_path / "again").contender("asked").answers()
    assert replayed == recorded.contender("asked").answers()
    assert again.contenders[0].scores == before.scores
    assert fake.completions() == 12
    # What was not recorded is not made up of what was.
    file.write_text(file.read_text().replace("samples: 4", "samples: 5"))
    more = tuneoff.run(tuneoff.load(file), tmp_path / "more", replay=recorded.path)
    assert "the recording holds no answer" in (more.contenders[0].error or "")


def test_a_batch_holds_all_samples(fake: Trainer, tmp_path: Path) -> None:
    fake.set(varies=True)
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, price=PRICE, batch=True), test=4)
    asked_with(file)
    found = asked_with(file, samples=3)
    assert [batch["total"] for batch in map(_counts, fake.saw()["batches"])] == [4, 8]
    assert sampled(file) == dict.fromkeys(range(3), 4)
    assert (found.samples, found.scores["exact_match"].n) == (3, 4)
    assert found.cost.all_answers_usd == pytest.approx(fake.billed_usd())


def _counts(batch: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, Any] = batch["request_counts"]
    return counts


def test_a_batch_that_held_more_samples_is_kept_whole(tmp_path: Path) -> None:
    """It was sent when the file asked for three, and is read when it asks for one."""
    directory = ContenderDir(tmp_path)
    directory.append_predictions([Prediction("a", "before"), Prediction("a", "it", sample=1)])
    work: Any = SimpleNamespace(test=[Example("a", {}, "")], directory=directory)
    names = ("a", "sample-1/a", "sample-2/a", "sample-2/gone")
    found = _collect_extra_answers(work, [BatchRow(name, 200, Reply("it")) for name in names], {})
    assert [(each.id, each.sample, each.prediction) for each in found] == [("a", 2, "it")]


def test_a_batch_that_was_not_sent_asks_for_no_more_than_the_file(tmp_path: Path) -> None:
    """The file asked for two samples when the batch was prepared, and now asks for one."""
    directory, url = ContenderDir(tmp_path), "http://127.0.0.1:1/v1"
    prepared = {"intent": "i", "since": 0.0, "ids": ["a", "sample-1/a"], "file": None,
                "batch_id": None, "status": None, "look_until": None, "read": False}  # fmt: skip
    work: Any = SimpleNamespace(directory=directory, replay=None, max_new_tokens=8)
    settings: Any = SimpleNamespace(temperature=None)
    batches: Any = SimpleNamespace(url=url, request=lambda *asked: {"custom_id": asked[0]})
    for sent, left, ids in (
        ({}, ("a",), ["a"]),
        ({}, ("a", "sample-1/a"), ["a", "sample-1/a"]),
        ({"batch_id": "b"}, ("a",), ["a", "sample-1/a"]),
    ):
        directory.write_batches([prepared | sent])
        facts = BatchJobs(settings, work, batches, "m").current({name: [] for name in left})
        assert (facts["ids"], len(directory.batches())) == (ids, 1)


def test_requests_of_a_batch_have_names_of_their_own() -> None:
    one, like = Example("a", {}, ""), Example("sample-1/a", {}, "")
    named = name_requests([(one, 0), (one, 1), (like, 0)][:2])
    assert named == {"a": (one, 0), "sample-1/a": (one, 1)}
    assert (read_request("sample-12/a", {"a"}), read_request("a", {"a"})) == (("a", 12), None)
    with pytest.raises(DataError, match="two requests of a batch would have one name"):
        name_requests([(one, 1), (like, 0)])


def test_a_temperature_that_is_refused_is_not_left_out(fake: Trainer, tmp_path: Path) -> None:
    fake.set(newer_model=True)
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, temperature=0.7), test=2)
    assert "Unsupported: temperature" in (carry_out(file).contenders[0].error or "")
    assert fake.saw()["asked"] == {}


def test_a_plan_counts_every_sample(fake: Trainer, tmp_path: Path) -> None:
    def plan_of(samples: int) -> Any:
        contender = hosted(fake.url, price=PRICE, samples=samples)
        return tuneoff.plan(tuneoff.load(bakeoff_file(tmp_path / f"{samples}", contender)))

    once, thrice = plan_of(1), plan_of(3)
    tuning = once.contenders[0].training.usd
    answering = once.contenders[0].answering_usd
    (planned,) = thrice.contenders
    assert (planned.samples, planned.training.usd) == (3, tuning)
    assert planned.answering_usd == pytest.approx(3 * answering)
    one = (thrice.most_usd - once.most_usd) / 2
    assert thrice.most_usd - 3 * one == pytest.approx(once.most_usd - one)
    assert one > answering
    assert any(
        "asked 3 times (samples); the cost of answering is for all 24" in line
        for line in planned.warnings
    )
    assert not any("samples" in line for line in once.contenders[0].warnings)


@pytest.mark.parametrize(
    ("contender", "message"),
    [
        ({"id": "local", "samples": 3}, "contenders.0: samples: an open base answers greedily"),
        ({"id": "prompted", "base": "tiny", "samples": 3}, "samples: an open base answers greedi"),
        ({"id": "prompted", "base": "tiny", "temperature": 1}, "temperature: an open base"),
        (
            {"id": "recorded", "predictions": "p.jsonl", "samples": 3},
            "samples: nothing is asked; the rows of its predictions say which `sample` they are",
        ),
        (
            {"id": "prompted", "model": "m", "temperature": 1, "reasoning_effort": "low"},
            "a model takes no temperature while it reasons",
        ),
        ({"id": "hosted", "model": "m", "samples": 0}, "samples is 0: .*greater than or equal"),
        ({"id": "hosted", "model": "m", "temperature": 3}, "temperature is 3: .*less than or equ"),
    ],
)
def test_what_has_no_samples_is_refused(
    tmp_path: Path, contender: dict[str, Any], message: str
) -> None:
    file = bakeoff_file(tmp_path / "b", {"name": "x", **contender})
    with pytest.raises(ConfigError, match=message):
        tuneoff.load(file)


def test_recorded_answers_may_be_several(tmp_path: Path, cli: Any) -> None:
    """Their rows say which sample they are; `tuneoff score` reads the same file."""
    contender = {"name": "asked", "id": "recorded", "predictions": "answers.jsonl"}
    file = bakeoff_file(tmp_path / "b", contender, test=4)
    tests = [row["messages"][1]["content"] for row in _lines(file.parent / "test.jsonl")]
    given = [
        {
            "id": f"test-{line}",
            "prediction": text if (line + sample) % 2 else "no",
            "sample": sample,
        }
        for line, text in enumerate(tests, 1)
        for sample in range(2)
        if (line, sample) != (4, 1)
    ]
    path = file.parent / "answers.jsonl"
    elsewhere = {"id": "of no test example", "prediction": "no", "sample": 9}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*given, elsewhere]))
    (found,) = carry_out(file).contenders
    score = found.scores["exact_match"]
    assert (found.samples, found.samples_disagree) == (2, 0.75)
    # Each has one of two right, but the last, whose right answer is not there.
    assert (score.value, score.n, score.errors) == (3 / 8, 4, 1)
    assert sampled(file) == {0: 4, 1: 4}
    (sentence,) = describe_repeated_answers([found])
    assert sentence.endswith("For 1 example an answer is missing, which counts as wrong.")

    texts = dict(zip((f"test-{line}" for line in range(1, 5)), tests, strict=True))
    path.write_text("".join(json.dumps(r | {"reference": texts[r["id"]]}) + "\n" for r in given))
    code, out, err = cli("score", "--task", "chat", "--predictions", path, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["n"], told["samples"], told["samples_disagree"]) == (4, 2, 1.0)  # of three
    assert told["scores"]["exact_match"]["value"] == 3 / 8
    assert "1 of 4 examples have fewer than 2 answers" in told["warnings"][0]
    for bad, message in (
        ([given[0]] * 2, "was already given on line 1; keep one row for each id, or say which"),
        ([given[0] | {"sample": -1}], '"sample" must be a whole number from 0 to 99, got -1'),
    ):  # fmt: skip
        path.write_text("".join(json.dumps(r | {"reference": "x"}) + "\n" for r in bad))
        code, _, err = cli("score", "--task", "chat", "--predictions", path)
        assert code == 2
        assert message in err


def test_an_example_is_left_out_with_all_its_answers(tmp_path: Path, cli: Any) -> None:
    """Also where only one of its rows has a reference that cannot be read."""
    given = [
        {"id": id, "sample": sample, "reference": reference, "prediction": "inform(a[x])"}
        for id, sample, reference in (
            ("1", 0, "no call"), ("1", 1, "inform(a[x])"),
            ("2", 0, "inform(a[x])"), ("2", 1, "inform(a[x])"),
        )
    ]  # fmt: skip
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    code, out, err = cli(
        "score", "--task", "functional_representation", "--predictions", path, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert (told["n"], told["left_out"], told["samples"]) == (1, 1, 2)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
