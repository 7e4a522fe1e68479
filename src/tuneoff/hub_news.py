"""Shortens what the hub's library logs about a hub that does not answer.

It logs two lines per try, for each file that it looks for; the error that follows is shown anyway.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit

HUB_LOGGER = "huggingface_hub.utils._http"
_FAILED_TRY = re.compile(r"^(?P<why>.*?) thrown while requesting \S+ (?P<url>\S+)")
_RETRY = re.compile(r"^Retrying in ")


class HubErrorFilter(logging.Filter):
    """Passes one short line per host for failed tries, and every other message."""

    def __init__(self) -> None:
        super().__init__()
        self._told = set[str | None]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a message is logged; shorten the first failed try at a host."""
        said = record.getMessage()
        thrown = _FAILED_TRY.match(said)
        if thrown is None:
            return not _RETRY.match(said)
        # Only the host is logged: an address may hold a signature.
        host = urlsplit(thrown["url"]).hostname
        why = thrown["why"].strip("'")
        record.msg, record.args = f"{host} does not answer ({why}); trying again for a while", ()
        new = host not in self._told
        self._told.add(host)
        return new


def shorten_hub_errors() -> None:
    """Install the filter on the hub library's logger."""
    logger = logging.getLogger(HUB_LOGGER)
    if not any(isinstance(each, HubErrorFilter) for each in logger.filters):
        logger.addFilter(HubErrorFilter())
