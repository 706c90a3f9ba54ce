"""Graphs and choices of "auto" that are kept on disk for other sessions; of the graphs, those that were used of late.

A file of the folder is told by its name: KEY.onnx is a graph, KEY.sha256 its digest, KEY-CIRCUMSTANCES.json a choice.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError
from ..files import write_bytes, write_text
from ..weights.store import home

log = logging.getLogger(__name__)

MOST = 2**30  # bytes of all graphs; one takes 3 to 12 MB, and each size of frames has its own


def folder() -> Path:
    """The cache folder for graphs and choices, $ONEMASK_HOME/runtimes. It can be removed at any time."""
    return home() / "runtimes"


def kept(key: str, made: Callable[[], bytes]) -> bytes:
    """A graph from the cache on disk, or made now and cached if the disk allows."""
    path, digest = folder() / f"{key}.onnx", folder() / f"{key}.sha256"
    if (graph := _intact(path, digest)) is not None:
        with suppress(OSError):
            os.utime(path)  # used just now
        return graph
    graph = made()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, graph)
        write_text(digest, hashlib.sha256(graph).hexdigest())
    except (OutputError, OSError) as error:
        log.info("the graph could not be kept for other sessions: %s", error)
    else:
        _trim(path)
    return graph


def _intact(path: Path, digest: Path) -> bytes | None:
    """The graph in a file, if its SHA-256 is the one in the file `digest`; None: it has to be made."""
    try:
        graph = path.read_bytes()
        if hashlib.sha256(graph).hexdigest() == digest.read_text(encoding="ascii"):
            return graph
    except FileNotFoundError:  # not made yet, or by a version that wrote no digest
        return None
    except (OSError, ValueError) as error:
        log.info("%s cannot be read: %s", path, error)
    log.info("%s is damaged, so the graph is made again", path)
    return None


def _trim(newest: Path) -> None:
    """Remove the graphs that were not used for longest, with what belongs to them, until all take at most MOST bytes.

    newest: is not removed. Other sessions may use the folder meanwhile: they hold their graphs in memory, and make
    again what they no longer find.
    """
    graphs = sorted(_graphs(newest.parent), key=lambda graph: graph[1])
    total = sum(size for _, _, size in graphs)
    for path, _, size in graphs:
        if total <= MOST:
            return
        if path == newest:
            continue
        total -= size
        log.info("%s was not used for longest, and is removed, as the folder holds too much", path)
        for belonging in (path, path.with_suffix(".sha256"), *path.parent.glob(f"{path.stem}-*.json")):
            with suppress(OSError):
                belonging.unlink()


def _graphs(where: Path) -> Iterator[tuple[Path, int, int]]:
    """Every graph of the folder, when it was used last, in nanoseconds, and its size in bytes."""
    for path in where.glob("*.onnx"):
        with suppress(OSError):  # removed meanwhile
            status = path.stat()
            yield path, status.st_mtime_ns, status.st_size
