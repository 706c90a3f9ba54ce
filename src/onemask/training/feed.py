"""Clips in the order in which a stage sees them: the same for any number of processes and workers, from any step on."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..data.mixture import Mixture
from ..errors import OnemaskError, one_line
from .cache import ClipCache
from .recipe import StageConfig
from .unroll import ClipBatch, batch_of, joined


@dataclass(frozen=True)
class Order:
    """The clips of step k: new ones in every step, or `distinct` ones, reshuffled in every pass."""

    batch: int
    distinct: int
    seed: int
    first: int = 0  # number of the first new clip: those before it were seen in earlier stages

    def clips(self, step: int) -> list[int]:
        """The numbers of the clips of a step, (batch,)."""
        places = range(step * self.batch, (step + 1) * self.batch)
        if not self.distinct:
            return [self.first + place for place in places]
        passes = (divmod(place, self.distinct) for place in places)
        return [int(_shuffled(self.distinct, self.seed, number)[place]) for number, place in passes]


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(count)


class Parts(Dataset[ClipBatch]):
    """The parts of batches that one process computes: item i is part i % accumulate of step i // accumulate.

    rank, of: the index of this process, and the number of processes.
    """

    def __init__(
        self,
        mixture: Mixture,
        stage: StageConfig,
        steps: int,
        order: Order,
        *,
        cache: ClipCache | None = None,
        rank: int = 0,
        of: int = 1,
    ):
        self.mixture, self.stage, self.steps, self.order, self.cache = mixture, stage, steps, order, cache
        self.rank, self.of = rank, of

    def __len__(self) -> int:
        return self.steps * self.stage.accumulate

    def __getitem__(self, item: int) -> ClipBatch:
        step, part = divmod(item, self.stage.accumulate)
        mine = self.order.clips(step)[self.rank :: self.of][part :: self.stage.accumulate]
        if self.cache is not None:
            return joined([self.cache.read(clip) for clip in mine])
        return batch_of([self.mixture.clip(clip, self.stage.request(step / self.steps)) for clip in mine])


class Feed:
    """The parts of a stage from item `first` on, prefetched by workers; measures the time spent waiting for them."""

    def __init__(self, parts: Parts, first: int, workers: int):
        options: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
        self._loader = DataLoader(
            _Guarded(parts),
            batch_size=None,
            sampler=range(first, len(parts)),
            num_workers=workers,
            worker_init_fn=_begin_worker,
            collate_fn=_as_it_is,
            **options,
        )
        self.waited = 0.0  # seconds

    def __iter__(self) -> Iterator[ClipBatch]:
        batches = iter(self._loader)
        try:
            while True:
                began = time.perf_counter()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    self.waited += time.perf_counter() - began
                if isinstance(batch, OnemaskError):
                    raise batch
                yield batch
        finally:
            del batches  # otherwise the traceback of an error would keep its workers alive


def grouped(parts: Iterable[ClipBatch], size: int) -> Generator[list[ClipBatch], None, None]:
    """Yield the parts of each step, `size` of them."""
    group: list[ClipBatch] = []
    for part in parts:
        group.append(part)
        if len(group) == size:
            yield group
            group = []


class _Guarded(Dataset[Any]):
    """Returns an OnemaskError in place of a batch, since DataLoader would turn its message into a traceback."""

    def __init__(self, parts: Parts):
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, item: int) -> ClipBatch | OnemaskError:
        try:
            return self.parts[item]
        except OnemaskError as error:
            return error


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Raise an OnemaskError when a worker is killed; DataLoader notices it at any time, also between two batches."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise OnemaskError(
            f"a worker that makes clips was killed ({one_line(error)}); if memory ran out, set fewer workers; --resume "
            "continues from the last checkpoint"
        ) from error


def _begin_worker(number: int) -> None:
    cv2.setNumThreads(0)  # the workers already run in parallel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process, but the main process handles it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _as_it_is(batch: Any) -> Any:
    return batch
