"""A model that has ended: `check` goes by the file's day, a paid run by today, and what was
recorded can be replayed for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_recording import RECORDED, offline
from world import bakeoff_file

import tuneoff
from tuneoff.errors import ConfigError
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("openai")
__all__ = ["offline"]
ENDED = "gpt-3.5-turbo-0125"  # on 2026-10-23


def asked(model: str = ENDED) -> dict[str, Any]:
    return {"name": "old", "id": "prompted", "provider": "openai", "model": model}


def tuned(model: str = ENDED) -> dict[str, Any]:
    return {"name": "old", "id": "hosted", "provider": "openai", "model": model}


@pytest.mark.parametrize("contender", [asked(), asked(f"ft:{ENDED}:acme::abc"), tuned()])
def test_check_goes_by_the_files_day(tmp_path: Path, cli: Any, contender: dict[str, Any]) -> None:
    code, out, _ = cli("check", bakeoff_file(tmp_path / "then", contender, as_of="2026-10-22"))
    assert (code, "fine." in out) == (0, True)
    for name, day in (("the day", {"as_of": "2026-10-23"}), ("today", {})):
        code, out, err = cli("check", bakeoff_file(tmp_path / name, contender, **day))
        assert (code, out) == (2, "")
        assert "ended on 2026-10-23" in err
        assert "gpt-5.6-terra" in err


def test_new_jobs_end_before_the_model(tmp_path: Path, cli: Any) -> None:
    for contender, day, refused in (
        (tuned("gpt-4o-mini-2024-07-18"), "2027-01-05", False),
        (tuned("gpt-4o-mini-2024-07-18"), "2027-01-06", True),
        (asked("gpt-4o-mini-2024-07-18"), "2027-01-13", False),
        (asked("gpt-4o-mini-2024-07-18"), "2027-01-14", True),
    ):
        file = bakeoff_file(tmp_path / f"{contender['id']} {day}", contender, as_of=day)
        code, _, err = cli("check", file)
        assert code == (2 if refused else 0), err
        if contender["id"] == "hosted" and refused:
            assert "takes no new fine-tuning jobs" in err


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("contender", [asked(), tuned()])
def test_a_run_goes_by_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contender: dict[str, Any]
) -> None:
    """Whatever the file's day is; nobody is called, for nobody can be."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    file = bakeoff_file(tmp_path / "b", contender, as_of="2023-09-12", budget_usd=5)
    for yes in (False, True):
        with pytest.raises(ConfigError, match=f"{ENDED} ended on 2026-10-23; .*gpt-5.6-terra"):
            tuneoff.run(tuneoff.load(file), tmp_path / "run", yes=yes)


@pytest.mark.usefixtures("offline", "no_report")
def test_what_was_recorded_of_it_is_replayed(tmp_path: Path) -> None:
    """The recorded run's file, as if its model had been OpenAI's."""
    written = yaml.safe_load((RECORDED / "bakeoff.yaml").read_text())
    (contender,) = (each for each in written["contenders"] if each["name"] == "tuned")
    del contender["base_url"]
    contender |= {"provider": "openai", "model": ENDED}
    file = tmp_path / "b.yaml"
    file.write_text(yaml.safe_dump({**written, "contenders": [contender]}))
    results = tuneoff.run(tuneoff.load(file), tmp_path / "run", replay=RECORDED)
    assert results.contenders[0].error is None
    before = RunDir(RECORDED).contender("tuned").predictions()
    assert RunDir(tmp_path / "run").contender("tuned").predictions() == before
