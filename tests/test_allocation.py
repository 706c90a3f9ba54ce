"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from onemask import cli, keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from onemask import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def frame():
    for megabytes in (40, 20, 50):
        np.ones(megabytes << 17)

frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at once")
def test_pages_are_asked_for_once():
    assert faults("kept") < faults("given back") / 10


def test_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_the_command_keeps_it(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(True))
    assert cli.main(["methods"]) == 0
    assert asked == [True]
