"""The judge, through the real SDK against a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from judge_server import Server, by_content, running_server

import tuneoff
from tuneoff.bakeoff.budget import build_judge_budget
from tuneoff.cli.tables import render_results
from tuneoff.config.base import PriceConfig
from tuneoff.config.contenders import RecordedConfig
from tuneoff.config.schema import BakeOff, JudgeConfig, TaskConfig
from tuneoff.costs.ledger import Ledger, Spending
from tuneoff.errors import BudgetError, ConfigError, ProviderError
from tuneoff.progress import SilentProgress
from tuneoff.records import ScoredRow
from tuneoff.results import Results
from tuneoff.scoring.base import Options, QuestionBudget, ScoringInput
from tuneoff.scoring.llm_judge import MAX_REPLY_TOKENS, Judge, check_ready

pytest.importorskip("openai")
ROWS = [
    ScoringInput(
        "1", "good", "good", inputs={"messages": [{"role": "user", "content": "Say good."}]}
    ),
    ScoringInput("2", "good", "bad", inputs={"question": "Say good."}),
    ScoringInput("3", "bad", "good", inputs={"question": "Say good. Please."}),
    ScoringInput("4", "good", ""),
]


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def settings_for(server: Server, price: PriceConfig | None = None) -> JudgeConfig:
    host, port = server.server_address[:2]
    return JudgeConfig(
        id="judge", model="m", base_url=f"http://{host!s}:{port}/v1", rubric="Be good.",
        price=price, concurrency=1,
    )  # fmt: skip


def judge(
    server: Server,
    rows: list[ScoringInput],
    kept: Path | None = None,
    purse: QuestionBudget | None = None,
) -> list[ScoredRow]:
    scorer = Judge(settings_for(server))
    return list(scorer.score_rows(iter(rows), Options(judgements=kept, budget=purse)))


def test_a_judge_that_reads(server: Server) -> None:
    server.rule = by_content
    found = judge(server, ROWS)
    assert [row.scores for row in found] == [
        {"judge": 1.0, "judge_agreement": True},
        {"judge": 0.0, "judge_agreement": True},
        {"judge": 1.0, "judge_agreement": True},
        {"judge": 0.0},
    ]
    assert [row.verdict for row in found] == ["right", "worse", "right", "no answer"]
    assert len(server.prompts) == 5, "equal answers need one question"
    assert all("Be good." in prompt and "Say good." in prompt for prompt in server.prompts)


def test_a_judge_that_prefers_what_comes_first(server: Server) -> None:
    server.rule = lambda prompt, a, b: "A"
    found = judge(server, ROWS[:3])
    assert [row.scores for row in found] == [{"judge": 0.5, "judge_agreement": False}] * 3


def test_a_judge_that_says_something_else(server: Server) -> None:
    server.rule = lambda prompt, a, b: "As a language model"
    (found,) = judge(server, ROWS[:1])
    assert (found.scores, found.verdict) == ({}, "the judge did not say")


def test_what_was_paid_for_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    kept = tmp_path / "judgements.jsonl"
    server.rule = by_content
    first = judge(server, ROWS[:2], kept)
    assert len(server.prompts) == 3
    server.rule = lambda prompt, a, b: "refuse"
    assert judge(server, ROWS[:2], kept) == first
    assert len(server.prompts) == 3
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert {(row["tokens_in"], row["tokens_out"]) for row in rows} == {(9, 1)}


def purse_of(server: Server, ledger: Ledger) -> QuestionBudget:
    price = PriceConfig.model_validate(
        {"input_usd_per_million_tokens": 1000, "output_usd_per_million_tokens": 2000}
    )
    task = TaskConfig(id="chat", train="t.jsonl", metrics=(settings_for(server, price),))
    made = BakeOff(name="x", task=task, contenders=(RecordedConfig(
        name="r", id="recorded", predictions="p.jsonl"),))  # fmt: skip
    purse, unpriced = build_judge_budget(made, ledger)
    assert unpriced is None
    assert purse is not None
    return purse


def test_what_it_costs_is_in_the_ledger(server: Server, tmp_path: Path) -> None:
    server.rule = by_content
    ledger = Ledger(tmp_path / "events.jsonl")
    judge(server, ROWS, tmp_path / "judgements.jsonl", purse_of(server, ledger))
    again = Ledger(tmp_path / "events.jsonl")
    # 5 questions of 9 tokens and 1 of answer each.
    assert again.spent("judge:m").known == 5 * (Decimal(9000) + Decimal(2000)) / 10**6
    assert again.spent("judge:m").uncertain == 0
    assert server.most == MAX_REPLY_TOKENS, "no reply is longer than leave was asked for"
    judge(server, ROWS, tmp_path / "judgements.jsonl", purse_of(server, again))
    assert again.spent("judge:m").known == Decimal("0.055"), "nothing is asked, or paid, twice"


def test_it_asks_nothing_that_could_pass_the_budget(server: Server, tmp_path: Path) -> None:
    server.rule = by_content
    ledger = Ledger(tmp_path / "events.jsonl", 9.0)  # a question can cost up to $8.6
    judge(server, ROWS[:1], tmp_path / "j.jsonl", purse_of(server, ledger))
    with Path(tmp_path / "j.jsonl").open() as kept:
        assert len(kept.readlines()) == 1
    poor = Ledger(tmp_path / "poor.jsonl", 0.5)
    with pytest.raises(BudgetError, match="judge:m: judging can cost up to"):
        judge(server, ROWS[1:2], None, purse_of(server, poor))
    assert len(server.prompts) == 1


def test_a_refused_question_costs_nothing(server: Server, tmp_path: Path) -> None:
    server.rule = lambda prompt, a, b: "refuse"
    ledger = Ledger(tmp_path / "events.jsonl")
    with pytest.raises(ProviderError):
        judge(server, ROWS[:1], None, purse_of(server, ledger))
    assert ledger.spent() == Spending()


def test_a_gateways_503_may_have_been_billed(server: Server, tmp_path: Path) -> None:
    replies = iter(["busy", "tie"])
    server.rule = lambda prompt, a, b: next(replies)
    ledger = Ledger(tmp_path / "events.jsonl")
    judge(server, ROWS[:1], None, purse_of(server, ledger))
    assert ledger.spent().known == Decimal("0.011")
    assert ledger.spent().uncertain > 4


def test_a_judge_without_a_price_is_said(tmp_path: Path) -> None:
    metric = JudgeConfig(
        id="judge", model="no-such", base_url="https://example.org/v1", rubric="Be good."
    )
    task = TaskConfig(id="chat", train="t.jsonl", metrics=(metric,))
    recorded = RecordedConfig(name="r", id="recorded", predictions="p.jsonl")
    made = BakeOff(name="x", task=task, contenders=(recorded,))
    purse, unpriced = build_judge_budget(made, Ledger(tmp_path / "events.jsonl"))
    assert purse is None
    assert unpriced == (
        "the judge no-such has no price in the book, so what it costs is not counted; give it a "
        "`price:`."
    )


def test_a_refusal_is_one_sentence(server: Server) -> None:
    server.rule = lambda prompt, a, b: "refuse"
    with pytest.raises(ProviderError, match=r"model 'm' did not answer: .*no such model"):
        judge(server, ROWS[:1])


def test_without_a_key_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = JudgeConfig(id="judge", model="m", rubric="Be good.")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        check_ready(settings)


class Heard(SilentProgress):
    """Progress that remembers what was last said of each contender."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}

    def status(self, name: str, words: str) -> None:
        self.statuses[name] = words


