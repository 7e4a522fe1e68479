"""What an uploaded training file must be, checked while it streams in.

One JSON object a line, `{"messages": [{"role", "content"}, …]}`, an assistant turn last: the
hosted APIs' chat format.
"""

from __future__ import annotations

import json
from typing import Any

from tuneoff.server.errors import ApiError

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_LINE_BYTES = 1024**2
MIN_EXAMPLES = 10


class LineCheck:
    """Looks at a file's bytes as they come and counts its examples."""

    def __init__(self) -> None:
        self.examples = 0
        self._number = 0
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """More bytes.

        Raises:
            ApiError: a line is no example; the message names the line.
        """
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._rest += end
            self._line(bytes(self._rest))
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            self._number += 1
            raise self._refused(f"it is longer than {MAX_LINE_BYTES} bytes")

    def finish(self) -> None:
        """There are no more bytes.

        Raises:
            ApiError: the last line is no example, or there is none at all.
        """
        self._line(bytes(self._rest))
        if not self.examples:
            raise ApiError(400, "The file holds no example.", "file", "invalid_file_format")

    def _line(self, line: bytes) -> None:
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise self._refused(f"it is longer than {MAX_LINE_BYTES} bytes")
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8")
            if "\r" in text.rstrip("\r"):
                raise self._refused("it holds a carriage return; end lines with a line feed")
            if not text.strip():
                return
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise self._refused("it is not a JSON object in UTF-8") from None
        wrong = problem(value)
        if wrong is not None:
            raise self._refused(wrong)
        self.examples += 1

    def _refused(self, why: str) -> ApiError:
        return ApiError(
            400,
            f"Invalid file format. Line {self._number}: {why}.",
            "file",
            "invalid_file_format",
        )


def problem(value: Any) -> str | None:
    """What is wrong with an example; None if nothing is."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return 'it has no list "messages"'
    turns = value["messages"]
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            return f"each message needs a role (allowed: {', '.join(ROLES)})"
        if not isinstance(turn.get("content"), str):
            return "each message needs a text as content"
        if any("\ud800" <= character <= "\udfff" for character in turn["content"]):
            return "half a surrogate pair is no text"
    if not turns or turns[-1]["role"] != "assistant":
        return "the last message must be the assistant's"
    if not turns[-1]["content"].strip():
        return "the assistant's last message is empty"
    if not any(turn["role"] == "user" for turn in turns):
        return "there is no message of a user"
    return None
