"""Distribution of jobs among hands (processes, local or remote): each takes the next job when it is free."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ..interruption import stop_asked

POLL_SECONDS = 0.2


class Hand(Protocol):
    """A worker that does one job at a time."""

    def ready(self) -> bool:
        """Whether it can take a job. Called repeatedly, and must not block."""

    def close(self) -> None:
        """Release its resources."""


J = TypeVar("J")
H = TypeVar("H", bound=Hand)


def share_out(
    jobs: Iterable[J], hands: Sequence[H], do: Callable[[J, H, threading.Event], bool], *, step: str = "video"
) -> bool:
    """Do all jobs in order, as many at a time as there are hands.

    Args:
        jobs: the jobs.
        hands: the hands that do them.
        do: does a job with a hand, in that hand's thread; returns whether the job is finished, rather than to be given
            to the next free hand. It ends early when its event is set.
        step: the unit of work that Ctrl-C lets finish, for messages; see `stop_asked`.

    Returns:
        Whether all jobs were done; False after Ctrl-C.

    Raises:
        BaseException: the first error of `do`; the other hands stop as well.
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
        except BaseException as error:  # such as a full disk
            failures.append(error)
            stop.set()
        finally:
            hand.close()

    with stop_asked(step) as stop:
        threads = [threading.Thread(target=work, args=(hand,), name=f"hand-{n}") for n, hand in enumerate(hands)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # short waits, so that signals are handled
                thread.join(POLL_SECONDS)
    if failures:
        raise failures[0]
    return not stop.is_set()
