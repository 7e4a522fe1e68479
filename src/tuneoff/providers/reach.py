"""Whether a provider's server is there, and one line for whoever waits while it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from tuneoff.errors import ProviderError

# Of a server that comes and goes nothing is said more often than this.
TELL_AGAIN_SECONDS = 60.0
# What HTTP libraries call a connection that could not be made.
NO_CONNECTION = ("ConnectError", "ConnectTimeout")


class Reach:
    """What one connection knows of its server. May be used by many threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Whether it has ever answered, with whatever.
        self.seen = False
        self._say: Callable[[str], None] | None = None
        self._told: float | None = None
        self._over = False
        self._lock = threading.Lock()

    def tell_to(self, say: Callable[[str], None], seen: bool) -> None:
        """Who is told, and whether the server is known to have answered an earlier command."""
        self._say, self.seen = say, self.seen or seen

    def answered(self) -> None:
        """It did what it was asked, or refused to."""
        self.seen = self._over = True

    def tell(self, line: str) -> None:
        """Says a line about an outage, unless one was said."""
        with self._lock:
            now = time.monotonic()
            new = self._told is None or (self._over and now - self._told >= TELL_AGAIN_SECONDS)
            if not new or self._say is None:
                return
            self._told, self._over = now, False
        self._say(line)


def why_no_connection(error: BaseException, url: str) -> tuple[str, bool] | None:
    """Why no connection to `url` could be made, and whether it is certain that nothing was carried
    out; None where one was made. After a redirect something may have been: it leads to another
    place, or makes a GET of what was sent."""
    chain = list(_causes(error))
    broken = next((each for each in chain if type(each).__name__ in NO_CONNECTION), None)
    if broken is None:
        return None
    try:
        method, asked = broken.request.method, str(broken.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # what httpx raises where it knows no request
        return None
    if urlsplit(asked)[:2] != urlsplit(url)[:2]:
        return None
    deepest = next((each for each in reversed(chain) if isinstance(each, OSError)), chain[-1])
    why = str(getattr(deepest, "strerror", None) or deepest) or "no connection"
    return why, method == "POST"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, what that came of, and so on, up to what was handled by then."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ProviderError | KeyboardInterrupt):
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
