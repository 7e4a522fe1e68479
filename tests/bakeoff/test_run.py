"""A whole bake-off with a base that trains in seconds: every file, resuming, failing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import tuneoff
from tuneoff.bakeoff import contender_run
from tuneoff.results import Results
from tuneoff.storage.run_dir import RunDir

TEXT = """\
name: small
task:
  id: functional_representation
  source: sample
  max_new_tokens: 12
  limit: {{train: 48, validation: 8, test: 10}}
contenders:
  - {{name: prompted, id: prompted, base: {base}, shots: 1}}
  - name: lora
    id: local
    base: {base}
    prompt: short
    lora: {{r: 4, alpha: 8, target_modules: attention}}
    train: {{max_steps: 6, batch_size: 8, micro_batch_size: 4, evaluate_every: 2,
             learning_rate: 1.0e-2}}
    hardware: {{accelerator: A40, usd_per_hour: 0.475}}
  - name: full
    id: local
    base: {base}
    method: full
    prompt: short
    train: {{max_steps: 4, batch_size: 8, evaluate_every: 2, learning_rate: 1.0e-2,
             grouping: by_length}}
  - {{name: published, id: recorded, scores: {{exact_match: {{value: 0.5, n: 100}}}}}}
"""


def load(folder: Path, text: str, **fields: Any) -> tuneoff.BakeOff:
    file = folder / "b.yaml"
    file.write_text(text.format(**fields))
    return tuneoff.load(file)


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Results]:
    folder = tmp_path_factory.mktemp("small")
    bakeoff = load(folder, TEXT, base=tiny_base)
    results = tuneoff.run(bakeoff, folder / "run")
    return RunDir(folder / "run"), results


def test_every_file_of_the_contract_is_there(finished: tuple[RunDir, Results]) -> None:
    run, _ = finished
    found = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    expected = {
        "bakeoff.yaml", "events.jsonl", "results.json", "report.html", "report.md",
        "data/train.jsonl", "data/validation.jsonl", "data/test.jsonl",
        "contenders/prompted/predictions.jsonl", "contenders/prompted/scores.jsonl",
        "contenders/lora/training.json", "contenders/lora/loss.jsonl",
        "contenders/lora/adapter/adapter_model.safetensors",
        "contenders/lora/adapter/adapter_config.json", "contenders/lora/adapter/README.md",
        "contenders/full/model/model.safetensors", "contenders/full/model/tokenizer.json",
    }  # fmt: skip
    assert expected <= found
    assert not any("checkpoint" in name or ".part" in name for name in found)


def test_the_results_are_what_is_on_disk(finished: tuple[RunDir, Results]) -> None:
    run, results = finished
    assert run.results() == results
    assert results.schema == 1
    assert results.split_sizes == {"train": 48, "validation": 8, "test": 10}
    assert [c.error for c in results.contenders] == [None] * 4
    written = json.loads((run.path / "results.json").read_text())
    assert set(written) == {field.name for field in dataclasses.fields(Results)}


def test_training_is_recorded(finished: tuple[RunDir, Results]) -> None:
    _, results = finished
    _, lora, full, _ = results.contenders
    assert lora.training is not None
    assert full.training is not None
    assert (lora.training.steps, lora.training.examples) == (6, 48)
    assert lora.training.epochs == pytest.approx(1.0)
    assert [row.step for row in lora.loss] == [2, 4, 6]
    assert [row.examples_seen for row in lora.loss] == [16, 32, 48]
    losses = [row.validation for row in lora.loss]
    assert lora.training.best_step == lora.loss[losses.index(min(losses))].step
    assert losses[-1] < losses[0], "a few steps at this rate must lower the loss"
    raw, templated = lora.training.tokens_raw, lora.training.tokens_templated
    computed = lora.training.tokens_computed
    assert raw is not None
    assert templated is not None
    assert computed is not None
    assert computed < templated, "what examples share is computed once"
    assert raw < templated
    assert (lora.training.trainable_parameters or 0) < (full.training.trainable_parameters or 0)


def test_hours_are_priced_where_hardware_has_a_price(finished: tuple[RunDir, Results]) -> None:
    _, results = finished
    _, lora, full, _ = results.contenders
    assert lora.training is not None
    expected = (lora.training.seconds or 0) / 3600 * 0.475
    assert lora.cost.training_usd == pytest.approx(expected)
    assert full.cost.training_usd is None


def test_contenders_see_the_same_content_in_their_own_prompt(
    finished: tuple[RunDir, Results],
) -> None:
    _, results = finished
    prompted, lora, full, published = results.contenders
    assert lora.prompt_sha256 == full.prompt_sha256
    assert prompted.prompt_sha256 != lora.prompt_sha256
    assert published.prompt_sha256 is None


def test_reported_figures_stand_beside_measured_ones(finished: tuple[RunDir, Results]) -> None:
    _, results = finished
    published = results.contenders[3].scores["exact_match"]
    assert (published.value, published.n) == (0.5, 100)
    assert published.low == pytest.approx(0.4038, abs=1e-3)  # Wilson at 50 of 100
    assert all("published" not in (pair.a, pair.b) for pair in results.comparisons)


def test_the_data_can_be_read_as_chat(finished: tuple[RunDir, Results]) -> None:
    run, _ = finished
    row = json.loads((run.data / "test.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in row["messages"]] == ["system", "user"]
    assert row["messages"][1]["content"] == row["inputs"]["sentence"]
    assert row["sha256"] == run.examples("test")[0].sha256()


def test_the_adapter_loads_as_it_is(finished: tuple[RunDir, Results]) -> None:
    from peft import AutoPeftModelForCausalLM

    run, _ = finished
    model = AutoPeftModelForCausalLM.from_pretrained(run.contender("lora").adapter)
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_the_same_command_again_does_nothing_twice(
    finished: tuple[RunDir, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, results = finished
    before = (run.path / "contenders/lora/predictions.jsonl").read_bytes()

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("this was done already")

    monkeypatch.setattr("tuneoff.training.fine_tune._train", never)
    monkeypatch.setattr("tuneoff.inference.engine.generate_with_engine", never)
    again = tuneoff.run(tuneoff.load(run.path.parent / "b.yaml"), run.path)
    assert [c.error for c in again.contenders] == [None] * 4
    assert [c.scores for c in again.contenders] == [c.scores for c in results.contenders]
    assert (run.path / "contenders/lora/predictions.jsonl").read_bytes() == before


def test_resuming_answers_only_what_is_missing(
    finished: tuple[RunDir, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, results = finished
    file = run.path / "contenders/full/predictions.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    file.write_text("".join(whole[:7]) + whole[7][:9])
    asked: list[int] = []
    original = contender_run._answer_examples

    def counting(kind: Any, settings: Any, work: Any) -> None:
        asked.append(len(work.test) - len(work.directory.predictions()))
        original(kind, settings, work)

    monkeypatch.setattr(contender_run, "_answer_examples", counting)
    again = tuneoff.run(tuneoff.load(run.path.parent / "b.yaml"), run.path, only="full")
    assert asked == [3]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 10
    assert again.contenders[2].scores == results.contenders[2].scores


def test_the_report_can_be_built_again(finished: tuple[RunDir, Results]) -> None:
    run, _ = finished
    (run.path / "report.html").unlink()
    html, markdown = tuneoff.write_report(run)
    assert html.exists()
    assert "lora" in markdown.read_text()


def test_a_report_to_share_holds_no_examples(finished: tuple[RunDir, Results]) -> None:
    run, _ = finished
    sentences = [example.inputs["sentence"] for example in run.examples("test")]
    _, markdown = tuneoff.write_report(run)
    assert any(sentence in markdown.read_text() for sentence in sentences)
    html, markdown = tuneoff.write_report(run, with_examples=False)
    for page in (html, markdown):
        assert not any(sentence in page.read_text() for sentence in sentences)


def test_a_failing_contender_is_data_and_the_others_finish(tiny_base: Path, tmp_path: Path) -> None:
    bakeoff = load(
        tmp_path,
        """\
