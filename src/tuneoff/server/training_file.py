"""An uploaded training file, checked while it streams in: one example in the hosted APIs' chat
format (`providers/chat_format.py`) a line.
"""

from __future__ import annotations

import json
from typing import Any

from tuneoff.providers.chat_format import problem
from tuneoff.server.errors import ApiError

MAX_LINE_BYTES = 1024**2
NOT_LEARNED = ("tools", "functions", "parallel_tool_calls", "tool_calls", "function_call")


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
        wrong = problem(value) or _unsupported(value)
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


def _unsupported(example: Any) -> str | None:
    """What the hosted API would learn otherwise than is learned here: the last message alone, and
    texts alone. Left out without a word, it would make another model."""
    *before, last = example["messages"]
    for place in (example, *before, last):
        for name in NOT_LEARNED:
            if place.get(name):
                return f"{name} is not supported"
    if last.get("weight") == 0:
        return "the last message has weight 0, and it is what is learned"
    if any(turn.get("weight") == 1 for turn in before):
        return "only the last message is learned; weight 1 before it is not supported"
    return None
