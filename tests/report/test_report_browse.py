"""The browser's cards and filters, the marks in answers, the file beside the page, and the other
tables and charts that a made-up run has."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import METRIC, contender, results, training
from made_run import N, make

from tuneoff.report import example_browser, write_report
from tuneoff.report.charts.base import build_loss_chart
from tuneoff.report.charts.breakdown import build_breakdown_chart, has_intervals, list_chart_keys
from tuneoff.report.charts.cost import build_cost_chart, find_pareto_front
from tuneoff.report.example_browser import mark_differences
from tuneoff.report.tables import COLUMNS, build_ladder, build_table, render_csv
from tuneoff.report.view import build_view, rank_contenders
from tuneoff.results import Cost, LatencyStats, Score
from tuneoff.storage.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    made = make(tmp_path_factory.mktemp("runs") / "made")
    write_report(made)
    return made


def values(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a chart's first layer."""
    data = spec["layer"][0].get("data") or spec["data"]
    return data["values"] if "values" in data else spec["datasets"][data["name"]]


def test_differences_are_marked_by_words() -> None:
    found = mark_differences("SELECT a FROM t WHERE b >= 3", "SELECT a, c FROM t WHERE b > 3")
    assert found == [
        ("", "SELECT a "), ("missing", ", c "), ("", "FROM t WHERE b >"), ("added", "= "),
        ("", "3"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("a  b\n", "a b"), ("", "a"), ("a", ""), ("x y z", "a b c"), ("a " * 900, "a b " * 450)],
    ids=["blanks", "no answer", "no reference", "nothing in common", "again and again"],
)
def test_where_marks_would_tell_nothing_there_are_none(answer: str, reference: str) -> None:
    assert mark_differences(answer, reference) == [("", answer)]


@given(st.text("ab ,.\n\u3000é", max_size=60), st.text("ab ,.\n\u3000é", max_size=60))
def test_without_what_is_missing_the_pieces_are_the_answer(answer: str, reference: str) -> None:
    pieces = mark_differences(answer, reference)
    assert "".join(text for kind, text in pieces if kind != "missing") == answer
    assert all(text for kind, text in pieces if kind)


def test_cards_and_what_they_can_be_filtered_by(run: RunDir) -> None:
    found = example_browser.build_browser(
        example_browser.load_answered(run, run.results()), lambda view: json.dumps(view)
    )
    assert found["names"] == ["full", "lora-all-linear", "lora-seed", "prompted"]
    assert found["classes"] == ["does not parse", "unknown column"]
    assert found["groups"] == [
        ("db_id", ["huts_0", "huts_1", "huts_2"]),
        ("hardness", ["easy", "extra", "hard", "medium"]),
    ]
    cards = [json.loads(card) for card in found["cards"]]
    assert len(cards) == found["of"] == N
    assert [card["number"] for card in cards] == list(range(1, N + 1))
    assert len({card["id"] for card in cards}) == N
    sure = [any(right for right, _ in card["marks"]) for card in cards]
    assert sure[:10] == [True] * 10
    wrong = next(answer for answer in cards[0]["answers"] if not answer["right"])
    assert [table["title"] for table in wrong["tables"]] == ["of the reference", "of the answer"]
    question, context = cards[0]["inputs"]
    assert (question[2], context[2][:12]) == ("", "CREATE TABLE"), "only the long one is folded"


def test_the_first_examples_are_those_of_markdown(run: RunDir) -> None:
    found = example_browser.load_answered(run, run.results())
    assert found.choose(200)[:10] == found.choose(10)
    assert len(set(found.choose(200))) == N


def test_a_page_without_room_has_a_file_beside_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not run.all_examples.exists(), "the page has all"
    monkeypatch.setattr(example_browser, "MAX_CARDS", 12)
    page = write_report(run)[0].read_text()
    assert "The page has 12 of 60; all of them" in page
    assert page.count("<article") == 12
    rows = [json.loads(line) for line in run.all_examples.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"huts-{i}" for i in range(N)]
    assert list(rows[0]["answers"]) == ["full", "lora-all-linear", "lora-seed", "prompted"]
    assert rows[5]["groups"] == {"db_id": "huts_2", "hardness": "medium"}
    scores = run.contender("full").scores()
    predictions = run.contender("full").predictions()
    for row in rows:
        assert row["answers"]["full"]["right"] == scores[row["id"]].scores[METRIC]
        assert row["answers"]["full"]["prediction"] == predictions[row["id"]].prediction

    found = example_browser.load_answered(run, run.results())
    example_browser.write_all_examples(run, None, 0)
    assert not run.all_examples.exists(), "a report without examples leaves none behind"
    monkeypatch.setattr(example_browser, "MAX_CARDS", 200)
    monkeypatch.setattr(example_browser, "MAX_CARD_BYTES", 30_000)
    cards = example_browser.build_browser(found, lambda view: json.dumps(view))["cards"]
    assert 3 < len(cards) < 30
    assert sum(map(len, cards)) <= 30_000
    example_browser.write_all_examples(run, found, len(cards))
    assert run.all_examples.exists()
    example_browser.write_all_examples(run, found, N)
    assert not run.all_examples.exists(), "a file of an older report stays behind"


