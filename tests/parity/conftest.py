"""Golden files of what the authors' code computes, and no methods of the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from golden_files import Golden


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The folder of $ONEMASK_PARITY, or what lies beside the repository."""
    beside = Path(__file__).parents[3] / "shared" / "golden" / "parity"
    folder = Path(os.environ.get("ONEMASK_PARITY", beside))
    if not (folder / "rule.json").is_file():
        pytest.skip(f"needs golden files in {folder} (or in $ONEMASK_PARITY)")
    return Golden(folder)
