"""Errors that a user can cause; each message says what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "insufficient memory",
    "storage size calculation overflow",
)


class OnemaskError(Exception):
    """Base class: onemask refused or failed to do something; the command line prints one line and exits with 2."""

    told_by_another = False  # whether another process, which raised the same error, tells the user about it


class InputError(OnemaskError, ValueError):
    """An input (a file, a mask, an option) is invalid."""


class Interrupted(OnemaskError):
    """The user stopped the work between two frames; it can be resumed."""


class OutputError(OnemaskError):
    """An output could not be written (it exists already, the disk is full); whatever was written before is kept."""


def some(things: Iterable[object], most: int = 5) -> str:
    """The first `most` of many things in words, and how many more there are."""
    every = [str(thing) for thing in things]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def one_line(error: BaseException) -> str:
    """The text of another package's error in one line of at most 200 characters; its type's name if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out. On a CPU, torch and OpenCV only say so in the message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return True
    text = str(error).lower()
    return any(words in text for words in OUT_OF_MEMORY)
