"""Damaged files of all kinds: read, or refused in one error."""

from __future__ import annotations

from itertools import islice

import pytest
from fuzzing import READERS, outcome, trials, write_seeds

EACH = 3  # damaged files of a kind; benchmarks/fuzz.py tries for an hour


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow warns of what it finds
def test_damaged_files_are_read_or_refused(tmp_path):
    write_seeds(tmp_path / "seeds")
    work = tmp_path / "work"
    work.mkdir()
    for name in READERS:
        assert outcome(work, name, (tmp_path / "seeds" / name).read_bytes()) == "read"
    damaged = islice(trials(tmp_path / "seeds"), EACH * len(READERS))
    found = [outcome(work, name, content) for _, name, content in damaged]
    assert set(found) == {"read", "refused"}
