"""A plan says what a bake-off will cost before anything is spent, and says in a sentence what
it does not know."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import tuneoff
from tuneoff.bakeoff.plan.plan import MAX_HELD_BYTES
from tuneoff.bakeoff.plan.schema import Plan, PlannedContender, PlannedTraining

ROOT = Path(__file__).parent.parent.parent
PRICE = "price: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 5}"
HOSTED = "{name: hosted, id: hosted, model: gpt-4.1-mini-2025-04-14}"
TOGETHER = "{name: together, id: hosted, provider: together, model: Qwen/Qwen3-8B"
TRAINING = {
    "examples", "epochs", "tokens_per_epoch", "tokens_billed", "seconds", "memory_bytes", "usd",
    "basis",
}  # fmt: skip


def planned(folder: Path, contenders: str, more: str = "", task: str | None = None) -> Plan:
    file = folder / "b.yaml"
    task = task or "{id: functional_representation, source: sample, limit: {train: 200}}"
    day = "" if "as_of" in more else "as_of: 2026-11-24\n"
    file.write_text(f"name: x\ntask: {task}\ncontenders: [{contenders}]\n{day}{more}")
    return tuneoff.plan(tuneoff.load(file), measure=False)


def training(contender: PlannedContender) -> PlannedTraining:
    assert contender.training is not None
    return contender.training


@pytest.mark.parametrize(
    ("name", "tokens", "usd"), [("spider", 499_652, 11.99), ("viggo", 1_085_690, 26.06)]
)
def test_the_seed(
    name: str, tokens: int, usd: float, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEOFF_DATA", str(data_dir))
    plan = tuneoff.plan(tuneoff.load(ROOT / "examples" / "seed" / f"{name}.yaml"))
    own, hosted = plan.contenders
    assert training(hosted).tokens_per_epoch == pytest.approx(tokens, rel=0.005)
    assert training(hosted).usd == pytest.approx(usd, rel=0.005)
    assert (str(plan.as_of), str(hosted.ends)) == ("2023-09-12", "2026-10-23")
    # 7 and 9 hours in the article; prefixes computed once take less.
    assert 1 < (training(own).seconds or 0) / 3600 < 9
    fits, too_small = training(own).basis.split(": fits ")[1].split("; not ")
    assert "A40 (48 GB)" in fits
    assert "A100 40GB (40 GB)" in too_small


def test_json_is_the_schema(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: functional_representation, source: sample, limit: {train: 200}}\n"
        f"contenders: [{HOSTED}, {{name: asked, id: prompted, provider: openai, "
        f"model: gpt-6-luna, shots: 2, {PRICE}}}, {{name: own, id: local}}]\nbudget_usd: 0.01\n"
        "as_of: 2026-11-24\n"
    )
    code, out, _ = cli("plan", str(file), "--json", "--no-measure")
    assert code == 3
    plan = json.loads(out)
    assert list(plan) == [
        "schema", "task", "as_of", "total_usd", "most_usd", "budget_usd",
        "smallest_detectable_difference", "smallest_detectable_difference_of_many",
        "margin", "more_seeds", "contenders",
    ]  # fmt: skip
    for contender in plan["contenders"]:
        assert list(contender) == [
            "name", "id", "training", "answering_usd", "ends", "warnings", "samples", "place",
        ]  # fmt: skip
    hosted, asked, own = plan["contenders"]
    assert set(hosted["training"]) == set(own["training"]) == TRAINING
    assert asked["training"] is None
    assert asked["answering_usd"] > 0
    parts = [hosted["training"]["usd"], hosted["answering_usd"], asked["answering_usd"]]
    assert plan["total_usd"] == float(sum(Decimal(str(usd)) for usd in parts))
    code, out, _ = cli("plan", str(file), "--no-measure")
    assert code == 3
    assert "over the budget of $0.01, so it refuses." in out
    assert plan["more_seeds"]["contenders"] == ["own"]
    assert "seeds: [0, 1, 2] for it takes 2 more trainings (hours not known)" in out
    assert plan["margin"]["points"] == 3
    assert f"It takes {plan['margin']['not_worse'][0]:,} to 2,408 test examples to show" in out
    assert "ends on 2027-01-14; instead: gpt-6-luna" in out


def test_epochs_and_tokens(tmp_path: Path) -> None:
    fewer = "{id: functional_representation, source: sample, limit: {train: 20}}"
    plan = planned(tmp_path, HOSTED, task=fewer)
    found = training(plan.contenders[0])
    assert (found.examples, found.epochs) == (20, 5)
    assert found.tokens_billed == 5 * (found.tokens_per_epoch or 0)
    # Together bills validation tokens, too, as often as it evaluates; one epoch if left out.
    for epochs, validations in (("", 4), (", epochs: 3", 6)):
        plan = planned(tmp_path, f"{TOGETHER}{epochs}}}", task=fewer)
        found = training(plan.contenders[0])
        begun, _, rest = found.basis.partition(" + ")
        validated = int(rest.split()[0].replace(",", ""))
        assert begun == f"({found.tokens_per_epoch:,} tokens × {found.epochs:g} epochs"
        assert f"validation tokens × {validations}) × $0.48 per million" in rest
        trained = int(found.epochs or 0) * (found.tokens_per_epoch or 0)
        assert found.tokens_billed == trained + validations * validated
    own = "{name: own, id: local, train: {max_steps: 30, batch_size: 10}}"
    found = training(planned(tmp_path, own).contenders[0])
    assert (found.epochs, found.tokens_billed, found.seconds) == (1.5, None, None)


@pytest.mark.parametrize(
    ("contender", "more", "expected"),
    [
        ("{name: h, id: hosted, model: gpt-4.2}", "", "unknown model of openai 'gpt-4.2'"),
        ("{name: h, id: hosted, provider: nebius, model: m}", "", "no prices of provider 'nebius'"),
        (
            "{name: h, id: hosted, model: gpt-3.5-turbo-0125}",
            "",
            "gpt-3.5-turbo-0125 ended on 2026-10-23; instead: gpt-5.6-terra.",
        ),
        ("{name: h, id: hosted, model: gpt-4.1}", "as_of: 2027-01-10\n", "takes no training jobs"),
        ("{name: h, id: hosted, model: gpt-4.1}", "as_of: 2020-01-01\n", "begins on 2025-10-06"),
        ("{name: h, id: hosted, model: gpt-4.1}", "as_of: 2026-12-24\n", "look again"),
        ("{name: l, id: local, hardware: {accelerator: A4O}}", "", "did you mean A40?"),
        (
            "{name: l, id: local, hardware: {accelerator: T4}}",
            "",
            "an hour of T4 has no price on 2026-11-24; give contender l hardware.usd_per_hour.",
        ),
        ("{name: l, id: local, base: no/such-base}", "", "architecture of no/such-base is unknown"),
    ],
)
def test_what_is_not_known_is_said(
    contender: str, more: str, expected: str, tmp_path: Path
) -> None:
    (found,) = planned(tmp_path, contender, more).contenders
    assert [line for line in found.warnings if expected in line], found.warnings


def test_own_prices_and_hours_of_the_book(tmp_path: Path) -> None:
    price = "price: {training_usd_per_million_tokens: 100, output_usd_per_million_tokens: 0}"
    (found,) = planned(tmp_path, HOSTED.replace("}", f", {price}}}")).contenders
    assert training(found).usd == pytest.approx((training(found).tokens_billed or 0) / 10**4)
    own = "{name: own, id: local, base: Qwen/Qwen3-0.6B, hardware: {accelerator: A100 80GB}}"
    (found,) = planned(tmp_path, own).contenders
    assert training(found).usd == pytest.approx((training(found).seconds or 0) / 3600 * 1.79)
    thrice = own.replace("id: local", "id: local, seeds: [1, 2, 3]")
    (three,) = planned(tmp_path, thrice).contenders
    assert training(three).seconds == pytest.approx(3 * (training(found).seconds or 0), rel=0.01)
    parts = own.replace("name: own, id: local", "name: parts, id: local, learning_curve: [0.5]")
    plan = planned(tmp_path, f"{own}, {parts}, {thrice.replace('name: own', 'name: three')}")
    more = plan.more_seeds
    assert more is not None
    assert (more.contenders, more.trainings) == (("own", "parts"), 4)
    assert more.seconds == pytest.approx(4 * (training(found).seconds or 0), rel=0.01)
    assert more.usd == pytest.approx(more.seconds / 3600 * 1.79)
    assert planned(tmp_path, thrice).more_seeds is None


def test_reasoning_and_cache_writes_are_in_plan_and_most(tmp_path: Path) -> None:
    """What `reasoning_tokens` and prompts of 1,024 tokens and more add, at gpt-6-luna's prices."""
    luna = "{name: luna, id: prompted, model: gpt-6-luna, reasoning_effort: %s}"
    task = (
        "{id: functional_representation, source: sample, limit: {train: 40, test: 10}, "
        "max_new_tokens: 64}"
    )
    plain, thinks, shots = (
        planned(tmp_path, luna % effort, task=task) for effort in ("none", "low", "none, shots: 40")
    )
    more = 10 * 2048 * 0.5 / 1e6
    found = thinks.contenders[0]
    assert (found.answering_usd or 0) - (plain.contenders[0].answering_usd or 0) == pytest.approx(
        more
    )
    assert (thinks.most_usd or 0) - (plain.most_usd or 0) == pytest.approx(more)
    assert [line for line in found.warnings if "2,048 tokens of reasoning" in line]
    assert not [line for line in plain.contenders[0].warnings if "cache" in line]
    (line,) = (line for line in shots.contenders[0].warnings if "cache" in line)
    assert "1,024 tokens and more" in line
    assert "$0.125 per million" in line
    # All prompts are that long, so the most is more by the room for answers alone.
    assert 0 < (shots.most_usd or 0) - (shots.contenders[0].answering_usd or 0) < 10 * 100 * 1e-6


