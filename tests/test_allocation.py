"""Freed memory stays with the process."""

from __future__ import annotations

import multiprocessing
import platform
import subprocess
import sys

import pytest

from onemask import cli, keep_freed_memory
from onemask.studio import bench
from onemask.video.sample import sample_clip

FAULTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from onemask import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def frame():
    for megabytes in (40, 20, 50):
        np.ones(megabytes << 17)

call = (lambda do: do()) if sys.argv[2] == "first" else (lambda do: ThreadPoolExecutor(1).submit(do).result())
call(frame)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    call(frame)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, thread: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS, how, thread], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at once")
@pytest.mark.parametrize("thread", ["first", "another"])
def test_pages_are_asked_for_once(thread):
    assert faults("kept", thread) < faults("given back", thread) / 10


def test_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_the_command_keeps_it(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(True))
    assert cli.main(["methods"]) == 0
    assert asked == [True]


def test_the_studios_process_keeps_it(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "keep_freed_memory", lambda: asked.append(True))
    monkeypatch.setattr(bench.signal, "signal", lambda *ignored: None)
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    bench.work(theirs, sample_clip().path)
    assert asked == [True]
