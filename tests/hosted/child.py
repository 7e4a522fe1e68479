"""`tuneoff` with short pauses between tries, so that tests of faults take seconds: nothing else
is changed. With `--held` it says when it is ready, and begins when a line comes on stdin; with
`--bare` it writes no report, answers no baselines, looks for no accelerator and quietens no
library, for which torch and transformers would be loaded, and pays nobody. With `--elsewhere` no
provider counts as one on this machine. With `--loud` every library logs all it can to stderr.
"""

from __future__ import annotations

import contextlib
import logging
import sys

from tuneoff.contenders import batch_inference, hosted, idempotency, job_polling
from tuneoff.providers import retries

SECONDS = {
    "MIN_BACKOFF_SECONDS": 0.02, "MAX_BACKOFF_SECONDS": 0.2,
    "MIN_POLL_SECONDS": 0.02, "MAX_POLL_SECONDS": 0.2, "LISTING_POLL_SECONDS": 0.2,
    "LISTING_LAG_SECONDS": 1.5, "UPLOAD_LAG_SECONDS": 2.0, "MAX_UPLOADED_SECONDS": 0.1,
}  # fmt: skip
# (module, name, seconds)
PAUSES = [
    (module, name, seconds)
    for module in (retries, idempotency, job_polling, batch_inference)
    for name, seconds in SECONDS.items()
    if hasattr(module, name)
]
# A name that no module has any more would leave a pause as long as it is, without a word.
assert {name for _, name, _ in PAUSES} == set(SECONDS)


def _options() -> list[str]:
    found = []
    while sys.argv[1:2] and sys.argv[1] in ("--held", "--bare", "--elsewhere", "--loud"):
        found.append(sys.argv.pop(1))
    return found


if __name__ == "__main__":
    for module, name, seconds in PAUSES:
        setattr(module, name, seconds)
    given = _options()
    from tuneoff import environment
    from tuneoff.bakeoff import run as bakeoff
    from tuneoff.cli import console
    from tuneoff.cli.main import main

    if "--bare" in given:
        bakeoff.write_report = lambda run: (run.path, run.path)
        bakeoff.score_baselines = lambda *_: None
        environment.describe_machine = lambda: "a machine"
        console.silence_libraries = lambda: None
    if "--elsewhere" in given:
        hosted.is_loopback = lambda url: False
    if "--loud" in given:
        logging.basicConfig(level=logging.DEBUG)
    if "--held" in given:
        with contextlib.suppress(ImportError):
            import openai  # noqa: F401
        print("held", flush=True)
        sys.stdin.readline()
    main()
