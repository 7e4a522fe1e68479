"""Whether a provider's server is there, and one line for whoever waits while it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

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


def why_no_connection(error: BaseException) -> str | None:
    """Why no connection could be made, so that nothing was carried out; None if one was."""
    chain = list(_causes(error))
    if not any(type(each).__name__ in NO_CONNECTION for each in chain):
        return None
    deepest = next((each for each in reversed(chain) if isinstance(each, OSError)), chain[-1])
    return str(getattr(deepest, "strerror", None) or deepest) or "no connection"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, what that came of, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
