"""Parses an upload's multipart form while it arrives, and validates training files line by line.

The file's bytes go to a callback; nothing is kept in memory or in a temporary file. A form has one
`file` and one `purpose`, in any order; anything else gets a 400 that names it.
`tasks/training_rows.py` says what a line may hold, here as for every other reader.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tuneoff.errors import DataError
from tuneoff.server.errors import ApiError
from tuneoff.tasks.readers import parse_json
from tuneoff.tasks.training_rows import find_fault

MAX_VALUE_BYTES = 1_000
MAX_LINE_BYTES = 1024**2
MAX_NAME_LENGTH = 255
DEFAULT_NAME = "upload.jsonl"
# Otherwise it logs a line for every malformed form.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class UploadForm:
    """A multipart form, parsed chunk by chunk.

    Args:
        content_type: the request's header, with the boundary in it.
        take: called with the file's bytes as they arrive.
        told: called with the purpose as soon as it is known; may refuse it.

    Raises:
        ApiError: the form is malformed (by every method).
    """

    def __init__(
        self, content_type: str, take: Callable[[bytes], None], told: Callable[[str], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise _build_malformed("it must be multipart/form-data with a boundary")
        self.filename = DEFAULT_NAME
        self._take, self._told = take, told
        self._seen: set[str] = set()
        self._part = ""
        self._value = b""
        self._header, self._disposition, self._text = b"", b"", b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._start_part,
                    "on_header_field": self._collect_header_name,
                    "on_header_value": self._collect_header_value,
                    "on_header_end": self._finish_header,
                    "on_headers_finished": self._read_part_name,
                    "on_part_data": self._collect_data,
                    "on_part_end": self._finish_part,
                    "on_end": self._mark_complete,
                },
            )
        except FormParserError:
            raise _build_malformed("its boundary is too long") from None

    def feed(self, chunk: bytes) -> None:
        """Parse the next chunk of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _build_malformed("it cannot be read") from None

    def finish(self) -> None:
        """Check that the form is complete."""
        missing = [name for name in ("file", "purpose") if name not in self._seen]
        if missing:
            raise ApiError(400, f"Field required: {missing[0]}", missing[0], "invalid_value")
        if not self._ended:
            raise _build_malformed("its end is missing")

    def _start_part(self) -> None:
        """Start a part."""
        self._part, self._disposition, self._value = "", b"", b""
        self._header, self._text = b"", b""

    def _collect_header_name(self, data: bytes, start: int, end: int) -> None:
        """Collect the name of a part's header."""
        self._header += data[start:end]

    def _collect_header_value(self, data: bytes, start: int, end: int) -> None:
        """Collect the value of a part's header."""
        self._text += data[start:end]

    def _finish_header(self) -> None:
        """Keep the header if it is the Content-Disposition."""
        if self._header.lower() == b"content-disposition":
            self._disposition = self._text
        self._header, self._text = b"", b""

    def _read_part_name(self) -> None:
        """Read the part's name, and refuse an unknown or repeated one."""
        _, options = parse_options_header(self._disposition)
        name = _decode(options.get(b"name", b""))
        if name not in ("file", "purpose"):
            raise ApiError(
                400, f"Unknown form field {name[:100]!r} (allowed: file, purpose).",
                name if name.isascii() and name.isidentifier() and len(name) <= 64 else None,
                "invalid_value",
            )  # fmt: skip
        if name in self._seen:
            raise ApiError(400, f"The form has two parts {name!r}.", name, "invalid_value")
        self._seen.add(name)
        self._part = name
        if name == "file":
            filename = _decode(options.get(b"filename", b""))
            printable = "".join(c for c in filename if c.isprintable())[:MAX_NAME_LENGTH]
            self.filename = printable or DEFAULT_NAME

    def _collect_data(self, data: bytes, start: int, end: int) -> None:
        """Pass the file's bytes on; collect the purpose."""
        if self._part == "file":
            self._take(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_VALUE_BYTES:
            raise ApiError(400, f"{self._part} is too long.", self._part, "invalid_value")

    def _finish_part(self) -> None:
        """Pass the purpose on when its part is complete."""
        if self._part == "purpose":
            self._told(_decode(self._value))

    def _mark_complete(self) -> None:
        """Note that the form's end has arrived."""
        self._ended = True


class TrainingFileValidator:
    """Validates a training file while it arrives, and counts its examples, one a line."""

    def __init__(self) -> None:
        self.examples = 0
        self._number = 0
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Validate the next bytes.

        Raises:
            ApiError: a line is not an example; the message names the line.
        """
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._rest += end
            self._validate_line(bytes(self._rest))
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:
            self._number += 1
            raise self._build_error(f"it is longer than {MAX_LINE_BYTES} bytes")

    def finish(self) -> None:
        """Validate the last line.

        Raises:
            ApiError: the last line is not an example, or there is no example at all.
        """
        self._validate_line(bytes(self._rest))
        if not self.examples:
            raise ApiError(400, "The file holds no example.", "file", "invalid_file_format")

    def _validate_line(self, line: bytes) -> None:
        """Validate one line and count its example."""
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise self._build_error(f"it is longer than {MAX_LINE_BYTES} bytes")
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8")
            if "\r" in text.rstrip("\r"):
                raise self._build_error("it holds a carriage return; end lines with a line feed")
            if not text.strip():
                return
            value = parse_json(text)
        except DataError as error:
            raise self._build_error(str(error).rstrip(".")) from None
        except ValueError:
            raise self._build_error("it is not a JSON object in UTF-8") from None
        problem = find_fault(value)
        if problem is not None:
            raise self._build_error(problem)
        self.examples += 1

    def _build_error(self, why: str) -> ApiError:
        """Return the error for the current line."""
        return ApiError(
            400,
            f"Invalid file format. Line {self._number}: {why}.",
            "file",
            "invalid_file_format",
        )


def _decode(value: bytes) -> str:
    """Decode UTF-8; invalid bytes are replaced."""
    return value.decode("utf-8", errors="replace")


def _build_malformed(why: str) -> ApiError:
    """Return the error for a malformed form."""
    return ApiError(400, f"Invalid upload: {why}.", None, "invalid_multipart")