def test_without_examples_no_text_of_one_is_left(run: RunDir, tmp_path: Path) -> None:
    other = make(tmp_path / "made")
    html, markdown = write_report(other, with_examples=False)
    for text in (html.read_text(), markdown.read_text(), (other.path / "results.csv").read_text()):
        assert "metres have a stove" not in text
        assert "hight" not in text


def test_results_as_csv(run: RunDir) -> None:
    found = list(csv.DictReader((run.path / "results.csv").read_text().splitlines()))
    assert list(found[0]) == list(COLUMNS)
    contenders = run.results().contenders
    assert len(found) == sum(max(1, len(c.scores)) for c in contenders)
    row = next(r for r in found if (r["contender"], r["metric"]) == ("full", METRIC))
    score = contenders[0].scores[METRIC]
    assert (float(row["value"]), float(row["low"]), int(row["n"])) == (score.value, score.low, N)
    assert float(row["training_usd"]) == contenders[0].cost.training_usd
    failed = found[-1]
    assert (failed["contender"], failed["value"]) == ("hosted-broken", "")
    assert failed["error"].startswith("openai refused")


def test_a_name_that_looks_like_a_formula_is_text() -> None:
    made = contender("=1+1", 0.5, model="@x")
    assert render_csv([made]).splitlines()[1].startswith("'=1+1,local,'@x,execution_accuracy,0.5,")


def test_the_table_has_what_decides_first_and_nothing_empty(run: RunDir) -> None:
    found = run.results()
    table = build_table(
        found, rank_contenders(found), {METRIC: True, "exact_match": True, "valid_format": True}
    )
    assert table["columns"] == [
        "execution accuracy", "training", "1,000 requests", "median answer", "ends",
        "valid format", "exact match", "n", "no answer",
    ]  # fmt: skip
    assert [row["name"] for row in table["rows"]][-1] == "hosted-broken"
    prompted = next(row for row in table["rows"] if row["name"] == "prompted")
    assert [cell["sort"] for cell in prompted["cells"]][1] == "", "nothing to sort by"
    alone = results([contender("lora", 0.5)])
    assert build_table(alone, alone.contenders, {METRIC: True})["columns"] == [
        "execution accuracy", "n", "no answer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("serving", "said"),
    [
        (LatencyStats(0.5, requests=1), ["of 1 request"]),
        (LatencyStats(0.5, requests=19, concurrency=1), ["of 19 requests"]),
        (LatencyStats(0.5, 0.9, requests=20, concurrency=1), []),
        (LatencyStats(0.5), []),
        (LatencyStats(0.5, 0.9, requests=900, concurrency=16), ["up to 16 at once"]),
        (LatencyStats(batch=True), ["in batches"]),
    ],
)
def test_a_median_says_of_how_many_requests_and_of_how_many_at_once(
    serving: LatencyStats, said: list[str]
) -> None:
    """Of few: of as few as there is no p95 of."""
    other = contender("other", 0.5, serving=LatencyStats(0.1))
    made = results([contender("lora", 0.5, serving=serving), other])
    table = build_table(made, made.contenders, {METRIC: True})
    place = table["columns"].index("median answer")
    assert table["rows"][0]["cells"][place]["under"] == said


def test_times_under_load_are_shown_apart() -> None:
    under_load = {"loaded_seconds_p50": 1.25, "loaded_requests": 951, "loaded_concurrency": 16}
    timed = LatencyStats(0.5, 0.9, requests=48, concurrency=1, **under_load)  # type: ignore[arg-type]
    off = LatencyStats(1.25, requests=999, concurrency=16, **under_load)  # type: ignore[arg-type]
    made = [contender("timed", serving=timed), contender("off", serving=off), contender("old")]
    (_, answering) = build_view(results(made))["facts"]
    assert answering["rows"] == [
        ("Median time to answer", ["500 ms", "1.2 s", "–"]),
        ("95% answered within", ["900 ms", "–", "–"]),
        ("Timed on", ["48 requests, one at a time", "999 requests, up to 16 at once", "–"]),
        ("Median under load", ["1.2 s (up to 16 at once)", "1.2 s (up to 16 at once)", "–"]),
    ]
    assert "the same prompts for every contender" in answering["note"]
    batched = build_view(results([contender("b", serving=LatencyStats(batch=True))]))["facts"][-1]
    assert batched["rows"] == [("Timed on", ["nothing: it answered in batches"])]
    before = build_view(results([contender("old", serving=LatencyStats(0.5))]))["facts"][-1]
    assert (before["rows"], before["note"]) == ([("Median time to answer", ["500 ms"])], "")


