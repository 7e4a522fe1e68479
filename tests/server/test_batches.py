"""`/v1/batches` through the official SDK against a real server process: every request of a file is
answered once, as it would be live, whatever is wrong with others and whenever the server is
killed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from asked_batches import ENDED, created, ended, line, rows
from running import examples, request, server

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")


def test_each_request_is_answered_as_it_would_be_live(client: Any, tiny_base: Path) -> None:
    model = tiny_base.name
    asked = [line(f"q{n}", model, f"Is {n} a number?") for n in range(40)]
    wrong = [
        line("no model", "nobody"),
        line("too long", model, "word " * 2000),
        line("no such thing", model, temprature=1),
    ]
    batch = ended(client, created(client, [*asked, *wrong], metadata={"run": "one"}).id)
    assert (batch.status, batch.metadata) == ("completed", {"run": "one"})
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (43, 40, 3)
    answers, errors = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    assert set(answers) == {f"q{n}" for n in range(40)}
    live = client.chat.completions.create(**json.loads(asked[7])["body"])
    assert answers["q7"]["body"]["choices"] == [c.to_dict() for c in live.choices]
    usage = [answer["body"]["usage"] for answer in answers.values()]
    assert batch.usage.input_tokens == sum(each["prompt_tokens"] for each in usage)
    assert batch.usage.output_tokens == sum(each["completion_tokens"] for each in usage)
    told = {id: (row["status_code"], row["body"]["error"]["code"]) for id, row in errors.items()}
    assert told == {
        "no model": (404, "model_not_found"),
        "too long": (400, "context_length_exceeded"),
        "no such thing": (400, "invalid_value"),
    }
    assert errors["no such thing"]["body"]["error"]["param"] == "temprature"
    listed = client.files.list(purpose="batch_output").data
    assert {batch.output_file_id, batch.error_file_id} <= {file.id for file in listed}
    assert batch.id in [each.id for each in client.batches.list(limit=5)]


@pytest.mark.parametrize(
    ("lines", "number", "says"),
    [
        (["{"], 1, "no JSON"),
        (["[" * (8 * 1024**2 + 1)], 1, "longer than 8388608 bytes"),
        ([line("a", "m"), "[]\n"], 2, "no JSON object"),
        ([line("a", "m"), line("a", "m")], 2, "custom_id must be a text of its own, got 'a'"),
        ([line("a", "m").replace("POST", "GET")], 1, "method must be POST"),
        ([line("a", "m").replace('"body": {', '"body": 1, "x": {')], 1, "body must be an object"),
    ],
)
def test_a_file_that_is_wrong_fails_with_its_line(
    client: Any, lines: list[str], number: int, says: str
) -> None:
    batch = ended(client, created(client, lines).id)
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert error.line == number
    assert says in error.message
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_an_empty_file_fails(client: Any) -> None:
    batch = ended(client, created(client, []).id)
    assert (batch.status, batch.errors.data[0].message) == ("failed", "The file is empty.")


def test_what_is_needed_stays_and_what_is_not_asked_for_ends(client: Any, tiny_base: Path) -> None:
    many = [line(f"q{n}", tiny_base.name, max_tokens=200) for n in range(3000)]
    batch = created(client, many)
    with pytest.raises(openai.BadRequestError, match="still needs this file"):
        client.files.delete(batch.input_file_id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    with pytest.raises(openai.BadRequestError, match="it can be cancelled while"):
        client.batches.cancel(batch.id)
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    answered = rows(client, batch.output_file_id)
    assert len(answered) == batch.request_counts.completed < 3000
    assert client.files.delete(batch.input_file_id).deleted


def test_a_purpose_may_come_after_the_file(client: Any) -> None:
    """A batch's requests are no training examples, which is known only then."""
    port, mark = int(client.base_url.port), "----mark"

    def sent(content: bytes, purpose: str) -> tuple[int, Any]:
        form = (
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n'
        ).encode() + content + (
            f'\r\n--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
            f"--{mark}--\r\n"
        ).encode()  # fmt: skip
        headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        return request(port, "POST", "/v1/files", form, headers)

    status, file = sent(line("a", "m").encode(), "batch")
    assert (status, file["purpose"]) == (200, "batch")
    assert sent(examples(10), "fine-tune")[0] == 200
    status, error = sent(line("a", "m").encode(), "fine-tune")
    assert status == 400
    assert "line 1" in error["error"]["message"].lower()


@pytest.mark.parametrize("bad", [{"endpoint": "/v1/embeddings"}, {"completion_window": "1h"}])
def test_what_there_is_not_is_refused(client: Any, bad: dict[str, Any]) -> None:
    file = client.files.create(file=("x.jsonl", b"{}"), purpose="batch")
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **bad}
    with pytest.raises(openai.BadRequestError, match=next(iter(bad))):
        client.batches.create(input_file_id=file.id, **asked)
    with pytest.raises(openai.BadRequestError, match="no uploaded file with the purpose batch"):
        created(client, []) and client.batches.create(
            input_file_id="file-nobody", endpoint="/v1/chat/completions", completion_window="24h"
        )
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_nobody")


@pytest.mark.slow
@pytest.mark.alone
def test_killed_again_and_again_it_answers_each_request_once(
    tiny_base: Path, tmp_path: Path
) -> None:
    """SIGKILL as soon as some more are answered; what was answered before stays as it was."""
    data, model, kept = tmp_path / "data", tiny_base.name, dict[str, Any]()
    asked = [line(f"q{n}", model, f"Is {n} a number?", max_tokens=32) for n in range(400)]
    id, kills = "", 0
    while True:
        with server(data, "--base", str(tiny_base)) as (port, process):
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any")
            with client:
                id = id or created(client, asked).id
                before = len(kept)
                while kills < 3 and client.batches.retrieve(id).status not in ENDED:
                    answered = data / "batches" / id / "output.jsonl"
                    lines = answered.read_bytes().splitlines() if answered.exists() else []
                    if len(lines) > before + 20:
                        process.kill()
                        process.wait()
                        break
                    time.sleep(0.02)
                if process.poll() is None:
                    batch = ended(client, id)
                    written = client.files.content(batch.output_file_id).read().splitlines()
                    break
        kills += 1
        whole = (data / "batches" / id / "output.jsonl").read_bytes()
        now = [json.loads(each) for each in whole.splitlines() if each.endswith(b"}")]
        kept |= {row["custom_id"]: row["id"] for row in now}
    assert kills >= 1
    assert (batch.status, batch.request_counts.completed) == ("completed", 400)
    ids = {row["custom_id"]: row["id"] for row in map(json.loads, written)}
    assert len(written) == len(ids) == 400
    assert kept.items() <= ids.items()
    assert not (data / "batches" / id).exists()
