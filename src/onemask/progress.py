"""Progress of long work, shown by wrapping the items that it iterates over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable to show progress, as tqdm does."""

    def __call__(self, items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
        """Yield the same items."""


def silent(items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
    """Progress that shows nothing."""
    return items
