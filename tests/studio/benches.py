"""Stand-ins for what the worker's process does, see `onemask.studio.bench.work`; here, so that it can import them."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

MORE_THAN_A_PIPE_HOLDS = 4 * 2**20  # bytes


def says_much_before_it_reads_on(pipe: Connection, source: Path) -> None:
    """For each request says more than a pipe holds, twice, and only then reads the next one."""
    try:
        while pipe.recv() != "close":
            for _ in range(2):
                pipe.send(("much", bytes(MORE_THAN_A_PIPE_HOLDS)))
    except (EOFError, OSError):  # it was closed
        return
