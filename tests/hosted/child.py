"""`tuneoff` with short pauses between tries, so that tests of faults take seconds: nothing else
is changed. With `--held` it begins when a line comes on stdin."""

from __future__ import annotations

import sys

from tuneoff.contenders import hosted_job, once
from tuneoff.providers import calls


def shorten() -> None:
    """The pauses of a process that is tested."""
    calls.FIRST_PAUSE_SECONDS, calls.LONGEST_PAUSE_SECONDS = 0.02, 0.2
    hosted_job.FIRST_LOOK_SECONDS, hosted_job.LAST_LOOK_SECONDS = 0.02, 0.2
    once.LOOK_AGAIN_SECONDS = 0.2
    once.SETTLED_SECONDS = hosted_job.UPLOADED_SECONDS = 1.0


if __name__ == "__main__":
    shorten()
    if sys.argv[1:2] == ["--held"]:
        del sys.argv[1]
        sys.stdin.readline()
    from tuneoff.cli import main

    main()
