"""Requests for masks from clicks, boxes and scribbles: each answer goes to the subscriber who asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import runlengths
from .commands import First
from .messages import FirstMask, Packed, unpack
from .worker import Worker

Hear = Callable[[dict[str, Any]], None]


class Proposals:
    """Pending requests to the worker. Not thread-safe; `desk.Desk` makes sure that only one thread at a time uses it.

    subscribers: callbacks by subscriber number; answers for subscribers that have left are dropped.
    """

    def __init__(self, worker: Worker, subscribers: Mapping[int, Hear]):
        self._worker, self._subscribers = worker, subscribers
        self._asked: dict[int, tuple[int | None, int]] = {}  # the worker's number -> (subscriber, its request)
        self._next = 0

    def ask(self, command: First, subscriber: int | None) -> None:
        """Ask the worker for a mask. Raises InputError if it has just ended."""
        number, self._next = self._next, self._next + 1
        scribbles = tuple((tuple(points), positive) for points, positive in command.scribbles)
        self._worker.submit(FirstMask(number, command.frame, command.box, tuple(command.clicks), scribbles))
        self._asked[number] = (subscriber, command.request)

    def answer(self, number: int, packed: Packed | None, problem: str | None) -> None:
        """Pass the worker's answer on to the subscriber who asked."""
        subscriber, request = self._asked.pop(number, (None, 0))
        hear = None if subscriber is None else self._subscribers.get(subscriber)
        if hear is not None:
            runs = None if packed is None else runlengths.encode(unpack(packed))
            hear({"type": "proposal", "request": request, "runs": runs, "problem": problem})

    def refuse(self, problem: str) -> None:
        """Tell all waiting subscribers that no answer will come."""
        for number in list(self._asked):
            self.answer(number, None, problem)
