"""Jobs distributed among hands: each takes the next one when it is free. A hand is a process, here or elsewhere."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from .interruption import stop_asked

POLL_SECONDS = 0.2


class Hand(Protocol):
    """Something that does one job at a time."""

    def ready(self) -> bool:
        """Whether it can take a job. It is asked again and again, and does not wait."""

    def close(self) -> None:
        """Give back what it holds."""


J = TypeVar("J")
H = TypeVar("H", bound=Hand)


def share_out(
    jobs: Iterable[J], hands: Sequence[H], do: Callable[[J, H, threading.Event], bool], *, step: str = "video"
) -> bool:
    """Do all jobs, in their order, as many at a time as there are hands.

    Args:
        jobs: what is to be done.
        hands: who does it.
        do: does a job with a hand, in a thread of that hand's; returns whether it is done with, and not to be given to
            the next hand that is free. It ends early where its event is set.
        step: what is said to be stopped after, see `stop_asked`.

    Returns:
        Whether all was done; False after Ctrl-C.

    Raises:
        BaseException: the first error of `do`; the other hands end, too.
    """
    waiting: queue.SimpleQueue[J] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[BaseException] = []

    def work(hand: H) -> None:
        try:
            while not stop.is_set() and not waiting.empty():
                if not hand.ready():
                    stop.wait(POLL_SECONDS)
                    continue
                try:
                    job = waiting.get_nowait()
                except queue.Empty:  # another hand was faster
                    return
                if not do(job, hand, stop):
                    waiting.put(job)
        except BaseException as error:  # a full disk, say
            failures.append(error)
            stop.set()
        finally:
            hand.close()

    with stop_asked(step) as stop:
        threads = [threading.Thread(target=work, args=(hand,), name=f"hand-{n}") for n, hand in enumerate(hands)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # waits in pieces, so that signals come through
                thread.join(POLL_SECONDS)
    if failures:
        raise failures[0]
    return not stop.is_set()