name: failing
task: {{id: functional_representation, source: sample, max_new_tokens: 4,
        limit: {{train: 8, validation: 4, test: 4}}}}
contenders:
  - {{name: wrong-modules, id: local, base: {base}, lora: {{target_modules: [nothing]}}}}
  - {{name: elsewhere, id: recorded, predictions: other.jsonl}}
  - {{name: prompted, id: prompted, base: {base}}}
""",
        base=tiny_base,
    )
    (tmp_path / "other.jsonl").write_text('{"id": "another", "prediction": ""}\n')
    results = tuneoff.run(bakeoff, tmp_path / "run")
    wrong, elsewhere, prompted = results.contenders
    assert "lora.target_modules" in (wrong.error or "")
    assert "none of its 1 ids" in (elsewhere.error or "")
    assert prompted.error is None
    assert prompted.scores["exact_match"].n == 4
    assert "elsewhere" in (tmp_path / "run" / "report.md").read_text()


def test_only_leaves_the_others_for_later_and_fresh_begins_anew(
    cli: Any, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = """\
name: two
task: {{id: functional_representation, source: sample, max_new_tokens: 4,
        limit: {{train: 8, validation: 4, test: 4}}}}
contenders:
  - {{name: wrong, id: local, base: {base}, lora: {{target_modules: [nothing]}}}}
  - {{name: prompted, id: prompted, base: {base}, shots: {shots}}}
