"""The server's side of the process that computes. `bench` is the code that runs in it, `messages` the protocol."""

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

DIED = "the worker process ended unexpectedly{}; nothing is lost, and the next job starts a new one"
NOT_TAKEN = "a result could not be processed ({}), so the job ends; nothing is lost"

Outbox = SimpleQueue[bytes | None]  # pickled messages; None: end of messages


class Worker:
    """Handle of the process, which is started at the first request, and again after it died.

    hear: called with each message, from a separate thread; with ("died", problem) if the process ends by itself, or is
    killed because `hear` failed.
    """

    def __init__(self, source: Path, hear: Callable[[tuple[Any, ...]], None]):
        self._source, self._hear = source, hear
        self._context = multiprocessing.get_context("spawn")
        self._process: BaseProcess | None = None
        self._outbox: Outbox = SimpleQueue()
        self._dead = False  # the process has ended, but `hear` was not called yet
        self._closed = False
        self._changing = threading.Lock()  # guards the four above; never held while sending or in `hear`

    @property
    def pid(self) -> int | None:
        """The process id; None if no process is running."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def submit(self, request: Request) -> None:
        """Submit a request. A thread sends it, so this never waits for the process.

        Raises InputError if the process has just ended.
        """
        data = pickle.dumps(request)  # a snapshot of it
        with self._changing:
            if self._closed:
                return  # nobody needs the answer
            if self._dead:  # a new process now would be mixed up with the end of this one
                raise InputError(DIED.format(""))
            if self._process is None:
                self._start()
            self._outbox.put(data)

    def stop(self) -> None:
        """Ask the process to stop its job after the current frame."""
        self._outbox.put(pickle.dumps(STOP))

    def close(self) -> None:
        """End the process permanently."""
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
        # Sending to a full pipe blocks until the process reads from it. The process may itself be sending at that time,
        # so the listener must not wait for the sender.
        sender = threading.Thread(target=_send, args=(ours, self._outbox), daemon=True, name="onemask-outbox")
        listener = threading.Thread(
            target=self._listen, args=(process, ours, self._outbox, sender), daemon=True, name="onemask-worker"
        )
        sender.start()
        listener.start()

    def _listen(self, process: BaseProcess, pipe: Connection, outbox: Outbox, sender: threading.Thread) -> None:
        """Pass on the process's messages until it has ended, then report that, unless `close` ended it."""
        problem = self._pass_on(pipe)
        process.join(timeout=0 if problem else 5)
        if process.is_alive():  # its messages are no longer read
            process.kill()
            process.join()
        outbox.put(None)
        sender.join()  # before the pipe's file descriptor can be reused
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
        """Pass messages on until the process ends (returns None) or `hear` fails (returns the problem)."""
        try:
            while (message := _received(pipe)) is not None:
                self._hear(message)
        except Exception as error:
            log.exception("a message of the process could not be taken in")
            return NOT_TAKEN.format(f"{type(error).__name__}: {error}")
        return None


def _received(pipe: Connection) -> tuple[Any, ...] | None:
    """Receive the next message; None if the process has ended."""
    try:
        message: tuple[Any, ...] = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _send(pipe: Connection, outbox: Outbox) -> None:
    """Send the messages in the outbox."""
    with suppress(OSError):  # the process has ended, which the listener reports
        while (data := outbox.get()) is not None:
            pipe.send_bytes(data)


def _by(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return ""
    with suppress(ValueError):
        return f" ({signal.Signals(-exitcode).name})"
    return f" (signal {-exitcode})"
