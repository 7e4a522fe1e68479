"""`tuneoff label`: the real command, on a run that a judge on this machine scored."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Cli
from judge_server import running_server

import tuneoff
from tuneoff.bakeoff.labels import (
    JudgedRun,
    Label,
    LabelQuestion,
    LabelVerdict,
    append_label,
    load_judged_run,
    read_labels,
)
from tuneoff.storage.files import write_lines
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("openai")
ROWS = 48
Press = Callable[..., tuple[int, str, str]]


def says(place: int, name: str) -> str:
    """The answers: right, wrong, the reference itself, the same of both, none."""
    if place % 12 == 0:
        return f"good {place}"
    if place % 12 == 1:
        return ""
    if place % 3 == 0:
        return f"fine {place}"
    return (
        f"fine {place} {name}" if place % (4 if name == "short" else 5) else f"poor {place} {name}"
    )


def carry_out(folder: Path, answers: dict[str, list[dict[str, Any]]], rows: int) -> None:
    """A run of recorded contenders whose judge takes every eighth poor answer for a good one, and
    says nothing about an odd one."""
    for split, count in (("train", 4), ("validation", 4), ("test", rows)):
        examples = [{"prompt": f"{split} {i}", "completion": f"good {i}"} for i in range(count)]
        write_lines(folder / f"{split}.jsonl", examples)
    for name, given in answers.items():
        write_lines(folder / f"{name}.jsonl", given)

    def rule(prompt: str, a: str, b: str) -> str:
        answer = b if a.startswith("good") else a
        if answer.startswith("odd"):
            return "Hm."
        is_wrong = answer.startswith("poor") and int(answer.split()[1]) % 8
        return ("A" if answer == b else "B") if is_wrong else "TIE"

    with running_server() as server:
        server.rule = rule
        host, port = server.server_address[:2]
        metric = f"{{id: judge, model: m, base_url: 'http://{host!s}:{port}/v1', rubric: Be good.}}"
        (folder / "b.yaml").write_text(
            f"name: judged\ntask: {{id: chat, train: train.jsonl, validation: validation.jsonl, "
            f"test: test.jsonl, metrics: [{metric}, exact_match]}}\ncontenders:\n"
            + "".join(
                f"  - {{name: {name}, id: recorded, predictions: {name}.jsonl}}\n"
                for name in answers
            )
        )
        tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two contenders."""
    folder = tmp_path_factory.mktemp("judged")
    answers = {
        name: [{"id": f"test-{i + 1}", "prediction": says(i, name)} for i in range(ROWS)]
        for name in ("short", "long")
    }
    carry_out(folder, answers, ROWS)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(finished, tmp_path / "f")
    return RunDir(tmp_path / "f" / "run")


