"""Memory that one frame frees is kept for the next: on Linux a frame on the CPU can spend a third of its time on it.

A network's maps are tens of megabytes. glibc gives blocks that large back to the system as soon as they are free, so
every frame asks for them anew, and the system clears each page of them before it is touched. Other threads than the
first have arenas of their own, of 64 MiB at most, which glibc gives back whatever it is told; so there is one for all.
"""

from __future__ import annotations

import ctypes
import sys

KEPT = 1 << 30  # bytes: what is free beyond goes back to the system
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's <malloc.h>


def keep_freed_memory() -> bool:
    """Make this process keep up to 1 GiB of freed memory; returns whether it could be asked to, which takes glibc.

    For programs to call once, before the first frame: it holds for the whole process, so the library does not do it
    by itself. The `onemask` command does. The peak of memory is a few percent higher, and as steady.
    All threads take turns at one arena, which a program that allocates much in many of them may feel.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    asked = {M_TRIM_THRESHOLD: KEPT, M_MMAP_MAX: 0, M_ARENA_MAX: 1}
    return mallopt is not None and all(mallopt(what, value) for what, value in asked.items())
