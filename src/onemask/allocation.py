"""Reuse of freed memory between frames: on Linux, allocation can take a third of a frame's time on the CPU.

A network's feature maps take tens of megabytes. glibc returns blocks of that size to the system as soon as they are
freed, so every frame requests them again, and the system zeroes each page on first touch. Threads other than the main
one have arenas of their own, at most 64 MiB each, which glibc returns whatever its settings; so all threads share one.
"""

from __future__ import annotations

import ctypes
import sys

KEPT = 1 << 30  # bytes; free memory beyond this goes back to the system
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # from glibc's <malloc.h>


def keep_freed_memory() -> bool:
    """Make this process keep up to 1 GiB of freed memory; returns whether this is supported, which requires glibc.

    Programs call it once, before the first frame. It affects the whole process, so the library never calls it by
    itself; the `onemask` command does. Peak memory is a few percent higher, and as steady.
    All threads share one arena, which can slow down a program that allocates heavily from many threads.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    asked = {M_TRIM_THRESHOLD: KEPT, M_MMAP_MAX: 0, M_ARENA_MAX: 1}
    return mallopt is not None and all(mallopt(what, value) for what, value in asked.items())