def test_prompts_that_cost_more_than_the_book_says_are_pointed_out(tmp_path: Path) -> None:
    prices = (
        "provider: openai\nprices:\n  - {models: [m], input_usd_per_million_tokens: 1, "
        "output_usd_per_million_tokens: 1, long_prompt_tokens: %d}\n"
    )
    for limit, told in ((10, True), (100_000, False)):
        (tmp_path / "prices.yaml").write_text(prices % limit)
        asked = "{name: asked, id: prompted, model: m}"
        (found,) = planned(tmp_path, asked, "prices: prices.yaml\n").contenders
        said = [line for line in found.warnings if "prompts of more than 10 cost more" in line]
        assert bool(said) == told


def test_a_server_of_ones_own_has_no_price(tmp_path: Path) -> None:
    own = "{name: h, id: hosted, model: gpt-4.1, base_url: 'http://localhost:1/v1'}"
    (found,) = planned(tmp_path, own).contenders
    assert (training(found).usd, found.answering_usd, found.ends) == (None, None, None)
    assert found.warnings == ()


@pytest.mark.parametrize("price", [-1, 20_000, ".nan"])
def test_an_absurd_price_is_refused(price: object, cli: Any, tmp_path: Path) -> None:
    with pytest.raises(tuneoff.ConfigError, match="input_usd_per_million_tokens"):
        planned(
            tmp_path, HOSTED.replace("}", f", price: {{input_usd_per_million_tokens: {price}}}}}")
        )


