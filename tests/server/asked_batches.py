"""Files of requests, and what became of them, through the official SDK."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

ENDED = ("completed", "failed", "expired", "cancelled")


def line(id: str, model: str, question: str = "Is 7 a number?", **more: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": question}],
            "temperature": 0, "max_tokens": 4, **more}  # fmt: skip
    asked = {"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(asked) + "\n"


def created(client: Any, lines: Iterable[str], **more: Any) -> Any:
    content = "".join(lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def ended(client: Any, id: str) -> Any:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        batch = client.batches.retrieve(id)
        if batch.status in ENDED:
            return batch
        time.sleep(0.1)
    raise AssertionError(f"the batch is still {batch.status}")


def rows(client: Any, file: str | None) -> dict[str, Any]:
    content = client.files.content(file).read() if file else b""
    found = [json.loads(each) for each in content.splitlines()]
    assert len({row["custom_id"] for row in found}) == len(found)
    return {row["custom_id"]: row["response"] for row in found}
