"""The bake-off file of a migration: three exits beside the captured model, of which each gets its
sentence when it has run."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import write_base
from world import KEY, Trainer, bakeoff_file, hosted, questions
from world import run as carry_out

import tuneoff
from tuneoff.bakeoff.migration.exits import ExitOptions, LeftModel, choose_training, render_bakeoff
from tuneoff.bakeoff.migration.listing import ProviderAccount, find_end
from tuneoff.config.load import parse
from tuneoff.errors import ConfigError
from tuneoff.providers.base import TunedModel

pytest.importorskip("openai")
MINI = "gpt-4.1-mini-2025-04-14"
LOUD = "def score(example, prediction):\n    return bool(prediction.strip())\n"
DAY = datetime.date(2026, 11, 30)


def rendered(day: datetime.date, choices: ExitOptions, base: str = MINI, **source: Any) -> str:
    task = {"id": "chat", "train": "train.jsonl", "test": "test.jsonl"}
    model, where = f"ft:{base}:acmé\n::x#1", ProviderAccount(**source)
    ends = find_end(TunedModel(model, base), where).day
    left = LeftModel(model, base, where, "my \u2028 orders", task, 3000, ends)
    return render_bakeoff(left, choices, day)


def contenders(text: str) -> list[Any]:
    parse(text, Path("bakeoff.yaml"))  # it is a bake-off file, whatever is in the names
    found: list[Any] = yaml.safe_load(text)["contenders"]
    return found


def test_what_is_certain_is_live_and_the_rest_a_comment() -> None:
    text = rendered(DAY, ExitOptions(bases=("tiny", "OWNER/tiny", "owner/TINY")))
    left, *own, plain, shots = contenders(text)
    assert (left["id"], left["model"]) == ("recorded", f"ft:{MINI}:acmé\n::x#1")
    assert [each["name"] for each in own] == ["tiny-lora", "owner-tiny-lora", "owner-tiny-lora-2"]
    assert own[0]["train"] == choose_training(3000)
    assert choose_training(3000)["learning_rate"] == "search"
    assert plain == {"name": "gpt-6-luna", "id": "prompted", "provider": "openai",
                     "model": "gpt-6-luna", "reasoning_effort": "none"}  # fmt: skip
    assert shots == plain | {"name": "gpt-6-luna-8-shots", "shots": 8}
    assert "It ends on 2027-01-14." in text
    assert "a training: 2027-04-13" in " ".join(text.replace("#", "").split())
    assert "$1,241.00 a month" in " ".join(text.replace("#", "").split())
    # The commented block is a contender once its first # is taken away.
    lines = text.splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("  # - name: azure"))
    taken = [line.replace("# ", "", 1) for line in lines[begin : begin + 5]]
    bridge = contenders("\n".join([*lines[:begin], *taken, *lines[begin + 6 :]]))[4]
    assert (bridge["provider"], bridge["model"]) == ("azure", MINI)


@pytest.mark.parametrize(
    ("day", "choices", "source", "names", "said"),
    [
        (DAY, ExitOptions((), "https://acme.openai.azure.com"), {}, ["azure", "gpt-6-luna"],
         "ends on"),
        (datetime.date(2027, 4, 14), ExitOptions((), "https://a.example/openai/v1/"), {},
         ["gpt-6-luna"], "Azure takes no new training jobs"),
        (DAY, ExitOptions((), has_successor=False), {"provider": "azure", "base_url": "https://a.b"},
         [], "ends on 2027-10-14"),
        (DAY, ExitOptions((), successor="own-model"), {}, ["own-model"],
         "no price known: give one"),
        # At another address the book's words are hints, and what a user names is certain.
        (DAY, ExitOptions(()), {"base_url": "https://proxy.example/v1"}, [],
         "To use it, take the first # of each line away."),
        (DAY, ExitOptions((), successor="x"), {"base_url": "http://127.0.0.1:1/v1"}, ["x"],
         "no price known."),
    ],
)  # fmt: skip
def test_exits_depend_on_the_day_and_the_place(
    day: datetime.date, choices: ExitOptions, source: dict[str, Any], names: list[str], said: str
) -> None:
    text = rendered(day, choices, **source)
    found = [each for each in contenders(text)[1:] if "shots" not in each]
    assert [each["name"] for each in found] == names
    assert said in " ".join(text.replace("\n  #", "").split())
    for each in found:
        where = {"key_variable": None, "base_url": source.get("base_url")} | each
        assert where["base_url"] == {"azure": "https://acme.openai.azure.com/openai/v1/"}.get(
            each["name"], source.get("base_url")
        )


def test_a_base_of_which_nothing_is_known_leaves_an_open_model() -> None:
    assert [each["id"] for each in contenders(rendered(DAY, ExitOptions(), base="odd"))] == [
        "recorded", "local",
    ]  # fmt: skip


def test_what_cannot_be_used_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--azure-url is 'acme'; give the address"):
        ExitOptions(azure_url="acme")
    (tmp_path / "judge.yaml").write_text("model: m\n")
    for choices, said in (
        (ExitOptions(metrics=("no.py",)), "--metric: there is no file no.py"),
        (
            ExitOptions(metrics=("exactmatch",)),
            "--metric: unknown metric .*did you mean exact_match",
        ),
        (ExitOptions(metrics=(str(tmp_path / "judge.yaml"),)), "judge.yaml"),
        (ExitOptions(judge=tmp_path / "none.yaml"), "--judge: there is no file"),
        (ExitOptions(judge=tmp_path / "judge.yaml"), "holds no judge .rubric: field required"),
    ):
        with pytest.raises(ConfigError, match=said):
            choices.read_metrics(tmp_path)
    (tmp_path / "judge.yaml").write_text("model: m\nrubric: as good?\n")
    (tmp_path / "loud.py").write_text(LOUD)
    check = {"type": "string_check", "name": "c", "operation": "eq"}
    check |= {"input": "{{sample.output_text}}", "reference": "{{item.reference}}"}
    (tmp_path / "check.json").write_text(json.dumps(check))
    files = [str(tmp_path / name) for name in ("loud.py", "check.json")]
    chosen = ExitOptions(metrics=(*files, "exact_match"), judge=tmp_path / "judge.yaml")
    judge = {"id": "judge", "model": "m", "rubric": "as good?"}
    assert chosen.read_metrics(tmp_path / "a" / "b") == [
        "../../loud.py", "../../check.json", "exact_match", judge,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fail-if-worse",), "--fail-if-worse and --margin go with --parity"),
        (("--margin", "0.1", "--all"), "--fail-if-worse and --margin go with --parity"),
        (("ft:a:b::c", "--parity", "run"), "leave out MODEL, --all, --metric and --judge"),
        (("--parity", "run", "--metric", "exact_match"), "found, by its own metrics"),
        (("ft:a:b::c", "--all"), "leave out ft:a:b::c, or --all"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: tuple[str, ...], said: str, cli: Any
) -> None:
    code, _, err = cli("migrate", *options)
    assert (code, said in " ".join(err.split())) == (2, True)


@pytest.mark.usefixtures("no_report")
def test_the_file_runs_and_each_exit_gets_its_sentence(
    fake: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any, on_day: Any
) -> None:
    on_day("2026-11-30")  # Azure still tunes the base
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    carry_out(bakeoff_file(tmp_path / "before", hosted(fake.url, model=MINI), test=2))
    model = str(fake.saw()["jobs"][0]["fine_tuned_model"])
    write_base(tmp_path / "a base", [*questions(12), "user assistant A answer 0123456789abcdef"])
    (tmp_path / "loud.py").write_text(LOUD)
    command = ("migrate", model, "--out", "my orders", "--base-url", fake.url, "--base", "a base",
               "--azure-url", fake.url, "--successor", "gpt-6-luna")  # fmt: skip
    code, out, err = cli(*command)
    assert code == 0, err
    assert " 0.0%)" in out
    # Scored otherwise, it is asked nothing again.
    asked = fake.completions()
    (tmp_path / "my orders" / "bakeoff.yaml").unlink()
    code, out, err = cli(*command, "--metric", "loud.py", "--metric", "exact_match")
    assert code == 0, err
    assert "(loud 100.0%)" in out
    assert "tuneoff run 'my orders/bakeoff.yaml'" in out
    assert "tuneoff migrate --parity runs/my-orders" in out
    assert fake.completions() == asked
    file = tmp_path / "my orders" / "bakeoff.yaml"
    code, out, err = cli("check", file)
    assert code == 0, err
    planned = tuneoff.plan(tuneoff.load(file), measure=False)
    assert [each.place for each in planned.contenders] == ["provider", *["own"] * 4]
    # Training as it is written takes longer than all else, and is tested elsewhere.
    short = file.read_text().replace("learning_rate: search", "learning_rate: 0.001")
    file.write_text(short.replace("epochs: 10", "epochs: 1"))
    code, out, err = cli("run", file)
    assert code == 0, err
    names = ["a-base-lora", "azure", "gpt-6-luna", "gpt-6-luna-8-shots"]
    code, out, err = cli("migrate", "--parity", "runs/my-orders", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert (row["metric"], row["outcome"], row["holds"]) == ("loud", "cannot be told", False)
        assert f"Whether {row['name']} is as good as the hosted model" in row["sentence"]
    code, out, err = cli("migrate", "--parity", "runs/my-orders", "--fail-if-worse")
    assert (code, out.splitlines()[0]) == (1, "By loud, none of 4 exits holds.")
    assert all(row["sentence"] in out for row in rows)
