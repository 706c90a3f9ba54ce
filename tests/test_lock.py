"""Who holds a folder, and when a lock is void."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from onemask import lock
from onemask.errors import OutputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / ".onemask" / "lock"


def left_by(holder, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(holder)))
    return path


def test_a_process_that_holds_a_folder_is_named(path):
    with lock.held(path):
        for take in (lock.refuse_held, lambda path: lock.held(path).__enter__()):
            with pytest.raises(OutputError, match=rf"out has been in use by process {os.getpid()} on .*; wait until"):
                take(path)
    assert list(path.parent.iterdir()) == []


def test_a_lock_of_a_process_that_has_ended_is_void(path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left_by(replace(lock.Holder.this(), pid=ended.pid), path)
    lock.refuse_held(path)
    with lock.held(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the system does not say when a process began")
def test_a_later_process_of_the_same_number_holds_nothing(path):
    lock.refuse_held(left_by(replace(lock.Holder.this(), started="1"), path))


def test_of_another_host_it_is_not_known(path):
    left_by(replace(lock.Holder.this(), host="elsewhere", pid=1), path)
    with pytest.raises(OutputError, match=r"process 1 on elsewhere .*; if that process is gone, delete .*lock"):
        lock.refuse_held(path)


NO_NUMBER = b'{"pid": "x", "host": "a", "started": "", "since": ""}'


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", NO_NUMBER])
def test_a_damaged_lock_is_void(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with lock.held(path):
        lock.refuse_held(path.with_name("another"))
