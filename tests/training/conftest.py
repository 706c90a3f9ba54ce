"""The tiny dataset, made once, and weights of a tiny backbone to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from made_training import TINY, write_data
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def data(tmp_path_factory, make_clip: Callable) -> Path:
    """A folder with `davis` (splits fit and dev) and `stills`."""
    return write_data(tmp_path_factory.mktemp("data"), make_clip)


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A user's folder with weights of the backbone of TINY: random ones, but ready at once."""
    home, name = tmp_path_factory.mktemp("home"), TINY["backbone"]
    (home / "backbones").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(name).state_dict(), home / "backbones" / f"{name}.safetensors")
    return home


@pytest.fixture(scope="module", autouse=True)
def at_home(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEMASK_HOME", str(home))
        yield
