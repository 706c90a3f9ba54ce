"""Masks that were asked for out of clicks and boxes: each answer goes to the one who asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import runlengths
from .commands import First
from .messages import FirstMask, Packed, unpack
from .worker import Worker

Hear = Callable[[dict[str, Any]], None]


class Proposals:
    """Requests that the worker has not answered yet. One thread at a time; `desk.Desk` sees to it.

    subscribers: who can be told, by number; who has gone is told nothing.
    """

    def __init__(self, worker: Worker, subscribers: Mapping[int, Hear]):
        self._worker, self._subscribers = worker, subscribers
        self._asked: dict[int, tuple[int | None, int]] = {}  # number for the worker -> (subscriber, its own number)
        self._next = 0

    def ask(self, command: First, subscriber: int | None) -> None:
        """Ask the worker for a mask. Raises InputError where it has ended just now."""
        number, self._next = self._next, self._next + 1
        scribbles = tuple((tuple(points), positive) for points, positive in command.scribbles)
        self._worker.submit(FirstMask(number, command.frame, command.box, tuple(command.clicks), scribbles))
        self._asked[number] = (subscriber, command.request)

    def answer(self, number: int, packed: Packed | None, problem: str | None) -> None:
        """Tell who asked what the worker answered."""
        subscriber, request = self._asked.pop(number, (None, 0))
        hear = None if subscriber is None else self._subscribers.get(subscriber)
        if hear is not None:
            runs = None if packed is None else runlengths.encode(unpack(packed))
            hear({"type": "proposal", "request": request, "runs": runs, "problem": problem})

    def refuse(self, problem: str) -> None:
        """Tell all who wait that no answer will come."""
        for number in list(self._asked):
            self.answer(number, None, problem)