"""
    load(tmp_path, text, base=tiny_base, shots=0)
    code, out, _ = cli("run", "b.yaml", "--only", "prompted", "--json")
    assert code == 0
    wrong, prompted = json.loads(out)["contenders"]
    assert (wrong["error"], wrong["scores"]) == (None, {})
    assert prompted["scores"]["exact_match"]["n"] == 4
    load(tmp_path, text, base=tiny_base, shots=1)
    assert cli("run", "b.yaml", "--only", "prompted")[0] == 2
    code, out, _ = cli("run", "b.yaml", "--only", "prompted", "--fresh", "--yes", "--json")
    assert code == 0
    assert json.loads(out)["contenders"][1]["prompt_sha256"] != prompted["prompt_sha256"]
    load(tmp_path, text.replace("train: 8", "train: 9"), base=tiny_base, shots=1)
    code, out, _ = cli("run", "b.yaml", "--fresh", "--yes", "--json")
    assert code == 4  # the wrong one was to be carried out this time
    assert json.loads(out)["split_sizes"]["train"] == 9


def test_a_task_wide_short_prompt_can_be_full_for_one(tiny_base: Path, tmp_path: Path) -> None:
    bakeoff = load(
        tmp_path,
        """\
name: prompts
task: {{id: functional_representation, source: sample, max_new_tokens: 2, prompt: short,
        limit: {{train: 8, validation: 4, test: 4}}}}
contenders:
  - {{name: short, id: prompted, base: {base}}}
  - {{name: full, id: prompted, base: {base}, prompt: full}}
""",
        base=tiny_base,
    )
    short, full = tuneoff.run(bakeoff, tmp_path / "run").contenders
    assert (full.serving.tokens_in_mean or 0) > (short.serving.tokens_in_mean or 0) + 50


def test_exit_code_4_when_a_contender_failed(
    cli: Any, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load(
        tmp_path,
        """\
name: failing
task: {{id: functional_representation, source: sample, max_new_tokens: 4,
        limit: {{train: 8, validation: 4, test: 4}}}}
contenders:
  - {{name: wrong, id: local, base: {base}, lora: {{target_modules: [nothing]}}}}
  - {{name: prompted, id: prompted, base: {base}}}
""",
        base=tiny_base,
    )
    code, out, err = cli("run", "b.yaml", "--json")
    assert code == 4
    assert json.loads(out)["contenders"][0]["error"]
    assert "wrong: failed" in err


def test_a_recorded_file_is_scored_like_any_other(tmp_path: Path) -> None:
    from tuneoff.tasks.samples import functional

    test = functional.generate()["test"][:3]
    rows = [{"id": test[0].id, "prediction": test[0].completion},
            {"id": test[1].id, "prediction": "nonsense"}]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bakeoff = load(
        tmp_path,
        """\
name: recorded
task: {{id: functional_representation, source: sample}}
contenders:
  - {{name: old, id: recorded, predictions: p.jsonl, model: "ft:gpt-4o-mini:acme::abc"}}
""",
    )
    old = tuneoff.run(bakeoff, tmp_path / "run").contenders[0]
    score = old.scores["exact_match"]
    assert score.value == pytest.approx(1 / 200)
    assert (score.n, score.errors) == (200, 198)
    assert old.model == "ft:gpt-4o-mini:acme::abc"
