"""Every mistake a user can make in a file is one clear sentence, exit 2, nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import Cli

from tuneoff.config.contenders import LocalConfig
from tuneoff.config.load import parse
from tuneoff.errors import ConfigError, explain_unknown

GOOD = """\
name: mine
task: {id: functional_representation, source: sample, limit: {train: 20, validation: 5, test: 5}}
contenders:
  - {name: a, id: prompted, base: tiny}
  - {name: b, id: local}
"""
CHAT = "name: mine\ntask: {id: chat, train: train.jsonl}\ncontenders: [{name: a, id: local}]\n"


def line(question: str, answer: str = "yes") -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}) + "\n"


MANY = "".join(line(f"question {number}") for number in range(30))

# (what is wrong, the bake-off file, other files, what the sentence must hold)
CASES: list[tuple[str, str | None, dict[str, str], tuple[str, ...]]] = [
    ("missing file", None, {}, ("b.yaml", "no such file")),
    ("empty file", "", {}, ("b.yaml", "empty", "name, task and contenders")),
    ("not YAML", "name: [", {}, ("b.yaml:", "YAML")),
    ("a list", "- a\n- b\n", {}, ("b.yaml:1", "expected keys")),
    (
        "unknown key",
        GOOD + "budgt_usd: 3\n",
        {},
        ("b.yaml:6", "budgt_usd", "did you mean budget_usd"),
    ),
    (
        "a needed key written wrongly",
        GOOD.replace("contenders:", "contender:"),
        {},
        ("b.yaml:3", "'contender'", "did you mean contenders"),
    ),
    (
        "unknown nested key",
        GOOD.replace("id: local}", "id: local, train: {epoch: 3}}"),
        {},
        ("b.yaml:5", "'epoch'", "did you mean epochs"),
    ),
    (
        "reasoning of a base",
        GOOD.replace("base: tiny", "base: tiny, reasoning_effort: low"),
        {},
        ("b.yaml:4", "reasoning_tokens go with model, not with base"),
    ),
    (
        "reasoning that is none",
        GOOD.replace("base: tiny", "model: m, reasoning_effort: none, reasoning_tokens: 9"),
        {},
        ("b.yaml:4", "reasoning_effort is none, so there are no reasoning_tokens"),
    ),
    (
        "unknown reasoning effort",
        GOOD.replace("base: tiny", "model: m, reasoning_effort: lots"),
        {},
        ("b.yaml:4", "reasoning_effort", "'lots'", "'none', 'minimal', 'low'"),
    ),
    (
        "unknown task",
        GOOD.replace("functional_representation", "functional"),
        {},
        ("unknown task 'functional'", "text_to_sql"),
    ),
    ("unknown source", GOOD.replace("sample", "sampel"), {}, ("'sampel'", "viggo", "sample")),
    (
        "unknown contender",
        GOOD.replace("id: local", "id: locla"),
        {},
        ("b.yaml:5", "'locla'", "did you mean local"),
    ),
    ("contender without id", GOOD.replace(", id: local", ""), {}, ("b.yaml:5", "b has no id")),
    (
        "unknown metric",
        GOOD.replace("source: sample", "source: sample, metrics: [exact_mtch]"),
        {},
        ("'exact_mtch'", "did you mean exact_match"),
    ),
    ("a name twice", GOOD.replace("name: b", "name: a"), {}, ("'a'", "twice")),
    ("no contender", GOOD.split("  -")[0].rstrip(":\n") + ": []\n", {}, ("b.yaml:3", "contenders")),
    ("missing task", GOOD.replace("task:", "#"), {}, ("b.yaml", "task is missing")),
    (
        "a number out of range",
        GOOD.replace("id: local}", "id: local, lora: {r: 0}}"),
        {},
        ("b.yaml:5", "contenders.1.lora.r is 0"),
    ),
    (
        "a batch that does not divide",
        GOOD.replace("id: local}", "id: local, train: {batch_size: 10, micro_batch_size: 4}}"),
        {},
        ("b.yaml:5", "10 is not a multiple of micro_batch_size 4"),
    ),
    (
        "seed and seeds",
        GOOD.replace("id: local}", "id: local, seed: 0, seeds: [0, 1]}"),
        {},
        ("b.yaml:5", "seed (one training) or seeds (one training each), not both"),
    ),
    (
        "a seed twice",
        GOOD.replace("id: local}", "id: local, seeds: [1, 2, 1]}"),
        {},
        ("b.yaml:5", "contenders.1.seeds: 1 is there twice; keep one."),
    ),
    (
        "a single one of several seeds",
        GOOD.replace("id: local}", "id: local, seeds: [1]}"),
        {},
        ("b.yaml:5", "two seeds or more", "as seed"),
    ),
    (
        "seeds that are no list",
        GOOD.replace("id: local}", "id: local, seeds: 3}"),
        {},
        ("b.yaml:5", "contenders.1.seeds is 3", "a list"),
    ),
    (
        "a seed below zero",
        GOOD.replace("id: local}", "id: local, seeds: [0, -1]}"),
        {},
        ("b.yaml:5", "contenders.1.seeds.1 is -1", "greater than or equal to 0"),
    ),
    (
        "more than all training examples",
        GOOD.replace("id: local}", "id: local, learning_curve: [0.5, 1.5]}"),
        {},
        ("b.yaml:5", "contenders.1.learning_curve.1 is 1.5", "less than or equal to 1"),
    ),
    (
        "a fraction twice",
        GOOD.replace("id: local}", "id: local, learning_curve: [0.5, 0.25, 0.5]}"),
        {},
        ("b.yaml:5", "0.5 is there twice"),
    ),
    (
        "a learning curve of one point",
        GOOD.replace("id: local}", "id: local, learning_curve: [1.0]}"),
        {},
        ("b.yaml:5", "a fraction below 1"),
    ),
    (
        "seeds of what is not trained",
        GOOD.replace("base: tiny}", "base: tiny, seeds: [0, 1]}"),
        {},
        ("b.yaml:4", "unknown key 'seeds'", "seed"),
    ),
    (
        "a base that does not exist",
        GOOD.replace("id: local", "id: local, base: ./no-such-base"),
        {},
        ("'./no-such-base'", "no such folder", "OWNER/NAME"),
    ),
    (
        "a misspelt shipped base",
        GOOD.replace("base: tiny", "base: tny"),
        {},
        ("'tny'", "tiny", "OWNER/NAME"),
    ),
    (
        "a recorded file that is not there",
        GOOD.replace("id: local", "id: recorded, predictions: p.jsonl"),
        {},
        ("contender b", "p.jsonl"),
    ),
    ("no training file", CHAT, {}, ("train.jsonl", "no such file")),
    ("chat without train", CHAT.replace(", train: train.jsonl", ""), {}, ("needs train",)),
    ("an empty data file", CHAT, {"train.jsonl": ""}, ("train.jsonl", "empty")),
    (
        "a line that is not JSON",
        CHAT,
        {"train.jsonl": MANY + "{nonsense\n"},
        ("train.jsonl:31", "not JSON"),
    ),
    (
        "a row without an answer",
        CHAT,
        {"train.jsonl": MANY + '{"messages": [{"role": "user", "content": "x"}]}\n'},
        ("train.jsonl:31", "'user'", "assistant's answer"),
    ),
    (
        "an empty answer",
        CHAT,
        {"train.jsonl": MANY + line("x", " ")},
        ("train.jsonl:31", "answer is empty"),
    ),
    (
        "an unknown role",
        CHAT,
        {"train.jsonl": MANY + line("x").replace('"user"', '"usr"')},
        ("train.jsonl:31", "messages.0.role is 'usr'", "system"),
    ),
    (
        "a missing column",
        CHAT.replace("train.jsonl}", "train.jsonl, columns: {prompt: q, completion: a}}"),
        {"train.jsonl": '{"q": "x", "b": "y"}\n'},
        ("train.jsonl:1", "'a'", "q, b"),
    ),
    (
        "overlapping splits",
        CHAT.replace("train.jsonl}", "train.jsonl, test: test.jsonl}"),
        {"train.jsonl": MANY, "test.jsonl": line("question 3")},
        ("overlap", "1 inputs of test", "train"),
    ),
    (
        "an example longer than the base's positions",
        CHAT,
        {"train.jsonl": MANY + line("far away " * 2000)},
        ("contender a", "'train-31' has 4", "2048 positions", "train.truncate: true"),
    ),
    (
        "an answer longer than the base's positions",
        CHAT.replace("id: local", "id: local, train: {truncate: true}"),
        {"train.jsonl": MANY + line("far", "away " * 2500)},
        ("contender a", "'train-31' leaves no room for its answer"),
    ),
    (
        "too few examples to carve splits out of",
        CHAT,
        {"train.jsonl": line("one") + line("two")},
        ("train.jsonl: 2 examples are too few", "task.validation and task.test"),
    ),
    (
        "a suffix that cannot be read",
        CHAT.replace("train.jsonl", "train.xlsx"),
        {"train.xlsx": "x"},
        ("train.xlsx", "'.xlsx'", ".jsonl"),
    ),
    ("a key twice", GOOD + "name: again\n", {}, ("b.yaml:6", "'name'", "twice")),
    ("contenders that are no list", GOOD.split("contenders")[0] + "contenders: 5\n", {}, ("list",)),
    ("a date that is none", GOOD + "as_of: 2024-99-99\n", {}, ("b.yaml", "month must be")),
    (
        "the seed's splits on a sample",
        GOOD.replace("source: sample", "source: sample, splits: seed"),
        {},
        ("task.splits", "viggo"),
    ),
    (
        "an unknown metric among reported figures",
        GOOD.replace("id: local", "id: recorded, scores: {exact_mtch: {value: 0.5}}"),
        {},
        ("contender b", "did you mean exact_match"),
    ),
    (
        "a database folder that is not there",
        GOOD.replace(
            "functional_representation, source: sample",
            "text_to_sql, databases: none, source: sample",
        ),
        {},
        ("task.databases", "none"),
    ),
    ("a data folder that is not there", GOOD + "data_dir: nowhere\n", {}, ("data_dir", "nowhere")),
]


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("text", "others", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_one_sentence_and_nothing_written(
    command: str,
    text: str | None,
    others: dict[str, str],
    expected: tuple[str, ...],
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEOFF_DATA", raising=False)
    for name, content in others.items():
        Path(name).write_text(content)
    if text is not None:
        Path("b.yaml").write_text(text)
    before = sorted(Path().iterdir())
    code, out, err = cli(command, "b.yaml")
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for part in expected:
        assert part in err
    assert sorted(Path().iterdir()) == before


def test_a_rate_without_a_point_is_a_number() -> None:
    """To YAML 1.1 `2e-3` is text; to everybody who trains it is a number."""
    text = GOOD.replace("id: local}", "id: local, train: {learning_rate: 2e-3}}")
    second = parse(text, Path("b.yaml")).contenders[1]
    assert isinstance(second, LocalConfig)
    assert second.train.learning_rate == 0.002
    with pytest.raises(ConfigError, match="got 'fast'; allowed: a number between 0 and 1"):
        parse(text.replace("2e-3", "fast"), Path("b.yaml"))


def test_a_run_directory_of_another_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "bakeoff.yaml").write_text("name: mine\ntask: {id: chat}\ncontenders: []\n")
    Path("b.yaml").write_text(GOOD)
    code, _, err = cli("run", "b.yaml")
    assert code == 2
    assert "begun with another bake-off file" in err
    assert "contenders.a" in err
    assert "--run-dir" in err
    assert sorted(p.name for p in folder.iterdir()) == ["bakeoff.yaml"]


def test_a_folder_that_is_no_run_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "precious.txt").write_text("mine")
    Path("b.yaml").write_text(GOOD)
    code, _, err = cli("run", "b.yaml", "--run-dir", "docs")
    assert code == 2
    assert "not empty" in err
    assert (tmp_path / "docs" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ("no such file",)),
        ("", ("empty",)),
        ("nonsense\n", ("p.jsonl:1", "not JSON")),
        ('{"prediction": "x", "reference": "x"}\n', ("p.jsonl:1", '"id"')),
        ('{"id": "1", "reference": "x"}\n', ("p.jsonl:1", '"prediction"')),
        ('{"id": "1", "prediction": "x", "reference": "x"}\n' * 2, ("p.jsonl:2", "'1'")),
    ],
)
def test_score_refuses_bad_rows(
    content: str | None, expected: tuple[str, ...], cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "p.jsonl"
    if content is not None:
        file.write_text(content)
    out_file = tmp_path / "out.jsonl"
    code, out, err = cli("score", "--task", "chat", "--predictions", file, "--out", out_file)
    assert (code, out) == (2, "")
    for part in expected:
        assert part in err
    assert not out_file.exists()


def test_only_names_a_contender_of_the_file(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.yaml").write_text(GOOD)
    code, _, err = cli("run", "b.yaml", "--only", "c")
    assert code == 2
    assert "'c'" in err
    assert "a, b" in err
    assert not Path("runs").exists()


def test_a_report_needs_a_finished_run(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("report", tmp_path)
    assert code == 2
    assert "no results.json" in err


def test_init_does_not_overwrite(cli: Cli, tmp_path: Path) -> None:
    data, out = tmp_path / "d.jsonl", tmp_path / "b.yaml"
    data.write_text(MANY)
    out.write_text("mine")
    code, _, err = cli("init", data, "--out", out)
    assert code == 2
    assert "there already" in err
    assert out.read_text() == "mine"


def test_init_names_the_columns_it_does_not_know(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("alpha,beta\n1,2\n")
    code, _, err = cli("init", data, "--out", tmp_path / "b.yaml")
    assert code == 2
    assert "alpha, beta" in err
    assert not (tmp_path / "b.yaml").exists()


JUDGE = "{id: judge, model: m, rubric: r, %s}"
# (what is added to the task, what to the second contender, what the sentence holds)
INNER: list[tuple[str, str, tuple[str, ...]]] = [
    (f", metrics: [{JUDGE % 'rubrik: x'}]", "", ("'rubrik' (allowed: base_url,", "mean rubric?")),
    (f", metrics: [exact_match, {JUDGE % 'temperature: 0'}]", "", ("in task.metrics.1.",)),
    (f", metrics: [{JUDGE % 'price: {input: 1}'}]", "", ("task.metrics.0.price.", "output_usd")),
    (", metrics: [{id: judge, model: m}]", "", ("task.metrics.0.rubric is missing",)),
    (", metrics: [{id: jugde, model: m, rubric: r}]", "", ("task.metrics.0.id is 'jugde'",)),
    (", metrics: [5]", "", ("task.metrics.0 is 5: input should be a valid string",)),
    (", limit: {tran: 5}", "", ("in task.limit.", "did you mean train?")),
    (", columns: {promt: x}", "", ("in task.columns.", "did you mean prompt?")),
    (", columns: {prompt: [a, 1]}", "", ("task.columns.prompt: give a column's name, or a list",)),
    (", columns: {encoding: utf9}", "", ("task.columns.encoding: got 'utf9'", "cp1252")),
    ("", ", lora: {rank: 1}", ("in contenders.1.lora.", "target_modules")),
    ("", ", lora: 5", ("contenders.1.lora is 5: input should be keys with values",)),
    ("", ", lora: {target_modules: 5}", ("target_modules is 5: input should be a list or",)),
    ("", ", hardware: {gpu: x}", ("(allowed: accelerator, count, usd_per_hour)",)),
    ("", ", local: 3", ("unknown key 'local'", "in contenders.1.")),
    ("}\nserving: {utilisation: 1", "", ("unknown key", "utilization", "in serving.")),
    ("}\nrequirements: {manged: 1", "", ("did you mean managed?", "in requirements.")),
]


@pytest.mark.parametrize(("of_task", "of_contender", "expected"), INNER)
def test_what_is_wrong_inside_is_said_in_the_files_own_words(
    of_task: str, of_contender: str, expected: tuple[str, ...]
) -> None:
    text = (
        f"name: x\ntask: {{id: chat, train: t.jsonl{of_task}}}\n"
        f"contenders: [{{name: a, id: local}}, {{name: b, id: local{of_contender}}}]\n"
    )
    with pytest.raises(ConfigError) as found:
        parse(text, Path("b.yaml"))
    message = str(found.value)
    for part in expected:
        assert part in message
    assert not re.search(r"Settings|Tag|function|\.str\b|tuple", message)


def test_scores_of_a_recorded_contender_have_keys_of_their_own() -> None:
    text = GOOD.replace("id: local", "id: recorded, scores: {exact_match: {valu: 0.5}}")
    with pytest.raises(ConfigError, match=r"\(allowed: n, value; did you mean value\?\)"):
        parse(text, Path("b.yaml"))


@pytest.mark.parametrize(
    ("got", "offered"),
    [
        ("A100", "; did you mean A100 40GB or A100 80GB?"),
        ("a100 8", "; did you mean A100 80GB?"),
        ("H10", "; did you mean H100?"),
        ("h10o", "; did you mean H100?"),
        ("", ")"),
        ("TPU", ")"),
    ],
)
def test_names_that_begin_so_are_offered(got: str, offered: str) -> None:
    names = ["H100", "A100 80GB", "L4", "A100 40GB"]
    said = explain_unknown("accelerator", got, names)
    assert offered in said
    assert ("did you mean" in said) == ("did you mean" in offered)


def test_an_accelerator_of_several_sizes_is_asked_about(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(GOOD.replace("id: local", "id: local, hardware: {accelerator: A100}"))
    code, out, _ = cli("check", file)
    assert code == 0
    assert "did you mean A100 40GB or A100 80GB?" in out
