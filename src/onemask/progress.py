"""How far long work is: what wraps the items that it goes through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable to show how far it is, as tqdm does."""

    def __call__(self, items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
        """Yield the same items."""


def silent(items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
    """Progress that shows nothing."""
    return items
