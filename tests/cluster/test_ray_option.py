"""`--ray` and `--storage`: what cannot be done is one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tuneoff.cli.main import _add_ray_address

FILE = """\
name: r
task: {id: functional_representation, source: sample, limit: {test: 2}}
contenders: [{name: a, id: prompted, base: tiny}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "b.yaml"
    path.write_text(FILE)
    return path


def test_without_ray_it_is_said_how_to_get_it(
    cli: Any, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    run = tmp_path / "run"
    code, out, err = cli("run", file, "--run-dir", run, "--ray")
    assert (code, out) == (2, "")
    assert err == (
        "error: --ray needs the package ray, which is not installed: run "
        '`pip install "tuneoff[ray]"`.\n'
    )
    assert not run.exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ray", "ray://head:10001"], "ray job submit"),
        (["--ray", "nonsense"], "nonsense"),
        (["--ray", "127.0.0.1:9"], "--ray 127.0.0.1:9: no cluster answers"),
        (["--storage", "s3://bucket"], "--ray"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence(
    cli: Any, file: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    run = tmp_path / "run"
    code, out, err = cli("run", file, "--run-dir", run, *more)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert not run.exists()


def test_ray_may_stand_alone(file: Path) -> None:
    assert _add_ray_address(["run", "--ray", str(file)]) == ["run", "--ray", "auto", str(file)]
    assert _add_ray_address(["run", "f", "--ray"]) == ["run", "f", "--ray", "auto"]
    assert _add_ray_address(["run", "f", "--ray", "--yes"]) == [
        "run",
        "f",
        "--ray",
        "auto",
        "--yes",
    ]
    assert _add_ray_address(["run", "f", "--ray", "h:1"]) == ["run", "f", "--ray", "h:1"]