def test_the_budget_is_held_against_the_most_that_can_be_billed(tmp_path: Path, cli: Any) -> None:
    """As a run does it: an answer may be longer than its reference, and the hours of one's own
    hardware are nobody's bill."""
    asked = f"{{name: asked, id: prompted, model: m, {PRICE}}}"
    expected = planned(tmp_path, asked)
    assert expected.most_usd is not None
    assert expected.most_usd > 2 * expected.total_usd
    for more, over in ((1.01, False), (0.99, True)):
        found = planned(tmp_path, asked, f"budget_usd: {more * expected.most_usd}\n")
        assert found.total_usd < (found.budget_usd or 0)
        assert found.is_over_budget is over
        code, out, _ = cli("plan", tmp_path / "b.yaml")
        assert code == (3 if over else 0)
        (line,) = (line for line in out.splitlines() if "budget" in line)
        assert f"${expected.total_usd:.2f} together is expected" in line
        assert f"bill up to ${expected.most_usd:.2f} (today's prices)" in line
        assert ("over the budget" in line, "within the budget" in line) == (over, not over)
    own = "{name: own, id: local, base: Qwen/Qwen3-0.6B, hardware: {accelerator: A100 80GB}}"
    found = planned(tmp_path, own, "budget_usd: 0\n")
    assert (found.total_usd > 0, found.most_usd, found.is_over_budget) == (True, 0, False)


