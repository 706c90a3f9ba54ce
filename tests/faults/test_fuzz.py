"""Damaged files of all kinds: read, or refused in one error."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from fuzzing import READERS, outcome, trials, write_seeds

EACH = 300  # damaged files of a kind, always the same: a minute of a processor; benchmarks/fuzz.py tries for an hour


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow warns of what it finds
def test_damaged_files_are_read_or_refused(tmp_path):
    write_seeds(tmp_path / "seeds")
    work = tmp_path / "work"
    work.mkdir()
    for name in READERS:
        assert outcome(work, name, (tmp_path / "seeds" / name).read_bytes()) == "read"
    found = Counter()
    for number, name, content in islice(trials(tmp_path / "seeds"), EACH * len(READERS)):
        try:
            found[outcome(work, name, content)] += 1
        except Exception as error:
            raise AssertionError(f"see python benchmarks/fuzz.py --only {number}") from error
    assert min(found["read"], found["refused"]) > EACH
