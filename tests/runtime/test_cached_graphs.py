"""The folder of graphs on disk: what is kept, what is made again, and what has to go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onemask.runtime import cache


@pytest.fixture(autouse=True)
def kept_here(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
    return tmp_path / "runtimes"


def make(key: str, size: int, *, last_used: int) -> None:
    """Keep a graph that was used so many seconds after 1970, and a choice for it."""
    cache.kept(key, lambda: bytes(size))
    path = cache.folder() / f"{key}.onnx"
    path.with_name(f"{key}-0123456789ab.json").write_text("{}")
    os.utime(path, (last_used, last_used))


def names(where: Path) -> list[str]:
    return sorted(path.name for path in where.iterdir())


def test_what_was_not_used_for_longest_goes_with_all_that_belongs_to_it(kept_here, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 250)
    make("a-480x864", 100, last_used=100)
    make("a-480x640", 100, last_used=200)
    (kept_here / "not onemask's.txt").write_text("mine")
    assert cache.kept("a-480x864", bytes) == bytes(100)  # used again, not made
    make("a-refine", 100, last_used=400)
    belonging = [
        f"{key}{end}" for key in ("a-480x864", "a-refine") for end in ("-0123456789ab.json", ".onnx", ".sha256")
    ]
    assert names(kept_here) == [*belonging, "not onemask's.txt"]


def test_nothing_goes_while_there_is_room(kept_here, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 300)
    for number in range(3):
        make(f"key{number}", 100, last_used=number)
    assert len(names(kept_here)) == 9


def test_a_graph_larger_than_the_folder_may_be_is_kept_alone(kept_here, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 50)
    make("old", 40, last_used=1)
    make("large", 100, last_used=2)
    assert names(kept_here) == ["large-0123456789ab.json", "large.onnx", "large.sha256"]


def test_a_graph_is_given_though_another_session_removes_files_meanwhile(kept_here, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 50)
    make("old", 40, last_used=1)
    plain = Path.stat

    def gone(path: Path, **options: bool) -> os.stat_result:
        if path.name == "old.onnx":
            path.unlink(missing_ok=True)
        return plain(path, **options)

    monkeypatch.setattr(Path, "stat", gone)
    assert cache.kept("new", lambda: bytes(100)) == bytes(100)
    assert cache.kept("new", bytes) == bytes(100)
