"""The worker as the server sees it: nobody waits for the process, and its end is told once and for certain."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onemask.errors import InputError
from onemask.studio.messages import FirstMask
from onemask.studio.worker import Worker

from . import benches
from .conftest import until

SMALL = FirstMask(0, 0)
LARGE = replace(SMALL, scribbles=((tuple((float(x), 0.5) for x in range(200_000)), True),))  # some MB
Hear = Callable[[tuple[Any, ...]], None]


@pytest.fixture
def worker_of(monkeypatch) -> Iterator[Callable[[Hear], Worker]]:
    monkeypatch.setattr("onemask.studio.worker.work", benches.says_much_before_it_reads_on)
    workers = []

    def make(hear: Hear) -> Worker:
        workers.append(Worker(Path("video.mp4"), hear))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def test_who_submits_does_not_wait_for_who_hears_though_the_process_reads_nothing_meanwhile(worker_of):
    """Who submits holds a lock that who hears needs, as on the desk."""
    lock, heard = threading.Lock(), queue.Queue()

    def hear(message: tuple[Any, ...]) -> None:
        with lock:
            heard.put(message[0])

    def submit() -> None:
        for request in (SMALL, LARGE):
            worker.submit(request)

    worker = worker_of(hear)
    with lock:
        submitting = threading.Thread(target=submit, daemon=True)
        submitting.start()
        submitting.join(60)
        assert not submitting.is_alive(), "they wait for each other"
    assert [heard.get(timeout=60) for _ in range(4)] == ["much"] * 4


def test_a_message_that_cannot_be_taken_in_ends_the_process_and_the_next_request_starts_another(worker_of):
    heard = queue.Queue()

    def hear(message: tuple[Any, ...]) -> None:
        heard.put(message)
        if message[0] == "much":
            raise ValueError("nobody expected this")

    worker = worker_of(hear)
    for _ in range(2):
        until(lambda: submitted(worker))
        pid = worker.pid
        assert heard.get(timeout=60)[0] == "much"
        what, problem = heard.get(timeout=60)
        assert what == "died"
        assert "ValueError: nobody expected this" in problem
        until(lambda pid=pid: worker.pid != pid)
    assert heard.empty()


def test_no_other_process_is_started_until_the_end_of_the_last_one_is_told(worker_of):
    died, told = threading.Event(), threading.Event()

    def hear(message: tuple[Any, ...]) -> None:
        if message[0] == "died":
            died.set()
            told.wait(60)

    worker = worker_of(hear)
    worker.submit(SMALL)
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    assert died.wait(60)
    with pytest.raises(InputError, match="ended unexpectedly"):
        worker.submit(SMALL)
    assert worker.pid is None
    told.set()
    until(lambda: submitted(worker))
    assert worker.pid not in (None, pid)


def test_a_worker_that_was_closed_starts_no_process(worker_of):
    heard = queue.Queue()
    worker = worker_of(heard.put)
    worker.submit(SMALL)
    worker.close()
    worker.submit(SMALL)
    assert worker.pid is None
    assert all(message[0] == "much" for message in heard.queue)


def submitted(worker: Worker) -> bool:
    """Whether a request could be handed over: it cannot while the end of a process is told."""
    try:
        worker.submit(SMALL)
    except InputError:
        return False
    return True
