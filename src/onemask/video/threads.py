"""Threads beside the computing one: `prefetch` reads ahead of it, `Behind` writes behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from queue import Queue, SimpleQueue
from threading import Event, Semaphore, Thread
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_SECONDS = 2.0  # decoding a frame takes far less; a blocking source must not delay the consumer


class _End:
    """The last item from the thread, with the error that ended it, or None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(iterable: Iterable[T], depth: int = 8) -> Generator[T, None, None]:
    """Yield the items of `iterable`, which a daemon thread reads up to `depth` items ahead.

    An exception of the iterable is raised here after the items before it. When this generator is closed, the thread
    stops after its current item, and closes the iterable if it is a generator.
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
        slots.release()  # wakes the thread if it is waiting for a slot
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

    An exception of a call is raised by the next use of this object, and later calls are not made. All calls are
    finished at the end of the block, even if it ends with an error, which then takes precedence over one of a call.

    with Behind(write) as behind:
        for item in items:
            behind(item)
    """

    def __init__(self, call: Callable[[T], None], depth: int = 4) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._waiting: Queue[list[T]] = Queue(depth)  # lists of one item; an empty list marks the end
        self._thread = Thread(target=self._work, name="behind", daemon=True)

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __call__(self, item: T) -> None:
        """Queue a call for the thread; blocks if too many are queued already."""
        self._raise()
        self._waiting.put([item])

    def wait(self) -> None:
        """Wait until all calls are done."""
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