@pytest.fixture
def press(cli: Cli, run: RunDir, monkeypatch: pytest.MonkeyPatch) -> Press:
    """Label with these keys from a pipe."""

    def pressed(keys: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        return cli("label", run.path, *arguments)

    return pressed


def judged(run: RunDir) -> JudgedRun:
    return load_judged_run(run, run.results())


def to_ask(run: RunDir, rows: int) -> list[LabelQuestion]:
    drawn = list(judged(run).questions().values())[:rows]
    return [question for row in drawn for question in row if question.known is None]


def key_of(question: LabelQuestion) -> str:
    """What someone who knows the truth presses."""
    if question.answer.startswith("fine"):
        return "t"
    return "b" if question.texts(0)[2] else "a"


def test_a_kill_loses_nothing_and_the_report_shows_what_people_said(
    run: RunDir, press: Press, cli: Cli
) -> None:
    asked = to_ask(run, 30)
    keys = [key_of(question) for question in asked]
    with subprocess.Popen(
        [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "label", str(run.path)],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=os.environ,
    ) as killed:  # fmt: skip
        assert killed.stdin is not None
        assert killed.stderr is not None
        killed.stdin.write("".join(keys[:3]))
        killed.stdin.flush()
        for line in killed.stderr:
            if f"answer 4 of {len(asked)} " in line:
                break
        killed.kill()
    assert [(x.id, x.sha256) for x in read_labels(run) if x.known is None] == [
        (question.id, question.sha256) for question in asked[:3]
    ]
    with run.labels.open("a") as stream:
        stream.write('{"id": "torn')
    code, out, err = press("".join(keys[3:]))
    assert code == 0
    assert f"answer 4 of {len(asked)} " in err
    assert "answer 3 of" not in err
    assert "Nothing is left of the first 30 rows; a larger --rows adds some." in out
    assert out.endswith("puts this into the report.\n")
    before = run.results()
    assert before.labels is None
    assert cli("report", run.path)[0] == 0
    after = run.results()
    check_figures(run, after)
    assert after.recommendation == before.recommendation
    shown = (run.path / "report.html").read_text(), (run.path / "report.md").read_text()
    for page in (*shown, out):
        assert f"A person labelled {len(asked)} answers to 30 test rows" in page
        assert f"{100 * after.contenders[0].corrected['judge'].value:.1f}%" in page  # type: ignore[operator]
        assert "30 of 48" in page


def check_figures(run: RunDir, results: Any) -> None:
    """Recompute what the report shows from the files, by the truth about the answers."""
    rows = list(judged(run).questions())[:30]
    truth, by_judge = {}, {}
    for name in ("short", "long"):
        places = {f"test-{i + 1}": says(i, name) for i in range(ROWS)}
        truth[name] = {id: float(text[:4] in ("fine", "good")) for id, text in places.items()}
        scored = (run.path / "contenders" / name / "scores.jsonl").read_text().splitlines()
        by_judge[name] = {r["id"]: r["scores"]["judge"] for r in map(json.loads, scored)}
    rest = [id for id in truth["short"] if id not in rows]
    for contender in results.contenders:
        found, y, f = contender.corrected["judge"], truth[contender.name], by_judge[contender.name]
        off = sum(y[id] - found.weight * f[id] for id in rows) / 30
        expected = off + found.weight * sum(f[id] for id in rest) / 18
        assert found.value == pytest.approx(expected)
        assert found.low < found.value < found.high
        assert (found.n, found.of) == (30, 48)
    found = results.comparisons[0].corrected
    y, f = ({id: x["short"][id] - x["long"][id] for id in y} for x in (truth, by_judge))
    off = sum(y[id] - found.weight * f[id] for id in rows) / 30
    assert found.value == pytest.approx(off + found.weight * sum(f[id] for id in rest) / 18)
    asked = to_ask(run, 30)
    agree = [q.judged == float(q.answer.startswith("fine")) for q in asked]
    assert results.labels.agreement.value == pytest.approx(sum(agree) / len(asked))
    assert results.labels.answers == len(asked)
    wrong = Counter((q.judged, q.answer[:4]) for q in asked)
    assert results.labels.table["not worse"] == {
        "equal": wrong[1, "fine"],
        "worse": wrong[1, "poor"],
    }


def test_names_and_the_reference_are_hidden(run: RunDir, press: Press) -> None:
    asked = to_ask(run, ROWS)
    first = [question.texts(0)[2] for question in asked]
    assert 0.25 < sum(first) / len(first) < 0.75, "the answer is A about as often as B"
    assert [question.texts(0) for question in to_ask(run, ROWS)] == [q.texts(0) for q in asked]
    _, _, err = press("")
    assert f"Answer A:\n{asked[0].texts(0)[0]}\n\nAnswer B:\n{asked[0].texts(0)[1]}\n" in err
    assert "Rubric:\nBe good." in err
    both = [q for q in asked if int(q.id[5:]) % 3 == 1]
    assert len({q.id for q in both}) == len(both), "equal answers of both are asked about once"
    assert list(judged(run).questions(1)) != list(judged(run).questions())


def test_skip_undo_and_more_rows(run: RunDir, press: Press) -> None:
    asked = to_ask(run, 6)
    code, out, err = press("u x s t u b q")
    assert code == 0
    assert "There is nothing to undo." in err
    assert "The key 'x' means nothing." in err
    assert "1 answer was skipped." in out
    assert f"{len(to_ask(run, 30)) - 2} answers are left of the first 30 rows; the same com" in out
    assert "No corrected scores: 1 labelled row cannot show enough, 20 are the least" in out
    said = {(x.id, x.sha256): x.verdict for x in read_labels(run) if x.known is None}
    second = "worse" if asked[1].texts(0)[2] else "better"
    assert said == {
        (asked[0].id, asked[0].sha256): "skipped", (asked[1].id, asked[1].sha256): second
    }  # fmt: skip
    code, out, _ = press("t" * 100, "--rows", 6, "--json")
    assert json.loads(out)["left"] == 0
    six = {x.id for x in read_labels(run)}
    code, out, _ = press("t" * 100, "--rows", 48, "--json")
    ids = list(dict.fromkeys(x.id for x in read_labels(run)))
    assert set(ids[: len(six)]) == six, "the first rows stay the first"
    assert len(ids) == 48
    assert {c["judge"]["n"] for c in json.loads(out)["corrected"].values()} == {47, 48}, (
        "a skipped answer costs its contender one row"
    )


def test_two_people_and_an_answer_that_has_changed(run: RunDir, press: Press, cli: Cli) -> None:
    asked = to_ask(run, 30)
    press("".join(map(key_of, asked)), "--by", "ann")
    # The other one finds everything equally good.
    _, out, _ = press("t" * len(asked), "--by", "bob", "--json")
    labels = json.loads(out)["labels"]
    fine = sum(q.answer.startswith("fine") for q in asked) / len(asked)
    assert (labels["people"], labels["answers"]) == (2, len(asked))
    assert labels["between_people"]["value"] == pytest.approx(fine)
    judged_well = [1 - abs(q.judged - (1.0 if q.answer.startswith("fine") else 0.5)) for q in asked]
    assert labels["agreement"]["value"] == pytest.approx(sum(judged_well) / len(asked))
    path = run.contender("long").path / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    alone = next(q for q in asked if q.answer.endswith("long"))
    for row in rows:
        if row["id"] == alone.id:
            row["prediction"] = "fine, and new"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("report", run.path)[0] == 0
    results = run.results()
    assert results.labels is not None
    assert results.labels.changed == 2
    assert {c.name: c.corrected["judge"].n for c in results.contenders} == {"short": 30, "long": 29}
    assert "2 labels are not used" in (run.path / "report.md").read_text()


def test_all_repeated_answers_are_asked_about(tmp_path: Path, cli: Cli) -> None:
    """Score and correction are of the same: of an example's mean over its answers."""
    twice = [
        {"id": f"test-{i + 1}", "sample": k, "prediction": f"{word} {i} {k if i % 3 else ''}"}
        for i in range(24)
        for k, word in enumerate(
            ("odd", "fine") if i == 1 else ("fine", "poor") if i % 3 else ("fine", "fine")
        )
    ]
    once = [{"id": f"test-{i + 1}", "prediction": f"fine {i}"} for i in range(24)]
    carry_out(tmp_path, {"twice": twice, "once": once}, 24)
    run = RunDir(tmp_path / "run")
    asked = to_ask(run, 24)
    # Of every third row all answers are equal; of one the judge has no score of the first.
    assert Counter(Counter(q.id for q in asked).values()) == {1: 8, 2: 1, 3: 15}
    before = run.results()
    shares = [1.0 if i % 3 == 0 or i == 1 else 0.5 + 0.5 * (i % 8 == 0) for i in range(24)]
    assert before.contenders[0].scores["judge"].value == pytest.approx(sum(shares) / 24)
    for question in asked:
        verdict: LabelVerdict = "worse" if question.answer.startswith("poor") else "equal"
        append_label(run, Label(question.id, question.sha256, verdict))
    assert cli("report", run.path)[0] == 0
    after = run.results()
    found = {c.name: c.corrected["judge"] for c in after.contenders}
    assert {name: (each.n, each.of) for name, each in found.items()} == {
        "twice": (24, 24), "once": (24, 24)
    }  # fmt: skip
    right = sum(1.0 if i % 3 == 0 or i == 1 else 0.5 for i in range(24)) / 24
    assert (found["twice"].value, found["once"].value) == (pytest.approx(right), 1.0)
    assert after.comparisons[0].corrected is not None
    assert after.comparisons[0].corrected.value == pytest.approx(right - 1)


def test_labels_without_a_judge_stop_nothing(run: RunDir, cli: Cli) -> None:
    question = to_ask(run, 1)[0]
    append_label(run, Label(question.id, question.sha256, "equal"))
    file = run.path.parent / "b.yaml"
    text = file.read_text()
    start, end = text.index("{id: judge"), text.index("exact_match")
    file.write_text(text[:start] + text[end:])
    results = tuneoff.run(tuneoff.load(file), run.path)
    assert (results.primary_metric, results.labels) == ("exact_match", None)
    assert cli("report", run.path)[0] == 0


def test_what_cannot_be_labelled_is_one_sentence(run: RunDir, press: Press) -> None:
    stored = run.path / "bakeoff.yaml"
    text = stored.read_text()
    start = text.index("  metrics:")
    end = text.index("  cluster:", start)
    stored.write_text(text[:start] + "  metrics: [exact_match]\n" + text[end:])
    code, _, err = press("t")
    assert code == 2
    assert "this run has no judge whose scores people could check; add one to task.metrics" in err
    (run.path / "results.json").unlink()
    code, _, err = press("t")
    assert code == 2
    assert "there is no results.json in it" in err
    assert not run.labels.exists()
