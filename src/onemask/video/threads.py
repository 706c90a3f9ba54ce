"""Threads beside the one that computes: `prefetch` reads ahead of it, `Behind` writes behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from queue import Queue, SimpleQueue
from threading import Event, Semaphore, Thread
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_SECONDS = 2.0  # one frame's decoding ends long before; a source that blocks must not hold up the consumer


class _End:
    """The last item from the thread: the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(iterable: Iterable[T], depth: int = 8) -> Generator[T, None, None]:
    """Yield the items of `iterable`, which a daemon thread reads up to `depth` items ahead.

    An exception of the iterable is raised here after the items before it. When this generator is closed, the
    thread stops after the item it is at, and closes the iterable if that is a generator.
    """
    if depth < 1:
        raise ValueError(f"depth must be 1 or more, not {depth}")
    items: SimpleQueue[T | _End] = SimpleQueue()
    slots = Semaphore(depth)
    stopped = Event()
    thread = Thread(target=_fill, args=(iterable, items, slots, stopped), name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            slots.release()
            yield item
    finally:
        stopped.set()
        slots.release()  # wakes the thread if it waits for room
        thread.join(_JOIN_SECONDS)


def _fill(iterable: Iterable[T], items: SimpleQueue[T | _End], slots: Semaphore, stopped: Event) -> None:
    iterator = iter(iterable)
    try:
        while not stopped.is_set():
            slots.acquire()
            if stopped.is_set():
                break
            items.put(next(iterator))
    except StopIteration:
        items.put(_End(None))
    except BaseException as error:
        items.put(_End(error))
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


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
