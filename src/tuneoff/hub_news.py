"""What the hub's library says of a hub that does not answer, in one line of ours.

It logs two lines a try, for each file that is looked for; the error that comes of it in the end is
told anyway.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit

LOGGER = "huggingface_hub.utils._http"
_THROWN = re.compile(r"^(?P<why>.*?) thrown while requesting \S+ (?P<url>\S+)")
_AGAIN = re.compile(r"^Retrying in ")


class OneLine(logging.Filter):
    """Lets the first failed try at each host through, in short, and everything that is no try."""

    def __init__(self) -> None:
        super().__init__()
        self._told = set[str | None]()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        thrown = _THROWN.match(said)
        if thrown is None:
            return not _AGAIN.match(said)
        # An address may hold a signature; its host does not.
        host = urlsplit(thrown["url"]).hostname
        why = thrown["why"].strip("'")
        record.msg, record.args = f"{host} does not answer ({why}); trying again for a while", ()
        new = host not in self._told
        self._told.add(host)
        return new


def shorten() -> None:
    """From now on the hub's library says it so."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(each, OneLine) for each in logger.filters):
        logger.addFilter(OneLine())
