"""`tuneoff migrate` lists an account with what is still there and possible, and `--all` saves every
model of it: once, within a budget, whatever fails."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from world import KEY, Trainer, questions, tune, write_examples

from tuneoff.bakeoff import migration, run
from tuneoff.bakeoff.migration.artifacts import MAX_LETTERS, find_bad_line, name_folder
from tuneoff.bakeoff.migration.new_jobs import judge_new_jobs
from tuneoff.costs import contender_prices
from tuneoff.costs.price_book import build_price_book
from tuneoff.providers.openai_models import parse_day

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report", "no_baselines")
BASE, VALIDATION = "gpt-4o-mini-2024-07-18", 3
DAY = datetime.date(2026, 12, 1)


@pytest.fixture
def no_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all else here, and pay nobody."""
    monkeypatch.setattr(run, "score_baselines", lambda *_: None)


def tuned(fake: Trainer, folder: Path, count: int) -> list[str]:
    """Names of models that were tuned on one file and checked on one each, the last on none."""
    write_examples(folder / "train.jsonl", questions(12))
    found = []
    for number in range(count):
        held_out = folder / f"held-out-{number}.jsonl"
        write_examples(held_out, questions(VALIDATION, 100 * (number + 1)))
        last = number == count - 1
        found.append(tune(fake, folder / "train.jsonl", None if last else held_out, BASE))
    return found


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2027-01-14", "2027-01-14"), ("2027-01-14T23:30:00-05:00", "2027-01-15"),
        (1799884800, "2027-01-14"), (1e300, None), ("soon", None), (None, None), (True, None),
        ({"inference": 1}, None),
    ],
)  # fmt: skip
def test_days_are_read_as_servers_write_them(value: Any, day: str | None) -> None:
    assert parse_day(value) == (day and datetime.date.fromisoformat(day))


@pytest.mark.parametrize(
    ("provider", "url", "jobs", "day", "possible", "rule", "until"),
    [
        ("openai", None, False, "2026-12-01", "no", "never tuned", "2026-05-06"),
        ("openai", None, True, "2027-01-05", "perhaps", "asked within 60 days", "2027-01-05"),
        ("openai", None, True, "2027-01-06", "no", "closed", "2027-01-05"),
        ("openai", None, None, "2026-12-01", "not known", "jobs not seen", "2027-01-05"),
        ("openai", "http://x/v1", True, "2026-12-01", "not known", "not known", None),
        ("azure", "https://x/v1", True, "2026-12-01", "perhaps", "existing customers",
         "2027-04-01"),
        ("azure", "https://x/v1", True, "2027-04-01", "not known", "existing customers",
         "2027-04-01"),
    ],
)  # fmt: skip
def test_what_is_possible_goes_by_day_and_jobs(
    provider: str, url: str | None, jobs: bool | None, day: str, possible: str, rule: str,
    until: str | None,
) -> None:  # fmt: skip
    today = datetime.date.fromisoformat(day)
    found = judge_new_jobs(provider, url, jobs, [BASE], build_price_book(), today)
    assert (found["possible"], found["rule"], found["until"]) == (possible, rule, until)
    assert found["sentence"].endswith(".")


def test_names_of_folders_are_safe_and_differ() -> None:
    models = ["ft:a:b::Xy", "ft:a:b::xY", "ft:a:b:-:Xy", "ft:" + "a" * 90, "../../x", "ft:é/:"]
    names = [name_folder(model) for model in models]
    assert len({name.lower() for name in names}) == len(models)
    assert all(
        len(name) <= MAX_LETTERS
        and set(name)
        <= set(name_folder(""))
        | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for name in names
    )
    assert not any(name.startswith((".", "-")) for name in names)
    assert find_bad_line(b'\xef\xbb\xbf{"a": 1}\r\n\n{}\n') is None
    assert find_bad_line(b'{}\n{"a"\n') == 2
    assert find_bad_line(b"[]") == 1


