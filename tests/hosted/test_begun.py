"""Jobs are sent off first and followed last: what a provider does goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import PRICE, Heard, Trainer, bakeoff_file, hosted, job_of, prompted, rows
from world import run as carry_out

from tuneoff.bakeoff.schedule import SequentialExecutor
from tuneoff.contenders import hosted as hosted_kind
from tuneoff.costs.ledger import TRAINING, Ledger

pytest.importorskip("openai")
OWN = {"name": "own", "id": "prompted", "base": "tiny"}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer counts as one on another machine."""
    monkeypatch.setattr(hosted_kind, "is_loopback", lambda url: False)


class Interrupted(SequentialExecutor):
    """Ctrl-C is pressed when the first contender's turn comes."""

    def map(self, carry_out: Callable[[Any], None], contenders: Sequence[Any]) -> None:
        raise KeyboardInterrupt


def first_line(heard: Heard, *parts: str) -> int:
    return next(n for n, line in enumerate(heard.lines) if all(part in line for part in parts))


@pytest.mark.usefixtures("elsewhere")
def test_a_job_is_sent_before_and_followed_after_what_is_done_here(
    fake: Trainer, tmp_path: Path
) -> None:
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url), OWN, test=2), Heard()
    assert [each.error for each in carry_out(file, heard).contenders] == [None, None]
    sent, here = first_line(heard, "tuned: job", "at http"), first_line(heard, "own: loading")
    followed = first_line(heard, "tuned: job", "is running")
    assert sent < here < followed
    assert fake.creates() == len(fake.saw()["jobs"]) == 1
    assert len(rows(file)) == 2


def test_a_server_on_this_machine_waits_for_its_turn(fake: Trainer, tmp_path: Path) -> None:
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url), OWN, test=2), Heard()
    carry_out(file, heard)
    assert first_line(heard, "own: loading") < first_line(heard, "tuned: job", "at http")


@pytest.mark.usefixtures("elsewhere", "no_report")
def test_what_could_not_be_sent_first_is_sent_in_its_turn(fake: Trainer, tmp_path: Path) -> None:
    """A provider that takes one job at a time refuses the second one until the first is through."""
    fake.set(refuse_create=1)
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2), Heard()
    assert carry_out(file, heard).contenders[0].error is None
    assert "warning: tuned: not begun yet: " in heard.text()
    assert (fake.creates(), len(fake.saw()["jobs"])) == (2, 1)


@pytest.mark.usefixtures("elsewhere", "no_report")
@pytest.mark.parametrize("cancels", [True, False])
def test_ctrl_c_asks_for_each_job_whoever_s_turn_it_is(
    fake: Trainer, tmp_path: Path, cancels: bool
) -> None:
    contenders = hosted(fake.url), hosted(fake.url, "again", seed=1)
    file, heard = bakeoff_file(tmp_path / "b", *contenders, test=2), Heard(answer=cancels)
    with pytest.raises(KeyboardInterrupt):
        carry_out(file, heard, executor=Interrupted())
    for name in ("tuned", "again"):
        id = job_of(file, name)["job_id"]
        assert f"Cancel job {id} at " in heard.text()
        assert f"{name}: job {id} {'is cancelled' if cancels else 'goes on at'}" in heard.text()
    errors = [each.error for each in carry_out(file).contenders]
    assert all("was cancelled" in str(e) for e in errors) if cancels else errors == [None, None]
    assert fake.creates() == 2


class PressedAgain(Heard):
    """Ctrl-C is pressed again at the first question."""

    def ask(self, question: str) -> bool:
        super().ask(question)
        raise KeyboardInterrupt


@pytest.mark.usefixtures("elsewhere", "no_report")
def test_ctrl_c_at_the_question_names_each_job_that_goes_on(fake: Trainer, tmp_path: Path) -> None:
    contenders = hosted(fake.url), hosted(fake.url, "again", seed=1)
    file, heard = bakeoff_file(tmp_path / "b", *contenders, test=2), PressedAgain()
    with pytest.raises(KeyboardInterrupt):
        carry_out(file, heard, executor=Interrupted())
    assert heard.text().count("Cancel job") == 1
    for name in ("tuned", "again"):
        assert f"{name}: job {job_of(file, name)['job_id']} goes on; the same" in heard.text()
    assert [each.error for each in carry_out(file).contenders] == [None, None]
    assert fake.creates() == 2


@pytest.mark.usefixtures("elsewhere", "no_report")
def test_a_job_that_was_cancelled_is_not_said_to_go_on(fake: Trainer, tmp_path: Path) -> None:
    contenders = hosted(fake.url), hosted(fake.url, "again", seed=1)
    file, heard = bakeoff_file(tmp_path / "b", *contenders, test=2), PressedAgain()
    with pytest.raises(KeyboardInterrupt):
        carry_out(file, Heard(answer=True), only="again", executor=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        carry_out(file, heard, executor=Interrupted())
    assert f"tuned: job {job_of(file, 'tuned')['job_id']} goes on; the same" in heard.text()
    assert "again: job" not in heard.text()


@pytest.mark.usefixtures("elsewhere", "no_report")
def test_ctrl_c_does_not_ask_for_what_is_through_by_now(fake: Trainer, tmp_path: Path) -> None:
    fake.set(states=["queued", "succeeded"])
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url), test=2), Heard(answer=True)
    with pytest.raises(KeyboardInterrupt):
        carry_out(file, heard, executor=Interrupted())
    assert "Cancel" not in heard.text()
    assert heard.lines[-1].endswith(" is succeeded")
    assert carry_out(file).contenders[0].error is None
    assert fake.creates() == 1


@pytest.mark.usefixtures("elsewhere", "no_report")
def test_leave_that_a_job_holds_is_had_when_the_job_is_through(
    fake: Trainer, tmp_path: Path
) -> None:
    """A judge's questions are in no sum that the budget was held against. While a job under way
    holds leave for the most it can cost they are refused, and asked when it has been billed."""
    contenders = hosted(fake.url, price=PRICE), prompted(fake.url, price=PRICE)
    file = bakeoff_file(tmp_path / "b", *contenders, test=10, budget_usd=0.082944)
    written = yaml.safe_load(file.read_text())
    written["task"]["metrics"] = [
        {"id": "judge", "model": "fake-1", "rubric": "same?", "base_url": fake.url, "price": PRICE}
    ]
    file.write_text(yaml.safe_dump(written))
    heard = Heard()
    assert [each.error for each in carry_out(file, heard).contenders] == [None, None]
    assert "may have been billed" not in heard.text()
    assert (fake.creates(), len(rows(file)), len(rows(file, "asked"))) == (1, 10, 10)
    events = file.parent / "run" / "events.jsonl"
    assert '"over budget"' in events.read_text()  # the judge was refused at first
    assert Ledger(events).spent(what=TRAINING).uncertain == 0


@pytest.mark.usefixtures("elsewhere", "no_report")
def test_a_busy_provider_does_not_keep_this_machine_waiting(fake: Trainer, tmp_path: Path) -> None:
    """It says when to come back, and that is after what is done here."""
    busy = {"method": "POST", "path": "/v1/fine_tuning/jobs", "kinds": ["429"], "times": 4}
    fake.set(faults=[busy])
    file, heard = bakeoff_file(tmp_path / "b", hosted(fake.url), OWN, test=2), Heard()
    assert [each.error for each in carry_out(file, heard).contenders] == [None, None]
    given_up, here = first_line(heard, "tuned: not begun yet"), first_line(heard, "own: loading")
    assert given_up < here < first_line(heard, "tuned: job", "at http")
    assert fake.creates() == 5