def test_what_is_read_beside_the_file_is_no_answer_of_a_run(tmp_path: Path) -> None:
    """A plan is of a run that was not begun, wherever its file lies."""
    asked = f"{{name: asked, id: prompted, model: m, {PRICE}}}"
    before = planned(tmp_path, asked).most_usd
    rows = (json.dumps({"id": f"sample-test-{i}", "prediction": "x"}) for i in range(200))
    (tmp_path / "predictions.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "job.json").write_text('{"intent": "x"}')
    assert planned(tmp_path, asked).most_usd == before


def test_a_plan_of_another_day_says_what_a_run_will_say(tmp_path: Path) -> None:
    """Who pays, pays today."""
    old = "{name: h, id: hosted, model: gpt-3.5-turbo-0613}"
    half = "{name: half, id: prompted, model: m, price: {input_usd_per_million_tokens: 1}}"
    plan = planned(tmp_path, f"{old}, {half}", "as_of: 2023-09-12\n")
    hosted, other = plan.contenders
    assert training(hosted).usd
    assert [line for line in hosted.warnings if "ended on 2026-10-23" in line]
    assert other.warnings == (
        "contender half: its price lacks output_usd_per_million_tokens (from the bake-off file); "
        "add it to `price:` in the file, or run with --yes.",
    )
    assert plan.most_usd == 0


def test_what_was_recorded_may_have_been_tuned(tmp_path: Path, cli: Any) -> None:
    contenders = (
        "{name: a, id: recorded, predictions: a.jsonl}, {name: b, id: prompted, base: tiny}, "
        f"{{name: c, id: prompted, model: 'ft:gpt-4.1:x::y', {PRICE}}}"
    )
    (tmp_path / "a.jsonl").write_text('{"id": "1", "prediction": "x"}\n')
    plan = planned(tmp_path, contenders)
    assert [each.id for each in plan.contenders] == ["recorded", "prompted", "prompted"]
    code, out, _ = cli("plan", tmp_path / "b.yaml")
    assert code == 0
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert [row[7].strip() for row in rows] == ["recorded", "prompted", "prompted"]
    assert "not tuned" not in out


def test_a_judges_questions_are_in_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # nothing is asked
    judge = f"{{id: judge, model: m, rubric: Be good., {PRICE}}}"
    task = (
        "{id: functional_representation, source: sample, limit: {train: 200}, "
        f"metrics: [exact_match, {judge}]}}"
    )
    asked = f"{{name: asked, id: prompted, model: m, {PRICE}}}"
    plan = planned(tmp_path, asked, task=task)
    assert plan.contenders[0].warnings == (
        "what the judge m will cost is in no figure here; each of its questions asks leave by "
        "itself.",
    )
    assert plan.most_usd == planned(tmp_path, asked).most_usd


def test_without_a_judges_key_a_run_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file, run = tmp_path / "b.yaml", tmp_path / "run"

    def write(metrics: str) -> None:
        file.write_text(
            "name: b\n"
            "task: {id: functional_representation, source: sample, limit: {train: 20, test: 4}, "
            f"metrics: [{metrics}]}}\n"
            "contenders: [{name: zero, id: prompted, base: tiny}]\n"
        )

    write("exact_match")
    assert cli("run", file, "--run-dir", run)[0] == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write(f"exact_match, {{id: judge, model: m, rubric: Be good., {PRICE}}}")
    code, _, err = cli("run", file, "--run-dir", run, "--fresh", "--yes")
    assert code == 2
    assert "OPENAI_API_KEY is not set" in err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def chat_line(number: int, words: int) -> str:
    turns = [
        {"role": "user", "content": f"Question {number}: " + "word " * words},
        {"role": "assistant", "content": f"Answer {number}."},
    ]
    return json.dumps({"messages": turns}) + "\n"


def write_chat(file: Path, rows: int, words: int, first: int = 0) -> None:
    with file.open("w") as stream:
        stream.writelines(chat_line(i, words) for i in range(first, first + rows))


def test_large_files_are_streamed_and_counted_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chat(tmp_path / "train.jsonl", 3000, 20)
    with (tmp_path / "train.jsonl").open("a") as stream:  # shots of different lengths
        stream.writelines(chat_line(i, i % 50) for i in range(3000, 4000))
    task = "{id: chat, train: train.jsonl}"
    contenders = (
        f"{{name: tuned, id: hosted, model: gpt-6, {PRICE[:-1]}, "
        "training_usd_per_million_tokens: 5}}, "
        f"{{name: shown, id: prompted, model: m, shots: 7, {PRICE}}}, "
        f"{{name: others, id: prompted, model: m, shots: 3, seed: 5, {PRICE}}}"
    )
    held = planned(tmp_path, contenders, task=task)
    assert (tmp_path / "train.jsonl").stat().st_size < MAX_HELD_BYTES
    monkeypatch.setattr("tuneoff.bakeoff.plan.plan.MAX_HELD_BYTES", 0)
    streamed = planned(tmp_path, contenders, task=task)
    assert "too large to hold" in streamed.contenders[0].warnings[0]
    assert training(streamed.contenders[0]) == training(held.contenders[0])
    assert streamed.total_usd == held.total_usd
    assert streamed.most_usd == held.most_usd
    assert (held.most_usd or 0) > held.total_usd
    assert streamed.smallest_detectable_difference == held.smallest_detectable_difference


def test_an_example_of_a_million_characters(tmp_path: Path) -> None:
    """It is counted, and billed up to where the provider cuts it."""
    for split, rows, words, first in (
        ("train", 1, 300_000, 0), ("validation", 2, 2, 10), ("test", 2, 2, 20),
    ):  # fmt: skip
        write_chat(tmp_path / f"{split}.jsonl", rows, words, first)
    task = "{id: chat, train: train.jsonl, validation: validation.jsonl, test: test.jsonl}"
    (found,) = planned(tmp_path, HOSTED, task=task).contenders
    assert training(found).tokens_per_epoch == 65_536
    assert any("1 examples are longer" in line for line in found.warnings)


def test_hosted_contenders_need_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: functional_representation, source: sample}\n"
        f"contenders: [{HOSTED}]\n"
    )
    code = (
        f"import sys, tuneoff\ntuneoff.plan(tuneoff.load({str(file)!r}))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
