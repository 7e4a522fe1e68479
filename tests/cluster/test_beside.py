"""What goes on beside the driver's main thread, and Ctrl-C there."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import wait

import pytest

from tuneoff.cluster.executor import _start_thread


def test_a_wait_that_ctrl_c_interrupts_does_not_take_its_thread_for_ended() -> None:
    """Who believed that left the cluster while a thread still asked Ray, which then ended the
    whole process with an error."""
    main, released = threading.main_thread().ident, threading.Event()
    assert main == threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    through = _start_thread("waits", lambda event: event.wait(), released)
    ctrl_c = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))

    def interrupted() -> None:
        ctrl_c.start()
        wait([through])

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert wait([through], 0.1).not_done
        released.set()
        wait([through])
        assert through.result() is None
    finally:
        released.set()
        ctrl_c.join()
        signal.signal(signal.SIGINT, before)


def test_a_thread_that_fails_is_through() -> None:
    """So that nobody waits for it for ever."""

    def stopped(_: None) -> None:
        raise KeyboardInterrupt

    assert _start_thread("stopped", stopped, None).result(timeout=60) is None
