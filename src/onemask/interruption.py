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

    step: the unit of work that is always completed ("frame"), so that a saved state can be resumed exactly. In threads
    other than the main one signals cannot be caught; there the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.warning("stopping after this %s; press Ctrl-C again to stop at once", step)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python, which cannot restore it
                signal.signal(number, handler)