def test_an_account_without_jobs_and_one_with(
    fake: Trainer, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", fake.url)  # as if it were OpenAI itself
    found = migration.list_models(migration.ProviderAccount(), DAY)
    assert (found["models"], found["new_jobs"]["rule"]) == ([], "never tuned")
    first, second = tuned(fake, tmp_path, 2)
    fake.set(lists_checkpoints=True, gone_files=["file-0001"], unlisted_models=[second])
    found = migration.list_models(migration.ProviderAccount(), DAY)
    assert found["new_jobs"]["rule"] == "asked within 60 days"
    (row, *others) = found["models"]
    assert [each["model"].partition(":ckpt")[0] for each in others] == [second] * 3
    assert row["model"] == first
    assert [each.rpartition("-")[2] for each in row["checkpoints"]] == ["4", "8", "10"]
    assert (row["ends"], row["ends_source"], row["days_left"]) == ("2027-01-14", "price book", 44)
    assert (row["training_file_there"], row["validation_file_there"]) == (True, False)
    # What the API says comes before the book; what only a job shows is listed after its day.
    fake.set(shutdown={BASE: "2026-12-24"}, lists_checkpoints=False)
    (row,) = migration.list_models(migration.ProviderAccount(), DAY)["models"]
    assert (row["ends"], row["ends_source"], row["days_left"]) == ("2026-12-24", "provider", 23)
    later = migration.list_models(migration.ProviderAccount(), datetime.date(2027, 2, 1))
    assert [(each["model"], each["listed"]) for each in later["models"]] == [
        (first, True), (second, False),
    ]  # fmt: skip
    # A key that may not see jobs: the models are there all the same.
    fake.set(hides_jobs=True)
    hidden = migration.list_models(migration.ProviderAccount(), DAY)
    assert hidden["new_jobs"]["rule"] == "jobs not seen"
    assert (hidden["models"][0]["base"], hidden["models"][0]["training_file"]) == (BASE, None)
    code, out, err = cli("migrate")
    assert code == 0, err
    assert all(word in out for word in (first, "2026-12-24", "provider"))
    assert fake.creates() == 2


def fetched(fake: Trainer) -> list[str]:
    return [path for method, path in fake.saw()["log"] if path.endswith("/content")]


def test_all_are_saved_and_what_fails_stops_nothing(
    fake: Trainer, tmp_path: Path, cli: Any
) -> None:
    models = tuned(fake, tmp_path, 3)
    out = tmp_path / "exits"
    command = ("migrate", "--all", "--out", out, "--base-url", fake.url)
    fake.set(gone_files=["file-0003"], short_files=1)  # the second one's validation file
    code, said, err = cli(*command, "--json")
    assert code == 4, err
    found = {row["model"]: row for row in json.loads(said)["models"]}
    assert [found[model]["state"] for model in models] == ["saved", "failed", "files alone"]
    assert "file-0003 cannot be fetched any more" in found[models[1]]["why"]
    assert "--test" in found[models[2]]["why"]
    assert fake.completions() == VALIDATION
    # The training file came short once, and was then fetched once for all.
    assert fetched(fake).count("/v1/files/file-0000/content") == 2
    folders = [Path(found[model]["folder"]) for model in models]
    for folder, model in zip(folders, models, strict=True):
        notes = json.loads((folder / "saved.json").read_text())
        content = (folder / "train.jsonl").read_bytes()
        assert content == (tmp_path / "train.jsonl").read_bytes()
        assert notes["files"]["train.jsonl"] == {
            "id": "file-0000", "bytes": len(content), "lines": 12,
            "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip
        job = json.loads((folder / "job.json").read_text())
        assert (job["fine_tuned_model"], job["hyperparameters"]["n_epochs"]) == (model, 3)
        assert (folder / "results.csv").read_text().startswith("step,train_loss")
        steps = [row["step"] for row in json.loads((folder / "checkpoints.json").read_text())]
        assert steps == [4, 8, 10]
    # The file is back: what is missing is done, and nothing else.
    fake.set(gone_files=[])
    before, files = fake.completions(), len(fetched(fake))
    code, said, err = cli(*command)
    assert code == 0, err
    assert f"{VALIDATION} answers (exact_match 0.0%)" in said
    then = f"tuneoff migrate --parity runs/{folders[0].name}"
    assert f"tuneoff run {folders[0]}/bakeoff.yaml; then {then}" in said
    assert (fake.completions() - before, len(fetched(fake)) - files) == (VALIDATION, 1)
    assert not (folders[2] / "bakeoff.yaml").exists()
    assert all(KEY.encode() not in p.read_bytes() for p in out.rglob("*") if p.is_file())
    # What is saved is not saved elsewhere as well, where it would be paid for again.
    code, _, err = cli("migrate", models[0], "--out", out, "--base-url", fake.url)
    assert (code, str(folders[0]) in err) == (2, True)
    code, _, err = cli("migrate", "--all", "--out", folders[0], "--base-url", fake.url)
    assert (code, "of " + models[0] in err) == (2, True)
    # Nor does a folder take a second model in, which would pass for the first one's files.
    for model, folder in ((models[1], folders[0]), ("ft:a:b::new", out)):
        code, _, err = cli(
            "migrate", model, "--no-answers", "--out", folder, "--base-url", fake.url
        )
        assert (code, "this folder holds" in err) == (2, True)
    assert json.loads((folders[0] / "saved.json").read_text())["model"] == models[0]
    # Files alone, later: who answered before has answered.
    code, said, err = cli(*command, "--no-answers")
    assert (code, "2 of 3 tuned models have answered." in said) == (0, True), err


def test_a_users_own_copy_is_no_file_of_the_provider(
    fake: Trainer, tmp_path: Path, cli: Any
) -> None:
    first, second = tuned(fake, tmp_path, 2)
    out = tmp_path / "exits"
    command = ("migrate", "--all", "--no-answers", "--out", out, "--base-url", fake.url, "--json")
    fake.set(gone_files=["file-0000"])  # both were tuned on it
    code, said, err = cli(*command)
    assert code == 4, err
    folders = {row["model"]: Path(row["folder"]) for row in json.loads(said)["models"]}
    write_examples(folders[first] / "train.jsonl", questions(5))
    for _ in range(2):
        code, said, err = cli(*command)
        assert [row["state"] for row in json.loads(said)["models"]] == ["files alone", "failed"]
        notes = json.loads((folders[first] / "saved.json").read_text())["files"]["train.jsonl"]
        assert (notes["id"], notes["lines"]) == (None, 5)
        assert not (folders[second] / "train.jsonl").exists()
    # A file of two models is two files: who changes one in place means that one.
    fake.set(gone_files=[])
    (folders[first] / "train.jsonl").unlink()
    (folders[first] / "saved.json").unlink()
    code, _, err = cli(*command)
    assert code == 0, err
    sizes = [(folders[model] / "train.jsonl").stat() for model in (first, second)]
    assert sizes[0].st_size == sizes[1].st_size
    assert sizes[0].st_ino != sizes[1].st_ino


def test_one_budget_is_for_all(
    fake: Trainer, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contender_prices, "is_loopback", lambda url: False)  # somebody is paid
    first, second, _ = tuned(fake, tmp_path, 3)
    out, at = tmp_path / "exits", ("--base-url", fake.url)
    code, said, err = cli("migrate", "--all", "--no-answers", "--out", out, *at, "--json")
    assert (code, fake.completions()) == (0, 0), err
    assert {row["state"] for row in json.loads(said)["models"]} == {"files alone"}
    folder = next(Path(r["folder"]) for r in json.loads(said)["models"] if r["model"] == first)
    code, said, err = cli("migrate", first, "--out", folder, *at, "--json")
    assert (code, fake.completions()) == (0, VALIDATION), err
    spent = json.loads(said)["usd"]
    assert spent > 0
    # What an earlier command spent counts: the second does not fit any more, and is named.
    command = ("migrate", "--all", "--out", out, *at, "--budget-usd")
    code, said, err = cli(*command, f"{spent * 1.01:.9f}")
    assert (code, fake.completions()) == (3, VALIDATION), err
    assert f"not asked: {second}: " in said
    code, said, err = cli(*command, "1", "--json")
    assert (code, fake.completions()) == (0, 2 * VALIDATION), err
    assert json.loads(said)["usd"] == pytest.approx(2 * spent, rel=0.2)
