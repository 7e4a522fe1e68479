"""`--fresh-data`: what still holds is kept, the rest is asked again, for money only when agreed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from world import PRICE, Heard, Trainer, bakeoff_file, hosted, prompted, questions, rows, run

from tuneoff.bakeoff import data_update
from tuneoff.config.base import PriceConfig
from tuneoff.config.schema import JudgeConfig
from tuneoff.costs.ledger import Ledger
from tuneoff.errors import BudgetError, ConfigError, RunDirectoryError
from tuneoff.records import Example, Prediction, PromptRecord
from tuneoff.scoring import llm_judge
from tuneoff.scoring.base import ScoringInput
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")


def write_test(file: Path, asked: Mapping[str, str], ids: Mapping[str, str] | None = None) -> None:
    """The test file: questions with their answers; ids are file and line, or given."""
    lines = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        | ({"id": ids[q]} if ids else {})
        for q, a in asked.items()
    ]
    (file.parent / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def answers(file: Path, name: str) -> dict[str, Any]:
    return {row["id"]: row for row in rows(file, name)}


def test_only_what_is_new_is_asked_and_paid_for(fake: Trainer, tmp_path: Path) -> None:
    paid, tuned = prompted(fake.url, price=PRICE, samples=2), hosted(fake.url, price=PRICE)
    file = bakeoff_file(tmp_path / "b", paid, tuned, test=6)
    asked = questions(6, 200)
    write_test(file, {q: f"A {q}" for q in asked})
    run(file)
    before, jobs = {name: answers(file, name) for name in ("asked", "tuned")}, fake.creates()
    assert fake.completions() == 18

    # A row is put before the others, one is gone, one has another reference.
    fresh = {questions(1, 900)[0]: "new", **dict.fromkeys(asked[:1], "other"),
             **{q: f"A {q}" for q in asked[1:5]}}  # fmt: skip
    write_test(file, fresh)
    kept = (file.parent / "run" / "data" / "test.jsonl").read_bytes()
    for heard in (Heard(), Heard(answer=False)):
        with pytest.raises(ConfigError, match=r"3 paid answers will be asked for again: at most "
                           r"\$0\.0\d+\. Say --yes as well"):  # fmt: skip
            run(file, heard, fresh_data=True)
    assert (file.parent / "run" / "data" / "test.jsonl").read_bytes() == kept
    heard = Heard(answer=True)
    results = run(file, heard, fresh_data=True)
    assert "1 test row with new inputs, 1 test row with other references, 1 test row gone" in (
        heard.text()
    )
    assert (fake.completions(), fake.creates()) == (21, jobs)
    for name, earlier in before.items():
        now = answers(file, name)
        assert len(now) == 6
        assert len(rows(file, name)) == (12 if name == "asked" else 6)
        # The same answer under the id of its row of now.
        assert now["test-3"]["prediction"] == earlier["test-2"]["prediction"]
        (path,) = (file.parent / "run" / "contenders" / name / "answers-before").iterdir()
        assert {json.loads(line)["id"] for line in path.read_text().splitlines()} == set(earlier)
    assert {c.scores["exact_match"].n for c in results.contenders} == {6}
    assert len({c.prompt_sha256 for c in results.contenders}) == 1
    spent = Ledger(file.parent / "run" / "events.jsonl").spent()
    assert float(spent.known) == pytest.approx(fake.billed_usd())
    run(file)
    assert fake.completions() == 21


def test_what_is_refused(fake: Trainer, tmp_path: Path) -> None:
    paid = prompted(fake.url, price=PRICE)
    file = bakeoff_file(tmp_path / "b", paid, hosted(fake.url), test=4, budget_usd=0.003)
    run(file)
    folder = RunDir(file.parent / "run")
    write_test(file, dict.fromkeys(questions(40, 500), "A"))
    with pytest.raises(BudgetError, match=r"what is asked again can cost up to \$"):
        run(file, fresh_data=True, yes=True)
    batch = {"read": False, "batch_id": "b", "ids": ["test-1"], "look_until": None}
    folder.contender("asked").write_batches([batch])
    with pytest.raises(RunDirectoryError, match=r"a batch of answers .* contender asked; run with"):
        run(file, fresh_data=True, yes=True)
    folder.contender("asked").write_batches([])
    (file.parent / "validation.jsonl").write_text((file.parent / "test.jsonl").read_text())
    write_test(file, {q: f"A {q}" for q in questions(4, 200)})
    with pytest.raises(RunDirectoryError, match=r"validation rows, which have steered training, h"):
        run(file, fresh_data=True, yes=True)
    heard = Heard()
    run(file, heard)
    assert "(validation rows), with which it goes on; to begin with them, give another" in (
        heard.text()
    )


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_kill_in_between_loses_nothing(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is cut, any later run brings it to the same end."""
    run = RunDir(tmp_path)
    old = [Example(f"t-{n}", {"messages": []}, str(n)) for n in range(3)]
    run.write_examples("test", [vars_of(example) for example in old])
    for folder in (run.contender("a"), run.contender("b").seed(1)):
        folder.append_predictions([Prediction(e.id, f"said {e.completion}") for e in old])
        folder.write_prompt(PromptRecord("x"))
    # Ids move up by one: doing it twice would move them by two.
    journal = {"id": "j", "rows": {"test": [vars_of(e) for e in old]}, "answers_move": True,
               "kept": {"t-1": "t-0", "t-2": "t-1"}, "words": "w"}  # fmt: skip
    (run.data / "fresh-data.json").write_text(json.dumps(journal))
    steps, replaced = 0, os.replace

    class Killed(BaseException):
        pass

    def counted(path: Path, target: Path) -> Path:
        nonlocal steps
        steps += 1
        if steps == cut:
            raise Killed
        replaced(path, target)
        return target

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted)
        try:
            data_update.resume_fresh_data(run)
        except Killed:
            assert (run.data / "fresh-data.json").exists()
    data_update.resume_fresh_data(run)
    for folder in (run.contender("a"), run.contender("b").seed(1)):
        said = {id: p.prediction for id, p in folder.predictions().items()}
        assert said == {"t-1": "said 0", "t-2": "said 1"}
        kept = (folder.path / "answers-before" / "j.jsonl").read_text().splitlines()
        assert len(kept) == 3
        assert not (folder.path / "prompt.json").exists()
    assert not (run.data / "fresh-data.json").exists()


def vars_of(example: Example) -> dict[str, Any]:
    return {"id": example.id, "inputs": dict(example.inputs), "completion": example.completion,
            "meta": {}}  # fmt: skip


def test_what_a_judge_can_bill_for_an_answer() -> None:
    """No more than a token for each byte of its two questions."""
    price = PriceConfig(input_usd_per_million_tokens=1, output_usd_per_million_tokens=1)
    settings = JudgeConfig(id="judge", model="m", rubric="Be fair.", price=price)
    row = ScoringInput("1", "Lima", "Quito", inputs={"question": "Capital of Peru?"})
    asked, _ = llm_judge.compute_max_tokens(settings, row)
    assert asked > 2 * len(b"Be fair.LimaQuitoquestion: Capital of Peru?")
    assert llm_judge.compute_max_tokens(settings, row, 105)[0] == asked + 200
