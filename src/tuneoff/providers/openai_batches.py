"""The Batch API of OpenAI and compatible servers: a file of requests, answered within a day at half
the price.

Result files come plain or, from OpenAI's gateway, encoded as base64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tuneoff.errors import RejectedError
from tuneoff.providers.base import (
    BATCH_FINISHED,
    CHAT_URL,
    FILE_FAILED,
    Batch,
    BatchRow,
    FileState,
    Reply,
    iterate_pages,
    normalize_batch_status,
)
from tuneoff.providers.http_errors import MAX_MESSAGE_LENGTH, UNREADABLE, redact, translate_errors
from tuneoff.providers.usage import read_usage

if TYPE_CHECKING:
    from tuneoff.providers.openai import OpenAI

BATCH_PURPOSE: Final = "batch"
COMPLETION_WINDOW: Final = "24h"
PAGE_SIZE, MAX_PAGES = 100, 200
MAX_CLOCK_SKEW_SECONDS = 600


class Batches:
    """The batch API of an OpenAI-compatible provider."""

    def __init__(self, provider: OpenAI, key: str, text: Callable[[bytes], str]) -> None:
        self._provider, self._sdk, self._key, self._text = provider, provider.sdk, key, text
        self.url = provider.url

    def find_file(self, name: str) -> str | None:
        with self._translate_errors("its files could not be listed"):
            listed = iterate_pages(
                self._sdk.files.list(purpose=BATCH_PURPOSE, limit=PAGE_SIZE), MAX_PAGES
            )
            fine = (
                f for f in listed if f.filename == name and str(f.status).lower() not in FILE_FAILED
            )
            return next((str(f.id) for f in fine), None)

    def file_state(self, id: str) -> FileState:
        return self._provider.file_state(id)

    def upload(self, path: Path) -> str:
        with (
            self._translate_errors(f"{path.name} could not be uploaded"),
            path.open("rb") as stream,
        ):
            return str(self._sdk.files.create(file=(path.name, stream), purpose=BATCH_PURPOSE).id)

    def request(
        self,
        id: str,
        model: str,
        messages: Sequence[Mapping[str, str]],
        max_tokens: int | None,
        reasoning_effort: str | None = None,
        temperature: float | None = None,
    ) -> dict[str, Any]:
        body = self._provider.chat_body(model, messages, max_tokens, reasoning_effort, temperature)
        return {"custom_id": id, "method": "POST", "url": CHAT_URL, "body": body}

    def adapted(self, row: BatchRow) -> bool:
        refusal = RejectedError(row.error or "", row.status or 400, row.code, row.param)
        return self._provider.adapted(refusal)

    def find(self, metadata: Mapping[str, str], since: float) -> Batch | None:
        with self._translate_errors("its batches could not be listed"):
            for listed_batch in iterate_pages(self._sdk.batches.list(limit=PAGE_SIZE), MAX_PAGES):
                if (
                    listed_batch.created_at
                    and listed_batch.created_at < since - MAX_CLOCK_SKEW_SECONDS
                ):
                    return None  # the newest come first
                stored_metadata = listed_batch.metadata or {}
                if all(stored_metadata.get(name) == value for name, value in metadata.items()):
                    return self._batch(listed_batch)
        return None

    def create(self, file: str, metadata: Mapping[str, str]) -> Batch:
        with self._translate_errors("the batch could not be created"):
            return self._batch(
                self._sdk.batches.create(
                    input_file_id=file,
                    endpoint=CHAT_URL,
                    completion_window=COMPLETION_WINDOW,
                    metadata=dict(metadata),
                )
            )

    def batch(self, id: str) -> Batch:
        with self._translate_errors(f"batch {id} could not be looked at"):
            return self._batch(self._sdk.batches.retrieve(id))

    def rows(self, batch: Batch) -> Iterator[BatchRow]:
        for file in batch.files:
            with self._translate_errors(f"the results of batch {batch.id} could not be read"):
                text = self._text(self._sdk.files.content(file).read())
                # An answer may hold characters that `splitlines` takes for the end of a line.
                batch_rows = [
                    self._row(json.loads(line)) for line in text.split("\n") if line.strip()
                ]
            yield from batch_rows

    def _batch(self, sdk_batch: Any) -> Batch:
        """Return the SDK's batch as ours."""
        errors = [
            error.message for error in (sdk_batch.errors.data if sdk_batch.errors else None) or ()
        ]
        ends = {end: getattr(sdk_batch, f"{end}_at", None) for end in BATCH_FINISHED}
        counts, usage = sdk_batch.request_counts, getattr(sdk_batch, "usage", None)
        return Batch(
            id=sdk_batch.id,
            status=normalize_batch_status(sdk_batch.status, ends),
            error=redact("; ".join(map(str, errors[:3])), self._key) or None,
            total=counts.total if counts else 0,
            done=counts.completed + counts.failed if counts else 0,
            files=tuple(
                file for file in (sdk_batch.output_file_id, sdk_batch.error_file_id) if file
            ),
            tokens_in=usage.input_tokens if usage else None,
            tokens_out=usage.output_tokens if usage else None,
        )

    def _row(self, row: Mapping[str, Any]) -> BatchRow:
        """Return a line of a result file as a row."""
        response = row.get("response") or {}
        body, status = response.get("body"), response.get("status_code")
        body = body if isinstance(body, dict) else {"error": body}
        error, id = row.get("error") or body.get("error"), str(row.get("custom_id"))
        if status == 200 and not row.get("error"):
            reply = _parse_reply(body)
            if reply is not None:
                return BatchRow(id, status, reply=reply)
            error = error or "what came is no answer"
        details = error if isinstance(error, dict) else {"message": error}
        message = redact(str(details.get("message") or f"status {status}"), self._key)
        return BatchRow(
            id,
            status,
            error=message[:MAX_MESSAGE_LENGTH],
            code=details.get("code"),
            param=details.get("param"),
        )

    def _translate_errors(self, what: str) -> Any:
        """Translate the SDK's errors while inside."""
        return translate_errors(self._provider.reach, self._key, what)


def _parse_reply(body: Mapping[str, Any]) -> Reply | None:
    """Return a body's answer; None where there is none.

    One malformed row must not keep the other rows, which are paid for, from being read.
    """
    try:
        choice, usage = body["choices"][0], read_usage(body.get("usage") or {})
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        reply = Reply(
            text,
            usage.tokens_in,
            usage.tokens_out,
            choice.get("finish_reason"),
            cached_tokens_in=usage.cached_tokens_in,
            written_tokens_in=usage.written_tokens_in,
        )
    except UNREADABLE:
        return None
    return reply if isinstance(text, str) else None
