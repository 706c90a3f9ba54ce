"""Clips in the order in which a stage sees them: the same for any number of processes and workers, from any step on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..data.mixture import Mixture
from .cache import ClipCache
from .recipe import StageConfig
from .unroll import ClipBatch, batch_of, joined


@dataclass(frozen=True)
class Order:
    """Which clips step k sees: new ones for ever, or `distinct` ones, newly shuffled in every pass."""

    batch: int
    distinct: int
    seed: int

    def clips(self, step: int) -> list[int]:
        """The numbers of the clips of a step, (batch,)."""
        places = range(step * self.batch, (step + 1) * self.batch)
        if not self.distinct:
            return list(places)
        return [int(self._pass(place // self.distinct)[place % self.distinct]) for place in places]

    def _pass(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(self.distinct)


class Parts(Dataset[ClipBatch]):
    """The parts of batches that one process computes: item i is part i % accumulate of step i // accumulate.

    rank, of: which process this is, of how many.
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
    """The batches of a stage from a step on, made ahead by worker processes; measures how long they were waited for."""

    def __init__(self, parts: Dataset[ClipBatch], first: int, workers: int):
        options: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
        self._loader = DataLoader(
            parts,
            batch_size=None,
            sampler=range(first, len(parts)),  # type: ignore[arg-type]
            num_workers=workers,
            worker_init_fn=_begin_worker,
            collate_fn=_as_it_is,
            **options,
        )
        self.waited = 0.0  # seconds

    def __iter__(self) -> Iterator[ClipBatch]:
        batches = iter(self._loader)
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - began
            yield batch


def _begin_worker(number: int) -> None:
    cv2.setNumThreads(0)  # the workers are the threads


def _as_it_is(batch: Any) -> Any:
    return batch
