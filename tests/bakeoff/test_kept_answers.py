"""Answers are learned, uploaded and stored as they stand; blanks around them do not count where
they are compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tuneoff
from tuneoff.bakeoff import data_update
from tuneoff.bakeoff.answer_check import compare_answers
from tuneoff.contenders import fine_tuning_job
from tuneoff.contenders.hosted_inference import build_prediction
from tuneoff.inference.stopping import StopCriteria
from tuneoff.models.loading import load_tokenizer
from tuneoff.prompts import CHAT_PASS_THROUGH
from tuneoff.providers.base import Reply
from tuneoff.records import Example, Prediction
from tuneoff.scoring.base import Options, ScoringInput, load_scorer
from tuneoff.storage.run_dir import RunDir
from tuneoff.tokenization.examples import IGNORE_INDEX, encode_example

ANSWER = "\n\tdef f():\n    return 1\n\n"
PROMPT = [{"role": "user", "content": "Write f."}]


def test_a_run_stores_answers_as_they_stand(tmp_path: Path) -> None:
    """Of one's data and of recorded predictions; metrics, one's own too, see no outer blanks."""
    for split, count in (("train", 10), ("validation", 2), ("test", 4)):
        rows = [
            {"messages": [{"role": "user", "content": f"{split} {n}"},
                          {"role": "assistant", "content": ANSWER}]}
            for n in range(count)
        ]  # fmt: skip
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = [ANSWER, ANSWER.strip(), f"  {ANSWER}", " \n "]
    rows = [{"id": f"test-{n}", "prediction": text} for n, text in enumerate(said, 1)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "whole.py").write_text(
        "def score(example, prediction): return prediction == example.completion\n"
    )
    (tmp_path / "b.yaml").write_text(
        "name: kept\ntask: {id: chat, train: train.jsonl, validation: validation.jsonl, "
        "test: test.jsonl, metrics: [exact_match, ./whole.py]}\n"
        "contenders: [{name: said, id: recorded, model: m, predictions: said.jsonl}]\n"
    )
    results = tuneoff.run(tuneoff.load(tmp_path / "b.yaml"), tmp_path / "run")
    run = RunDir(tmp_path / "run")
    assert {e.completion for s in ("train", "validation", "test") for e in run.examples(s)} == {  # type: ignore[arg-type]
        ANSWER
    }
    found = run.contender("said")
    assert [row.prediction for row in found.predictions().values()] == said
    scores = [row.scores for row in found.scores().values()]
    assert [row["exact_match"] for row in scores] == [True, True, True, False]
    assert [row["whole"] for row in scores] == [True, True, True, False]
    assert [row.verdict for row in found.scores().values()][-1] == "no answer"
    assert results.contenders[0].scores["exact_match"].value == 0.75


@pytest.mark.parametrize("answer", [ANSWER, "yes ", " yes", "yes", "\r\n\u3000yes\u00a0"])
def test_what_is_learned_is_what_is_answered_and_uploaded(tiny_base: Path, answer: str) -> None:
    example = Example("1", {"messages": PROMPT}, answer)
    tokenizer = load_tokenizer(str(tiny_base))
    learned = encode_example(tokenizer, example, CHAT_PASS_THROUGH, "text", "completion", 512)
    tokens = [token for token in learned.labels if token != IGNORE_INDEX]
    ending = StopCriteria(tokenizer, (tokenizer.eos_token_id,), ("\n###",))
    answered = ending.build_prediction("1", 3, tokens, 0.1)
    assert (answered.prediction, answered.finish_reason) == (answer, "stop")
    assert answered.tokens_out == len(tokens) - 1
    assert build_prediction("1", Reply(answer), None).prediction == answer
    turns = fine_tuning_job.prompts.render_conversation(example, CHAT_PASS_THROUGH)
    line = json.loads(fine_tuning_job.training_rows.render_line(turns))
    assert line["messages"][-1] == {"role": "assistant", "content": answer}


@pytest.mark.parametrize(
    ("scorer", "answer", "wrong"),
    [
        ("text", "Lima", "Oslo"),
        ("functional", "inform(name[Portal 2])", "inform(name[Portal])"),
        ("sql", "SELECT a FROM b", "SELECT c FROM b"),
    ],
)
def test_blanks_around_an_answer_are_nothing_to_a_metric(
    scorer: str, answer: str, wrong: str
) -> None:
    bare = [ScoringInput("1", answer, answer), ScoringInput("2", answer, wrong)]
    rows = [*bare]
    for around in (" ", "\n", "\t\r\n", "\u3000"):
        rows += [replace(row, prediction=f"{around}{row.prediction}{around}") for row in bare]
        rows += [replace(row, reference=f"{around}{row.reference}{around}") for row in bare]
    found = list(load_scorer(scorer).score_rows(rows, Options(workers=1)))
    assert found[0].scores["exact_match"] is True
    assert found[1].scores["exact_match"] is False
    for place, row in enumerate(found):
        assert (row.scores, row.verdict) == (found[place % 2].scores, found[place % 2].verdict)


@pytest.mark.parametrize("scored", ["LIMA", "\n LIMA\n"])
def test_an_answer_made_elsewhere_is_the_scored_one_whatever_blanks_are_around_it(
    scored: str,
) -> None:
    """An earlier version stored answers without them."""
    tuned: Any = SimpleNamespace(
        predictions={"1": Prediction("1", scored)}, settings=SimpleNamespace(name="own"),
        was="scored",
    )  # fmt: skip
    example, asked = Example("1", {"messages": PROMPT}, "LIMA"), list[int]()

    def compared(text: str) -> bool:
        def gap(_: int, number: int) -> float:
            asked.append(number)
            return 1.0

        answers = [([ord(letter) for letter in text], text)]
        return compare_answers(
            tuned, [example], answers, lambda ids: "".join(map(chr, ids)), gap, exact=True
        ).passed

    assert compared("LIMA")
    assert compared("\n LIMA\n")
    assert asked == []
    assert not compared("\n LIRA")
    assert asked == [len("\n LI")], "it leaves the scored answer at its third letter"


def test_a_weight_or_outer_blanks_are_no_other_data() -> None:
    """A run of before kept neither; its files are not called different for that."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    weighted = [turns[0], {**turns[1], "weight": 0}]
    own = [Example("1", {"messages": turns}, "Lima")]
    new = [Example("1", {"messages": weighted}, " Lima\n")]
    splits = ("train", "validation", "test")
    assert not data_update.compare_examples(dict.fromkeys(splits, own), dict.fromkeys(splits, new))  # type: ignore[arg-type]
