"""The server does what its OpenAPI document says, whatever schemathesis thinks of: no 5xx, no
status, type or body that the document does not have, nothing accepted that it forbids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from asked_batches import line
from running import examples, request, server, upload

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")
EXAMPLES = int(os.environ.get("TUNEOFF_SCHEMATHESIS_EXAMPLES", "40"))
SECONDS = os.environ.get("TUNEOFF_SCHEMATHESIS_SECONDS")  # by hand: go on for so long
SEED = os.environ.get("TUNEOFF_SCHEMATHESIS_SEED", "1")
# What a document cannot say: which files, jobs and models there are.
LEFT_OUT = "positive_data_acceptance"
HOOKS = Path(__file__).parent.parent / "server" / "schemathesis_hooks.py"


def test_the_document_is_true(tiny_base: Path, tmp_path: Path) -> None:
    key = {"Authorization": "Bearer a-key"}
    with server(tmp_path / "data", "--base", str(tiny_base), keys="a-key") as (port, process):
        file = upload(port, examples(12), headers=key)[1]["id"]
        body = {"model": tiny_base.name, "training_file": file}
        job = request(port, "POST", "/v1/fine_tuning/jobs", body, key)[1]["id"]
        asked = upload(port, line("a", tiny_base.name).encode(), "batch", headers=key)[1]["id"]
        body = {"input_file_id": asked, "endpoint": "/v1/chat/completions",
                "completion_window": "24h"}  # fmt: skip
        batch = request(port, "POST", "/v1/batches", body, key)[1]["id"]
        known = {"FILE": file, "JOB": job, "MODEL": tiny_base.name, "BATCH": batch}
        environment = {f"TUNEOFF_TEST_{name}": value for name, value in known.items()}
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run",
             f"http://127.0.0.1:{port}/openapi.json", "--header", "Authorization: Bearer a-key",
             "--checks", "all", "--exclude-checks", LEFT_OUT, "--continue-on-failure",
             "--max-examples", str(EXAMPLES), "--seed", SEED, "--generation-database", "none",
             *(("--max-time", SECONDS) if SECONDS else ()), "--no-color",
             # A machine may be busy with other things; slowness is no finding here.
             "--request-timeout", "300", "--max-response-time", "300"],
            env={**os.environ, **environment, "SCHEMATHESIS_HOOKS": str(HOOKS)},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        (tmp_path / "schemathesis.txt").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Tested: 24" in done.stdout
        assert process.poll() is None
    assert "Traceback" not in (tmp_path / "data.log").read_text()
