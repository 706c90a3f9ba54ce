"""Writing behind in a thread, so that computing goes on while files are made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(AbstractContextManager["Behind[T]"], Generic[T]):
    """Calls a function in a thread, in order, with up to `depth` calls waiting.

    What a call raises is raised here by the next use, and later calls are not made. At the end of the block all are
    done, also where it ends with an error, which then goes before one of a call.

    with Behind(write) as behind:
        for item in items:
            behind(item)
    """

    def __init__(self, call: Callable[[T], None], depth: int = 4) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._waiting: Queue[list[T]] = Queue(depth)  # of one each; an empty list is the end
        self._thread = Thread(target=self._work, name="behind", daemon=True)

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __call__(self, item: T) -> None:
        """Leave a call to the thread; waits where too many are left to it already."""
        self._raise()
        self._waiting.put([item])

    def wait(self) -> None:
        """Wait until all is done."""
        self._waiting.join()
        self._raise()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put([])
        self._thread.join()
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while item := self._waiting.get():
            try:
                if self._error is None:
                    self._call(item[0])
            except BaseException as error:
                self._error = error
            finally:
                self._waiting.task_done()
