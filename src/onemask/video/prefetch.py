"""Reading ahead in a thread, so that decoding and computing overlap."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

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
