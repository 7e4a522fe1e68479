"""`tuneoff prices` shows a day's prices; `prices check` refuses a book with two prices of a day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TWICE = """
provider: mine
prices:
  - {models: [m], input_usd_per_million_tokens: 1, from: 2026-01-01}
  - {models: [m], input_usd_per_million_tokens: 2, from: 2026-02-01}
"""


def test_prices_of_a_day(cli: Any) -> None:
    code, out, _ = cli("prices", "--as-of", "2023-09-12", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["as_of"] == "2023-09-12"
    row = next(r for r in found["prices"] if r["model"] == "gpt-3.5-turbo-0613")
    assert (row["variant"], row["training_usd_per_million_tokens"]) == ("tuned", 8.0)
    assert {"A40", "A100 40GB"} <= {a["name"] for a in found["accelerators"]}
    code, out, _ = cli("prices", "--as-of", "2023-09-12")
    assert code == 0
    assert "0.475" in out
    head, names = out.splitlines()[:2]
    assert "USD per million tokens" in head
    assert names.split() == [
        "provider", "model", "training", "input", "cached", "write", "output",
        "USD/h", "ends", "read",
    ]  # fmt: skip
    # The first head stands above the prices of tokens, and above no other column.
    assert head.index("-") == names.index("training")
    assert len(head) == names.index("output") + len("output")


def test_check(cli: Any, tmp_path: Path) -> None:
    code, out, _ = cli("prices", "check", "--as-of", "2026-11-24")
    assert code == 0
    assert "ends soon: openai gpt-4o" in out
    own = tmp_path / "own.yaml"
    own.write_text(TWICE)
    code, out, _ = cli("prices", "check", "--prices", str(own), "--json")
    assert code == 2
    assert json.loads(out)["findings"][0]["kind"] == "overlap"
    own.write_text("provider: mine\nprices: [{models: [m], output: 1}]\n")
    code, _, err = cli("prices", "--prices", str(own))
    assert code == 2
    assert "output" in err
    assert len(err.strip().splitlines()) == 1


def test_a_bake_off_with_a_wrong_price_file_is_refused(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(
        "name: x\ntask: {id: functional_representation, source: sample}\n"
        "contenders: [{name: a, id: local}]\nprices: none.yaml\n"
    )
    code, _, err = cli("check", str(file))
    assert code == 2
    assert "prices: there is no file" in err
