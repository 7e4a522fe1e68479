"""Graders that ask a model, through the real SDK against a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from judge_server import Server, running_server

from tuneoff.bakeoff.budget import build_grader_budgets
from tuneoff.config.contenders import RecordedConfig
from tuneoff.config.schema import BakeOff, GraderConfig, TaskConfig
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import BudgetError, DataError
from tuneoff.records import ScoredRow
from tuneoff.scoring.added_metrics import load_grader
from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.llm_judge import find_unread_reply
from tuneoff.scoring.model_grader import ModelGrader, parse_result

pytest.importorskip("openai")
ROWS = [
    ScoringInput("1", "Lima", "LIMA", {"item": {"label": "Lima"}}),
    ScoringInput("2", "Lima", "Oslo", {"item": {"label": "Lima"}}),
    ScoringInput("3", "Lima", "", {"item": {"label": "Lima"}}),
]
SCORE = {
    "type": "score_model", "name": "Quality", "model": "gone", "range": [0, 10],
    "pass_threshold": 7,
    "input": [
        {"role": "developer", "content": {"type": "input_text", "text": "Grade."}},
        {"role": "user", "content": ["Right: {{item.label}}", "Said: {{ sample.output_text }}"]},
    ],
    "sampling_params": {"max_completions_tokens": 100, "temperature": 0.5, "seed": 1},
}  # fmt: skip
LABEL = {
    "type": "label_model", "name": "Tone", "model": "m", "labels": ["kind", "rude"],
    "passing_labels": ["kind"], "input": [{"role": "user", "content": "{{sample.output_text}}"}],
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def settings_for(folder: Path, server: Server, value: Any, **more: Any) -> GraderConfig:
    (folder / "g.json").write_text(json.dumps(value))
    host, port = server.server_address[:2]
    url = f"http://{host!s}:{port}/v1"
    return GraderConfig(id="grader", file="g.json", model="m", base_url=url, concurrency=1, **more)


def grader(folder: Path, server: Server, value: Any) -> ModelGrader:
    found = load_grader(settings_for(folder, server, value), folder)
    assert isinstance(found, ModelGrader)
    return found


def test_it_asks_once_per_answer_with_its_turns_filled_in(server: Server, tmp_path: Path) -> None:
    server.rule = lambda prompt, a, b: (
        '{"steps": [{"description": "x", "conclusion": "{"}], "result": 8.5}'
        if "LIMA" in prompt
        else "```json\n" + '{"result": -3}' + "\n```"
    )
    scorer = grader(tmp_path, server, SCORE)
    # 8.5 passes 7; a score below the range becomes its end, as OpenAI's guide says.
    assert list(scorer.score_rows(ROWS, Options())) == [
        ScoredRow("1", {"quality": 8.5, "quality_passed": True}, "right"),
        ScoredRow("2", {"quality": 0.0, "quality_passed": False}, "wrong"),
        ScoredRow("3", {"quality": 0.0, "quality_passed": False}, "no answer"),
    ]
    assert len(server.bodies) == 2
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 100, 0.5)
    assert [(turn["role"], turn["content"]) for turn in body["messages"][:2]] == [
        ("developer", "Grade."), ("user", "Right: Lima\nSaid: LIMA"),
    ]  # fmt: skip
    assert "a number from 0 to 10" in body["messages"][2]["content"]
    assert scorer.doubts(ROWS) == ["g.json: seed of its sampling_params is not sent."]


def test_labels(server: Server, tmp_path: Path) -> None:
    replies = iter(['{"result": "kind"}', "rude", '{"result": "so so"}'])
    server.rule = lambda prompt, a, b: next(replies)
    rows = [ScoringInput(str(n), "x", f"answer {n}") for n in range(3)]
    scorer, kept = grader(tmp_path, server, LABEL), tmp_path / "judgements.jsonl"
    found = list(scorer.score_rows(rows, Options(judgements=kept)))
    assert [row.scores for row in found] == [{"tone": True}, {"tone": False}, {}]
    assert found[2].verdict == "the grader did not say"
    assert scorer.find_unread(kept, {"0", "1", "2"}) == ("2", '{"result": "so so"}')
    assert scorer.find_unread(kept, {"0", "1"}) is None
    assert find_unread_reply(kept, "m", {"0", "1", "2"}) is None, "none of them is a judge's"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("0.5", "0.5"),
        ('Well: {"result": 3} ', 3),
        ('I weigh {a} and {b}. {"result": "0.4"}', "0.4"),
        ('{"score": 1}', '{"score": 1}'),
        ("**kind**.", "kind"),
        ("", ""),
    ],
)
def test_what_a_reply_says(reply: str, expected: Any) -> None:
    assert parse_result(reply) == expected


def test_what_was_said_is_kept_and_paid_within_the_budget(server: Server, tmp_path: Path) -> None:
    server.rule = lambda prompt, a, b: '{"result": 7}'
    price = {"input_usd_per_million_tokens": 1000, "output_usd_per_million_tokens": 2000}
    settings = settings_for(tmp_path, server, SCORE, price=price)
    task = TaskConfig(id="chat", train="t.jsonl", metrics=(settings,))
    recorded = RecordedConfig(name="r", id="recorded", predictions="p.jsonl")
    bakeoff = BakeOff(name="x", task=task, contenders=(recorded,), folder=tmp_path)
    kept, events = tmp_path / "judgements.jsonl", tmp_path / "events.jsonl"
    for _ in range(2):
        ledger = Ledger(events)
        purses, unpriced = build_grader_budgets(bakeoff, ledger)
        assert not unpriced
        scorer = load_grader(settings, tmp_path)
        options = Options(judgements=kept, grader_budgets=purses)
        found = list(scorer.score_rows(ROWS[:2], options))
        assert [row.scores["quality"] for row in found] == [7, 7]
        assert len(server.bodies) == 2
        # Two questions of 9 tokens, and 1 of answer each.
        assert ledger.spent("judge:m").known == 2 * (Decimal(9000) + Decimal(2000)) / 10**6
    poor = Ledger(tmp_path / "poor.jsonl", 0.1)  # the 100 tokens of a reply alone can cost $0.20
    purses, _ = build_grader_budgets(bakeoff, poor)
    with pytest.raises(BudgetError, match="judge:m: judging can cost up to"):
        list(load_grader(settings, tmp_path).score_rows(ROWS, Options(grader_budgets=purses)))
    assert len(server.bodies) == 2


def test_a_field_that_is_not_there_is_refused_unasked(server: Server, tmp_path: Path) -> None:
    scorer = grader(tmp_path, server, SCORE)
    with pytest.raises(DataError, match=r"example '1' has no field for the template: item\.label"):
        list(scorer.failing([ScoringInput("1", "a", "a")], Options()))
    assert not server.bodies
    # The question as it would be, the answer once more as long as it may get, and the reply.
    asked, reply = scorer.most_tokens(ROWS[0], 1000)
    assert reply == 100
    assert 1000 < asked < 1400