def test_the_ladder_goes_from_form_to_result(run: RunDir) -> None:
    found = build_ladder(run.results().contenders)
    assert [row["metric"] for row in found["rows"]] == ["exact match", "execution accuracy"]
    assert len(found["rows"][0]["cells"]) == len(found["names"]) == 4
    one = contender("a")
    assert build_ladder([replace(one, scores={})]) == {"names": [], "rows": []}


def test_breakdowns_have_every_contender_in_every_group(run: RunDir) -> None:
    contenders = run.results().contenders
    assert list_chart_keys(contenders) == {"by_hardness": "hardness", "by_db_id": "db_id"}
    alike = dict.fromkeys(("難度", "地域", "a b", "a-b"), contenders[0].breakdowns["hardness"])
    found = list_chart_keys([replace(contenders[0], breakdowns=alike)])
    assert list(found.values()) == list(alike), "a chart each, whatever files can be called"
    spec = build_breakdown_chart(contenders, "hardness", METRIC)
    assert spec is not None
    rows = values(spec)
    assert len(rows) == 4 * 4
    assert {row["group"] for row in rows} == {
        f"{n} (15)" for n in ("easy", "medium", "hard", "extra")
    }
    assert build_breakdown_chart(contenders, "nothing", METRIC) is None


def test_many_groups_of_many_contenders_have_no_intervals(run: RunDir) -> None:
    contenders = [c for c in run.results().contenders if not c.error]
    many = [replace(contenders[0], name=f"c{i}") for i in range(19)]
    for shown, apart in ((contenders, True), (many, False)):
        spec = build_breakdown_chart(shown, "hardness", METRIC)
        assert spec is not None
        assert ("rule" in json.dumps(spec)) == apart
        assert has_intervals(shown, "hardness", METRIC) == apart


def test_a_step_that_was_kept_but_not_measured_has_no_ring(run: RunDir) -> None:
    (made,) = [c for c in run.results().contenders if c.name == "full"]
    assert made.training is not None
    for step, layers in ((150, 4), (151, 3)):
        spec = build_loss_chart([replace(made, training=replace(made.training, best_step=step))])
        assert spec is not None
        assert len(spec["layer"]) == layers


def test_the_front_has_those_that_nothing_equals_for_less() -> None:
    points = [("free", 0.0, 0.1), ("dear", 9.0, 0.8), ("good", 3.0, 0.8), ("poor", 5.0, 0.4)]
    assert find_pareto_front(points) == ["free", "good"]
    assert find_pareto_front([]) == []


def test_cost_is_usd_where_all_have_a_price_else_tokens() -> None:
    a = contender("a", 0.5, training=training(), cost=Cost(training_usd=2.0))
    b = contender("b", 0.7, training=replace(training(), tokens_templated=9_000_000))
    prompted = contender("p", 0.1, id="prompted")
    spec = build_cost_chart([a, replace(b, cost=Cost(training_usd=3.0)), prompted], METRIC)
    assert spec is not None
    assert "USD of one training" in json.dumps(spec)
    spec = build_cost_chart([a, b, prompted], METRIC)
    assert "tokens of one training" in json.dumps(spec)
    assert build_cost_chart([a], METRIC) is None, "nothing to compare with"
    assert build_cost_chart([replace(b, training=None)], METRIC) is None


def test_a_chart_of_nothing_right_has_its_points_on_the_axis() -> None:
    none = {METRIC: Score(0.0, 0.0, 0.49, 4)}
    made = [
        replace(contender(name, 0.0, training=replace(training(), tokens_templated=n)), scores=none)
        for name, n in (("a", 1000), ("b", 2000))
    ]
    spec = build_cost_chart(made, METRIC)
    assert spec is not None
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low == 0
    assert high > 0.49


def test_the_onset_of_overfitting_is_marked(run: RunDir) -> None:
    page = (run.path / "report.html").read_text()
    assert "the cross the one from which on it overfits" in page
    assert '"onset": true' in page
    assert page.count('"onset": true') == 1
