"""The tiny dataset, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_training import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory, make_clip: Callable) -> Path:
    """A folder with `davis` (splits fit and dev) and `stills`."""
    return write_data(tmp_path_factory.mktemp("data"), make_clip)
