"""Learning of annotations in the background, while a session continues with other objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ..methods.method import Memory


@dataclass
class _Pending:
    """An annotation that is being learned."""

    ids: tuple[int, ...]  # in the order of the memory's rows
    wanted: set[int]  # ids without a newer annotation
    memory: Future[Memory]


class Background:
    """Learns annotations in a thread, one after another, so that their order is kept.

    The thread only computes; `finished` collects the results in the session's own thread.
    """

    def __init__(self) -> None:
        self._pending: list[_Pending] = []
        self._thread: ThreadPoolExecutor | None = None

    def __contains__(self, object_id: int) -> bool:
        """Whether an object is being learned."""
        return any(object_id in pending.wanted for pending in self._pending)

    def learn(self, ids: tuple[int, ...], memory: Callable[[], Memory]) -> Future[tuple[int, ...]]:
        """Compute the memory of objects in the thread.

        Args:
            ids: the objects, in the order of the memory's rows. If empty, nothing is done.
            memory: computes the memory; called in the thread.

        Returns:
            A future whose result is `ids`, or that raises what `memory` raised.
        """
        learned: Future[tuple[int, ...]] = Future()
        if not ids:
            learned.set_result(())
            return learned
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "onemask-annotate")
        work = self._thread.submit(memory)
        self._pending.append(_Pending(ids, set(ids), work))
        work.add_done_callback(partial(_pass_on, learned, ids))
        return learned

    def supersede(self, ids: Iterable[int]) -> None:
        """Drop what is being learned of these objects because a newer call replaces it."""
        for pending in self._pending:
            pending.wanted -= set(ids)

    def finished(self) -> Iterator[tuple[Sequence[int], Memory]]:
        """Yield results since the last call that are still wanted: ids, and the memory with their rows."""
        waiting, self._pending = self._pending, []
        for pending in waiting:
            if not pending.memory.done():
                self._pending.append(pending)
            elif pending.wanted and pending.memory.exception() is None:
                ids = [i for i in pending.ids if i in pending.wanted]
                yield ids, pending.memory.result().select([pending.ids.index(i) for i in ids])


def _pass_on(learned: Future[tuple[int, ...]], ids: tuple[int, ...], memory: Future[Memory]) -> None:
    """Pass the outcome of the work on to the caller's future."""
    error = memory.exception()
    if error is None:
        learned.set_result(ids)
    else:
        learned.set_exception(error)
