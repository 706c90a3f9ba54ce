"""The worker: the process that computes, as the server sees it. `bench` is what it does, `messages` what both say."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ..errors import InputError
from .bench import work
from .messages import CLOSE, STOP, Request

log = logging.getLogger(__name__)

DIED = "the process that computes has ended unexpectedly{}; nothing is lost, and the next job starts a new one"
NOT_TAKEN = "what was computed could not be taken in ({}), so that the job ends; nothing is lost"

Outbox = SimpleQueue[bytes | None]  # pickled messages; None: no more will come


class Worker:
    """The process; started at the first request, and anew after it died.

    hear: called with each message, from a thread of its own; ("died", problem) when the process ends by itself, or has
    to be ended since `hear` failed.
    """

    def __init__(self, source: Path, hear: Callable[[tuple[Any, ...]], None]):
        self._source, self._hear = source, hear
        self._context = multiprocessing.get_context("spawn")
        self._process: BaseProcess | None = None
        self._outbox: Outbox = SimpleQueue()
        self._dead = False  # the process has ended, and `hear` is about to be told
        self._closed = False
        self._changing = threading.Lock()  # of the four above; never held while anything is sent or heard

    @property
    def pid(self) -> int | None:
        """The process's number; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def submit(self, request: Request) -> None:
        """Hand over a request, which is sent by a thread: this never waits for the process.

        Raises InputError where the process has ended just now.
        """
        data = pickle.dumps(request)  # as it is now
        with self._changing:
            if self._closed:
                return  # nobody is there for the answer
            if self._dead:  # another process now would get mixed up with what is about to be heard of this one
                raise InputError(DIED.format(""))
            if self._process is None:
                self._start()
            self._outbox.put(data)

    def stop(self) -> None:
        """Ask for the end of the job, after the frame in the making."""
        self._outbox.put(pickle.dumps(STOP))

    def close(self) -> None:
        """End the process, for good."""
        with self._changing:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            self._outbox.put(pickle.dumps(CLOSE))
            process.join(timeout=2)
            if process.is_alive():
                process.terminate()
                process.join(timeout=5)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, self._source), daemon=True, name="onemask-studio")
        process.start()
        theirs.close()
        self._process, self._outbox = process, SimpleQueue()
        # A pipe that is full blocks who sends, until the process reads on; and it may send itself just then, so that
        # whoever listens to it must not wait for who sends.
        sender = threading.Thread(target=_send, args=(ours, self._outbox), daemon=True, name="onemask-outbox")
        listener = threading.Thread(
            target=self._listen, args=(process, ours, self._outbox, sender), daemon=True, name="onemask-worker"
        )
        sender.start()
        listener.start()

    def _listen(self, process: BaseProcess, pipe: Connection, outbox: Outbox, sender: threading.Thread) -> None:
        """Pass on what the process says until it has ended; then say so, unless it was ended by `close`."""
        problem = self._pass_on(pipe)
        process.join(timeout=0 if problem else 5)
        if process.is_alive():  # nobody listens to it any more
            process.kill()
            process.join()
        outbox.put(None)
        sender.join()  # before the pipe's number can be another file's
        pipe.close()
        with self._changing:
            if self._closed:
                return
            self._dead = True
        try:
            self._hear(("died", problem or DIED.format(_by(process.exitcode))))
        except Exception:
            log.exception("the end of the process could not be told")
        with self._changing:
            self._process, self._dead = None, False

    def _pass_on(self, pipe: Connection) -> str | None:
        """Pass on what comes; what is wrong, where it is not the process that has ended."""
        try:
            while (message := _received(pipe)) is not None:
                self._hear(message)
        except Exception as error:
            log.exception("a message of the process could not be taken in")
            return NOT_TAKEN.format(f"{type(error).__name__}: {error}")
        return None


def _received(pipe: Connection) -> tuple[Any, ...] | None:
    """The next message; None: the process has ended."""
    try:
        message: tuple[Any, ...] = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _send(pipe: Connection, outbox: Outbox) -> None:
    """Send what is put into the outbox."""
    with suppress(OSError):  # the process has ended; who listens to it says so
        while (data := outbox.get()) is not None:
            pipe.send_bytes(data)


def _by(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return ""
    with suppress(ValueError):
        return f" ({signal.Signals(-exitcode).name})"
    return f" (signal {-exitcode})"