def judged_run(server: Server, folder: Path, metrics: str) -> tuple[Results, Heard]:
    """A run of two recorded contenders; one of their answers is as it should be."""
    rows = [{"prompt": f"Say {i}.", "completion": "good"} for i in range(40)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, said in (("loud", "Good!"), ("bad", "bad")):
        answers = [{"id": f"d-{i}", "prediction": said} for i in range(1, 41)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    (folder / "judge_of.py").write_text(
        "def score(example, prediction):\n    return 0.25 if prediction == 'Good!' else 0.0\n"
    )
    host, port = server.server_address[:2]
    judge_of_file = (
        f"{{id: judge, model: m, base_url: 'http://{host!s}:{port}/v1', rubric: Be good.}}"
    )
    metrics = metrics.replace("JUDGE", judge_of_file)
    (folder / "b.yaml").write_text(
        f"name: judged\ntask: {{id: chat, train: d.jsonl, metrics: [{metrics}]}}\ncontenders:\n"
        "  - {name: loud, id: recorded, predictions: loud.jsonl}\n"
        "  - {name: bad, id: recorded, predictions: bad.jsonl}\n"
    )
    heard = Heard()
    return tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run", progress=heard), heard


def test_replies_that_cannot_be_read_are_counted_and_one_is_shown(
    server: Server, tmp_path: Path
) -> None:
    said = "<b>Well</b>, I'd | say\x1b[31m\u202e " + "so " * 300
    server.rule = lambda prompt, a, b: said if "Good!" in (a, b) else by_content(prompt, a, b)
    results, heard = judged_run(server, tmp_path, "JUDGE, exact_match")
    assert heard.statuses == {"loud": "done", "bad": "judge 0.0%"}
    unread = results.judge_unread
    assert unread is not None
    assert (unread.answers, unread.of, len(unread.reply or "")) == (4, 8, 500)
    assert results.contenders[0].scores.keys() == {"exact_match"}
    words = "The judge's replies about 4 of 8 answers could not be read as A, B or TIE"
    markdown = (tmp_path / "run" / "report.md").read_text()
    html = (tmp_path / "run" / "report.html").read_text()
    terminal = render_results(results)
    for shown in (markdown, html.replace("&#39;", "'"), terminal):
        assert words in shown
        assert "\x1b" not in shown
        assert "⟨U+202E⟩" in shown
        assert 10 < shown.count("so so") + shown.count("so ") < 200
    assert "<b>Well" not in html + markdown
    assert "about " + str(unread.id) in terminal.lower()


def test_progress_shows_the_metric_that_decides(server: Server, tmp_path: Path) -> None:
    server.rule = lambda prompt, a, b: "A" if "Good!" in (a, b) else by_content(prompt, a, b)
    results, heard = judged_run(server, tmp_path, "judge_of.py, exact_match, JUDGE")
    assert results.primary_metric == "judge_of"
    assert heard.statuses == {"loud": "judge of 25.0%", "bad": "judge of 0.0%"}
    assert results.contenders[0].scores["judge"].value == 0.5
    assert results.judge_unread is None
