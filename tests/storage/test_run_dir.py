"""The run directory: whole files or none, torn lines cut, a changed file refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tuneoff.config.load import parse
from tuneoff.config.schema import BakeOff
from tuneoff.errors import RunDirectoryError
from tuneoff.records import LossRow, Prediction
from tuneoff.storage import files, resume, run_dir

FILE = """\
name: mine
task: {id: chat, train: t.jsonl}
contenders:
  - {name: a, id: local}
  - {name: b, id: prompted, base: tiny}
"""


def bakeoff(text: str = FILE) -> BakeOff:
    return parse(text, Path("b.yaml"))


def test_a_torn_last_line_is_ignored_and_cut_before_the_next_append(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert [row["a"] for row in files.read_lines(file)] == [1, 2]
    files.append_lines(file, [{"a": 3}])
    assert file.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 3}\n'


def test_a_file_torn_in_its_only_line_becomes_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a"')
    files.append_lines(file, [{"a": 3}])
    assert file.read_text() == '{"a": 3}\n'


def test_a_line_torn_inside_a_character_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes('{"a": 1}\n{"a": "é'.encode()[:-1])
    assert list(files.read_lines(file)) == [{"a": 1}]
    files.append_lines(file, [{"a": 2}])
    assert [row["a"] for row in files.read_lines(file)] == [1, 2]


def test_a_contender_that_begins_anew_may_have_changed(tmp_path: Path) -> None:
    resume.open_run_dir(tmp_path, bakeoff())
    changed = bakeoff(FILE.replace("name: a, id: local", "name: a, id: local, method: full"))
    with pytest.raises(RunDirectoryError):
        resume.open_run_dir(tmp_path, changed, fresh="b")
    resume.open_run_dir(tmp_path, changed, fresh="a")
    with pytest.raises(RunDirectoryError):  # what was done before is not forgotten yet
        resume.open_run_dir(tmp_path, changed)
    resume.save_config(tmp_path, changed)
    resume.open_run_dir(tmp_path, changed)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    files.write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_lone_surrogate_in_an_answer_is_kept(tmp_path: Path) -> None:
    directory = run_dir.ContenderDir(tmp_path)
    directory.append_predictions([Prediction("1", "\ud800é")])
    assert directory.predictions()["1"].prediction == "\ud800é"


def test_of_a_repeated_answer_the_first_counts(tmp_path: Path) -> None:
    directory = run_dir.ContenderDir(tmp_path)
    directory.append_predictions([Prediction("1", "first"), Prediction("1", "second")])
    assert directory.predictions()["1"].prediction == "first"


def test_loss_rows_past_a_checkpoint_are_cut(tmp_path: Path) -> None:
    directory = run_dir.ContenderDir(tmp_path)
    for step in (10, 20, 30):
        directory.append_loss(LossRow(step, step, 1.0, 1.0))
    directory.truncate_loss(20)
    assert [row.step for row in directory.loss()] == [10, 20]


def test_the_same_file_opens_its_run_again(tmp_path: Path) -> None:
    resume.open_run_dir(tmp_path / "run", bakeoff())
    stored = (tmp_path / "run" / "bakeoff.yaml").read_text()
    assert resume.open_run_dir(tmp_path / "run", bakeoff()).path == tmp_path / "run"
    assert (tmp_path / "run" / "bakeoff.yaml").read_text() == stored


def test_the_resolved_file_with_seeds_can_be_read_again(tmp_path: Path) -> None:
    several = "name: a, id: local, seeds: [3, 1], learning_curve: [1, 0.5, 0.25]"
    run = resume.open_run_dir(tmp_path, bakeoff(FILE.replace("name: a, id: local", several)))
    stored = (run.path / "bakeoff.yaml").read_text()
    again = bakeoff(stored)
    kept = yaml.safe_load(stored)
    kept.pop("folder")  # where the file lay, which is no key of it
    assert resume.dump_resolved(again) == kept
    assert again.contenders[0].seeds == (3, 1)  # type: ignore[union-attr]
    assert again.contenders[0].learning_curve == (0.25, 0.5, 1.0)  # type: ignore[union-attr]


def test_a_run_begun_before_there_were_seeds_goes_on(tmp_path: Path) -> None:
    stored = resume.open_run_dir(tmp_path, bakeoff()).path / "bakeoff.yaml"
    old = yaml.safe_load(stored.read_text())
    for key in ("seeds", "learning_curve"):
        del old["contenders"][0][key]
    stored.write_text(yaml.safe_dump(old))
    resume.open_run_dir(tmp_path, bakeoff())


def test_a_run_begun_before_there_was_reasoning_goes_on(tmp_path: Path) -> None:
    """Its copy of the file has none of the keys; a price may change, how it is asked may not."""
    asked = "name: price, id: prompted, model: m, price: {input_usd_per_million_tokens: 1}"
    before = bakeoff(FILE.replace("name: a, id: local", asked))
    stored = resume.open_run_dir(tmp_path, before).path / "bakeoff.yaml"
    kept = yaml.safe_load(stored.read_text())
    assert {kept["contenders"][0].pop(f"reasoning_{what}") for what in ("effort", "tokens")} == {
        None
    }
    assert kept["contenders"][0]["price"].pop("cache_write_usd_per_million_tokens") is None
    stored.write_text(yaml.safe_dump(kept))
    resume.open_run_dir(tmp_path, before)
    dearer = asked.replace("{", "{cache_write_usd_per_million_tokens: 2, ")
    resume.open_run_dir(tmp_path, bakeoff(FILE.replace("name: a, id: local", dearer)))
    changed = FILE.replace("name: a, id: local", f"{asked}, reasoning_tokens: 9")
    with pytest.raises(RunDirectoryError, match=r"changed: contenders\.price\.reasoning_tokens"):
        resume.open_run_dir(tmp_path, bakeoff(changed))


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("name: a, id: local", "name: a, id: local, method: full", "contenders.a.method"),
        ("t.jsonl", "u.jsonl", "task.train"),
        ("name: b,", "name: c,", "contenders.b"),
    ],
)
def test_a_changed_file_is_refused_by_key(
    tmp_path: Path, before: str, after: str, key: str
) -> None:
    resume.open_run_dir(tmp_path, bakeoff())
    with pytest.raises(RunDirectoryError, match="begun with another bake-off file") as caught:
        resume.open_run_dir(tmp_path, bakeoff(FILE.replace(before, after)))
    assert key in str(caught.value)


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": 2}')
    with pytest.raises(RunDirectoryError, match="schema 2"):
        run_dir.RunDir(tmp_path).results()
