"""Publishing: the hub gets the checked model and a card with its results, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hub_server import Hub, hub

TOKEN = "hf_test_1234567890"


@pytest.fixture
def there() -> Iterator[Hub]:
    with hub() as server:
        yield server


def publish(there: Hub, tmp_path: Path, *arguments: object, token: str = TOKEN):  # type: ignore[no-untyped-def]
    """`tuneoff publish` as a process, for the hub's address is read when its library is loaded."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": there.url, "HF_HOME": str(tmp_path / "hf")}
    if token:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-c", "from tuneoff.cli.main import main; main()", "publish"]
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, text=True, capture_output=True,
        timeout=180, check=False,
    )  # fmt: skip


def test_the_hub_gets_the_model_and_its_results(there: Hub, run: Path, tmp_path: Path) -> None:
    done = publish(there, tmp_path, run, "full", "--repo", "me/tuned", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == f"{there.url}/me/tuned"
    assert told["private"] is True
    assert there.made["visibility"] == "private"
    assert there.keys == {f"Bearer {TOKEN}"}
    stored = run / "contenders" / "full" / "model"
    assert there.files["model.safetensors"] == (stored / "model.safetensors").read_bytes()
    _, head, body = there.files["README.md"].decode().split("---\n", 2)
    (index,) = yaml.safe_load(head)["model-index"]
    results = json.loads((run / "results.json").read_text())
    (contender,) = (c for c in results["contenders"] if c["name"] == "full")
    sent = {m["type"]: m["value"] for result in index["results"] for m in result["metrics"]}
    assert sent == {
        name: pytest.approx(score["value"], abs=1e-4) for name, score in contender["scores"].items()
    }
    assert body.count("## Results") == 1
    assert not (run / ".publish").exists()


def test_what_an_earlier_upload_left_is_not_loaded_instead(
    there: Hub, run: Path, tmp_path: Path
) -> None:
    there.files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"old", "notes": b"!"}
    done = publish(there, tmp_path, run, "full", "--repo", "me/tuned", "--no-strict")
    assert done.returncode == 0, done.stderr
    assert {name for name in there.files if name.startswith("adapter")} == set()
    assert there.files["notes"] == b"!"


def test_a_repository_that_everybody_sees_is_not_taken_for_a_private_one(
    there: Hub, run: Path, tmp_path: Path
) -> None:
    there.private = False
    done = publish(there, tmp_path, run, "full", "--repo", "me/tuned", "--no-strict")
    assert done.returncode == 2
    assert "everybody can see it already; give --public" in done.stderr
    assert there.files == {}
    done = publish(there, tmp_path, run, "full", "--repo", "me/tuned", "--public", "--json")
    assert json.loads(done.stdout)["private"] is False


def test_what_cannot_be_published_is_said_and_nothing_is_sent(
    there: Hub, run: Path, tmp_path: Path
) -> None:
    for arguments, token, said in (
        (("lora", "--repo", "me/x"), TOKEN, "publish it with --format merged"),
        (("full", "--repo", "me/x"), "", "HF_TOKEN is not set"),
        (("full", "--repo", "x"), TOKEN, "give OWNER/NAME"),
        (("full", "--repo", "a/b/c"), TOKEN, "--repo"),
        (("nobody", "--repo", "me/x"), TOKEN, "unknown contender 'nobody'"),
    ):
        done = publish(there, tmp_path, run, *arguments, token=token)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert done.stderr.startswith("error: ")
    assert there.files == {}


def test_a_hub_that_refuses_is_one_sentence(there: Hub, run: Path, tmp_path: Path) -> None:
    there.refuses = 403
    done = publish(there, tmp_path, run, "full", "--repo", "me/tuned")
    assert done.returncode == 4
    assert "me/tuned could not be published" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert there.files == {}


def test_a_runs_own_card_has_the_results(run: Path) -> None:
    for weights in run.glob("contenders/*/**/README.md"):
        card = weights.read_text()
        assert "model-index:" in card
        assert card.count("## Results") == 1
        assert card.index("## Results") < card.index("## Settings")
