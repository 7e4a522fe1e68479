"""One base whose chat template refuses system turns, knows no developer and asks for the date:
tuned, asked, reported, exported and served, its prompts are the same everywhere."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import write_base

import tuneoff
from tuneoff.bakeoff import answer_check
from tuneoff.config.schema import BakeOff
from tuneoff.errors import ConfigError
from tuneoff.models.loading import load_tokenizer
from tuneoff.prompts import render_messages
from tuneoff.storage.resume import open_run_dir
from tuneoff.storage.run_dir import RunDir
from tuneoff.tokenization.chat_template import load_chat_template

TEMPLATE = (
    "{{ bos_token }}{{ strftime_now('%d %b %Y') }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}]{{ m.content }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TOWNS = ["Oslo", "Lima", "Rome", "Kyiv", "Bern", "Quito", "Tunis", "Hanoi", "Accra", "Minsk"]
BEGAN = datetime.date(2024, 2, 3)


def bakeoff(folder: Path, first: str, contenders: list[dict[str, Any]]) -> BakeOff:
    parts = {"train": TOWNS[:8], "validation": TOWNS[8:9], "test": TOWNS[9:]}
    for split, towns in parts.items():
        lines = []
        for town in towns:
            roles = (first, "Say it loud."), ("user", town), ("assistant", town.upper())
            turns: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in roles]
            if first == "assistant":  # what stands before the answer is not learned
                turns[0]["weight"] = 0
            lines.append(json.dumps({"messages": turns}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    task = {"id": "chat", "max_new_tokens": 3, **{split: f"{split}.jsonl" for split in parts}}
    value = {"name": "x", "task": task, "contenders": contenders, "folder": folder}
    return BakeOff.model_validate(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base, and a run of it that was begun on another day and goes on today."""
    folder = tmp_path_factory.mktemp("rendered")
    write_base(folder / "base", [*TOWNS, "Say it loud.", *map(str.upper, TOWNS)], TEMPLATE)
    contenders = [
        {"name": "tuned", "id": "local", "base": "base", "train": {"epochs": 1}},
        {"name": "shown", "id": "prompted", "base": "base", "shots": 1},
    ]
    file = bakeoff(folder, "developer", contenders)
    run = RunDir(folder / "run")
    open_run_dir(run.path, file)
    # A run of before the date was kept has the day of its first event.
    run.events.write_text(json.dumps({"at": f"{BEGAN}T10:00:00+00:00", "event": "x"}) + "\n")
    tuneoff.run(file, run.path)
    run.events.unlink()  # it is kept by itself now
    return folder


def test_what_was_done_is_kept_and_reported(folder: Path) -> None:
    run = RunDir(folder / "run")
    assert run.today() == BEGAN
    tuned, shown = run.results().contenders
    assert (tuned.error, shown.error) == (None, None)
    for contender in (tuned, shown):
        notes = "; ".join(contender.rendering_notes)
        assert "developer turns are rendered as system turns" in notes
        assert "the text of system turns begins the next user turn" in notes
        assert "told 2024-02-03" in notes
        assert notes[1:] in (run.path / "report.md").read_text()
        assert contender.rendered_sha256
        assert contender.rendered_sha256 in (run.path / "report.html").read_text()
    assert tuned.rendered_sha256 != shown.rendered_sha256
    prompt = run.contender("tuned").path / "prompt.json"
    stored = json.loads(prompt.read_text())
    assert stored["prompt_sha256"] == tuned.prompt_sha256
    prompt.write_text(json.dumps({"prompt_sha256": "a" * 64}))  # as it was before
    found = run.contender("tuned").prompt()
    assert found is not None
    assert (found.prompt_sha256, found.rendered_sha256) == ("a" * 64, None)
    prompt.write_text(json.dumps(stored))


def test_training_serving_and_exports_render_the_same(folder: Path) -> None:
    (tuned,) = answer_check.load_tuned_contenders(folder / "run")
    example, template = tuned.work.test[0], tuned.work.template
    asked = render_messages(example, template)
    expected = "<s>03 Feb 2024[user]Say it loud.\n\nMinsk[assistant]"
    here = load_chat_template(load_tokenizer(tuned.base), template.today)
    assert here.render(asked) == expected
    saved: Any = load_tokenizer(str(tuned.weights))
    assert saved.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == expected
    assert "chat template was adapted" in (tuned.weights / "README.md").read_text()
    done = tuneoff.export_contender(folder / "run", "tuned", "merged", folder / "merged")
    merged: Any = load_tokenizer(done.out)
    assert merged.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == expected
    assert done.parity is not None
    assert done.parity["passed"]


def test_the_server_says_every_turn_or_refuses_it(folder: Path, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    from tuneoff.inference.loaded_model import ServedModel
    from tuneoff.server.app import build_app
    from tuneoff.server.settings import ServerConfig

    served = ServedModel("base", str(folder / "base"), today=BEGAN)

    def asked(*roles: str) -> dict[str, Any]:
        turns = [{"role": role, "content": "Say it loud."} for role in roles]
        body = {"model": "base", "messages": turns, "max_tokens": 1}
        answer: dict[str, Any] = client.post("/v1/chat/completions", json=body).json()
        return answer

    app = build_app(ServerConfig(tmp_path, {}, run_models=(served,)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        alone, told = (asked(*roles)["usage"]["prompt_tokens"] for roles in (
            ("user",), ("developer", "user")
        ))  # fmt: skip
        refused = asked("assistant", "user")["error"]
    tokenizer = load_tokenizer(str(folder / "base"))
    text = "<s>03 Feb 2024[user]Say it loud.\n\nSay it loud.[assistant]"
    assert told == len(tokenizer(text, add_special_tokens=False)["input_ids"]) > alone
    assert refused["message"].startswith("The model's chat template refuses assistant turns")


def test_turns_that_cannot_be_rendered_stop_a_check(folder: Path) -> None:
    place = folder / "other"
    place.mkdir()
    contender = {"name": "p", "id": "prompted", "base": str(folder / "base")}
    file = place / "b.yaml"
    bakeoff(place, "assistant", [contender])
    file.write_text(
        "name: x\ntask: {id: chat, train: train.jsonl, validation: validation.jsonl, test: "
        f"test.jsonl}}\ncontenders: [{json.dumps(contender)}]\n"
    )
    expected = "contender p: the chat template of base .* refuses assistant turns .*rendering: text"
    with pytest.raises(ConfigError, match=expected):
        tuneoff.check_file(file)
    with pytest.raises(ConfigError, match=expected):
        tuneoff.run(tuneoff.load(file), place / "run")
    assert not (place / "run").exists()
    file.write_text(file.read_text().replace("}]", ', "rendering": "text"}]'))
    assert tuneoff.check_file(file)["warnings"] == []
