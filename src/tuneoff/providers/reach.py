"""Whether a provider's server answers, and one line for the user while it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tuneoff.errors import ProviderError

# Seconds between two lines about a server that comes and goes.
REPORT_AGAIN_SECONDS = 60.0
# Names of HTTP libraries for a connection that could not be made.
CONNECTION_ERRORS = ("ConnectError", "ConnectTimeout")


class ConnectionStatus:
    """The status of one connection's server. May be used by many threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Whether it has ever answered anything.
        self.seen = False
        self._say: Callable[[str], None] | None = None
        self._told: float | None = None
        self._over = False
        self._lock = threading.Lock()

    def set_listener(self, say: Callable[[str], None], seen: bool) -> None:
        """Set who hears about outages, and whether the server has answered an earlier command."""
        self._say, self.seen = say, self.seen or seen

    def answered(self) -> None:
        """Record that the server answered, be it with a rejection."""
        self.seen = self._over = True

    def tell(self, line: str) -> None:
        """Report an outage, unless it was reported already."""
        with self._lock:
            now = time.monotonic()
            new = self._told is None or (self._over and now - self._told >= REPORT_AGAIN_SECONDS)
            if not new or self._say is None:
                return
            self._told, self._over = now, False
        self._say(line)


def explain_no_connection(error: BaseException, url: str) -> tuple[str, bool] | None:
    """Return why no connection to `url` was made, and whether certainly nothing was executed.

    None where a connection was made. After a redirect it is not certain: the redirect leads
    elsewhere, or turns the request into a GET.
    """
    chain = list(_walk_causes(error))
    broken = next((cause for cause in chain if type(cause).__name__ in CONNECTION_ERRORS), None)
    if broken is None:
        return None
    try:
        method, request_url = broken.request.method, str(broken.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx raises this where it knows no request
        return None
    if urlsplit(request_url)[:2] != urlsplit(url)[:2]:
        return None
    deepest = next((cause for cause in reversed(chain) if isinstance(cause, OSError)), chain[-1])
    why = str(getattr(deepest, "strerror", None) or deepest) or "no connection"
    return why, method == "POST"


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes, up to an error that was being handled."""
    current: BaseException | None = error
    while current is not None and not isinstance(current, ProviderError | KeyboardInterrupt):
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
