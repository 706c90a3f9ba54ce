"""Graceful Ctrl-C: long work ends after the current step and can be resumed."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def stop_asked(step: str) -> Iterator[threading.Event]:
    """An event that Ctrl-C (SIGINT) or SIGTERM sets; a second one interrupts at once.

    step: what is never left half done ("frame"), so that what is saved can be gone on with exactly. In a thread other
    than the main one signals cannot be caught; there it is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.warning("stopping after this %s; once more to stop at once", step)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
