"""Damage to small files: a seeded mutator of their bytes, and of what is behind their checksums and syntax.

Bytes that change at random are noticed by the first checksum or bracket of many formats, so that nothing behind it is
ever tried. For those every other file is changed inside: chunks of a PNG, whose checksums are set right again, values
of a JSON or YAML, entries of a ZIP, the header of a safetensors.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

ODD: list[Any] = [None, True, -1, 0, 1.5, 2**31, 2**64, float("nan"), float("inf"), "", " ", "1", "..", "../x"]
ODD += [
    "/x",
    "a\0b",
    "\ud800",
    "é" * 300,
    "${oc.env:HOME}",
    "${none}",
    "???",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": 1},
]
NAMES = ["", "/", "x.png", "/x.png", "../x.png", "a/../x.png", "a\\b.png", "a/" * 200 + "x.png", "x" * 300 + ".png"]
NAMES += ["bear", "bear/00000.png/x.png", "__MACOSX/bear/._00000.png", "bear/00000.PNG", "é.png", "bear/none.png"]


def mutated(name: str, data: bytes, generator: np.random.Generator) -> bytes:
    """The content of a file of that name with one to four faults."""
    inside = INSIDE.get(name.rpartition(".")[2])
    if inside is None or generator.integers(2):
        return _bytes(data, generator)
    return inside(data, generator)


def _bytes(data: bytes, generator: np.random.Generator) -> bytes:
    """Faults of the kinds that disks, networks and careless writers make."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 5))):
        if len(changed) < 8:
            break
        at, length = int(generator.integers(len(changed))), int(generator.integers(1, 64))
        kind = int(generator.integers(8))
        if kind == 0:  # a bit
            changed[at] ^= 1 << int(generator.integers(8))
        elif kind == 1:  # noise
            changed[at : at + length] = generator.bytes(min(length, len(changed) - at))
        elif kind == 2:  # the end is missing
            del changed[at:]
        elif kind == 3:  # a stretch is missing
            del changed[at : at + length]
        elif kind == 4:  # a stretch comes twice
            changed[at:at] = changed[at : at + length]
        elif kind == 5:  # a stretch of zeros, as of a disk that was full
            changed[at : at + length] = bytes(min(length, len(changed) - at))
        elif kind == 6:  # numbers at their limits
            number = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0")[int(generator.integers(4))]
            changed[at : at + 4] = number[: len(changed) - at]
        else:  # two stretches have changed their places
            to = int(generator.integers(len(changed)))
            changed[at : at + length], changed[to : to + length] = changed[to : to + length], changed[at : at + length]
    return bytes(changed)


def _chunks(data: bytes, generator: np.random.Generator) -> bytes:
    """A PNG whose chunks are changed, lost, doubled or moved, all with a right checksum."""
    chunks, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(int(generator.integers(1, 4))):
        if not chunks:
            break
        index, kind = int(generator.integers(len(chunks))), int(generator.integers(6))
        name, body = chunks[index]
        if kind == 0:
            chunks.pop(index)
        elif kind == 1:
            chunks.insert(int(generator.integers(len(chunks))), chunks[index])
        elif kind == 2 and name in (b"IDAT", b"fdAT"):  # what is packed, so that it unpacks to something else
            number, packed = (body[:4], body[4:]) if name == b"fdAT" else (b"", body)
            pixels = zlib.decompress(packed) if _unpacks(packed) else packed
            chunks[index] = (name, number + zlib.compress(_bytes(pixels, generator)))
        elif kind == 3 and name == b"IHDR":  # one of size, bit depth, colour type, compression, filter, interlace
            fields = list(struct.unpack(">IIBBBBB", body)) if len(body) == 13 else [0] * 7
            field = int(generator.integers(7))
            fields[field] = int(generator.choice([0, 1, 2, 3, 4, 6, 8, 16, 255] + ([2**31 - 1] if field < 2 else [])))
            chunks[index] = (name, struct.pack(">IIBBBBB", *fields))
        else:
            chunks[index] = (name, _bytes(body, generator))
    parts = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + b"".join(parts)


def _unpacks(body: bytes) -> bool:
    try:
        zlib.decompress(body)
    except zlib.error:
        return False
    return True


def _tree(tree: Any, generator: np.random.Generator) -> Any:
    """Parsed JSON or YAML with odd values, and with entries that are lost or named otherwise."""
    tree = copy.deepcopy(tree)
    for _ in range(int(generator.integers(1, 4))):
        places = [*_places(tree)]
        if not places:
            break
        parent, key = places[int(generator.integers(len(places)))]
        kind = int(generator.integers(5))
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[ODD[int(generator.integers(10, 18))]] = parent.pop(key)
        elif kind == 2:  # a value from elsewhere
            other, there = places[int(generator.integers(len(places)))]
            parent[key] = copy.deepcopy(other[there])
        else:
            parent[key] = copy.deepcopy(ODD[int(generator.integers(len(ODD)))])
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Container and key of each value."""
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [place for key in keys for place in [(tree, key), *_places(tree[key])]]


def _json(data: bytes, generator: np.random.Generator) -> bytes:
    return json.dumps(_tree(json.loads(data), generator)).encode()


def _yaml(data: bytes, generator: np.random.Generator) -> bytes:
    return yaml.safe_dump(_tree(yaml.safe_load(data), generator)).encode(errors="replace")


def _header(data: bytes, generator: np.random.Generator) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + length], generator)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _entries(data: bytes, generator: np.random.Generator) -> bytes:
    """A ZIP whose entries are damaged PNGs, lost, doubled, or named oddly."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = [(name, file.read(name)) for name in file.namelist()]
    for _ in range(int(generator.integers(1, 4))):
        if not entries:
            break
        index, kind = int(generator.integers(len(entries))), int(generator.integers(4))
        name, content = entries[index]
        if kind == 0:
            entries.pop(index)
        elif kind == 1:
            entries.append((NAMES[int(generator.integers(len(NAMES)))], content))
        elif kind == 2:
            entries[index] = (NAMES[int(generator.integers(len(NAMES)))], content)
        else:
            entries[index] = (name, mutated("mask.png", content, generator))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # as it is: the constructor makes names tidy
            file.writestr(entry, content)
    return packed.getvalue()


INSIDE: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "png": _chunks,
    "json": _json,
    "yaml": _yaml,
    "safetensors": _header,
    "zip": _entries,
}
