"""A whole test set is answered however often something goes wrong, and once; requests are sent
side by side, no more than are allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import PRICE, Trainer, bakeoff_file, prompted, rows
from world import run as carry_out

from tuneoff.costs.ledger import Ledger

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_report")
CHAT = "/v1/chat/completions"
TESTS = 1083  # ViGGO's test set
ALL = ("429", "429 with Retry-After", "500", "503", "not forwarded", "forwarded", "mid-body",
       "malformed")  # fmt: skip


def test_a_tenth_of_all_requests_goes_wrong(fake: Trainer, tmp_path: Path) -> None:
    fake.set(faults=[{"method": "POST", "path": CHAT, "kinds": ALL, "rate": 0.1, "seed": 8}])
    file = bakeoff_file(tmp_path / "b", prompted(fake.url, price=PRICE), test=TESTS)
    assert carry_out(file).contenders[0].error is None
    found = rows(file, "asked")
    assert len(found) == len({row["id"] for row in found}) == TESTS
    assert all(row["error"] is None and row["prediction"] for row in found)
    saw = fake.saw()
    assert set(saw["faulty"]) == set(ALL)
    assert min(saw["faulty"].values()) >= 10
    assert len(saw["asked"]) == TESTS
    # Only what was carried out unheard is paid for again.
    unheard = sum(saw["faulty"][kind] for kind in ("forwarded", "mid-body", "malformed"))
    assert saw["billed"]["completions"] == TESTS + unheard
    spent = Ledger(file.parent / "run" / "events.jsonl").spent()
    assert float(spent.known) <= fake.billed_usd() <= float(spent.known + spent.uncertain)


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_as_many_at_once_as_are_allowed(fake: Trainer, tmp_path: Path, concurrency: int) -> None:
    fake.set(latency=0.2)
    contender = prompted(fake.url, concurrency=concurrency)
    carry_out(bakeoff_file(tmp_path / "b", contender, test=4 * concurrency))
    assert fake.saw()["most_at_once"] == concurrency
