"""What the tests share: a synthetic clip, the smallest methods, and the data beside the repository."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("onemask.testing")

from onemask import plugins  # noqa: E402
from onemask.methods.frtm import FRTMConfig  # noqa: E402
from onemask.methods.frtm.model import FRTM  # noqa: E402
from onemask.testing import KnownClip, make_clip, moving_shapes  # noqa: E402, F401 - for tests to import, and a fixture

os.environ["ONEMASK_CONFIG"] = ""  # no defaults of whose machine this is
os.environ["ONEMASK_RUNTIME"] = "torch"  # what auto stands for: nothing is timed, or kept in the user's folders
torch.set_num_threads(1)  # on maps this small, threads only wait for each other

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Datasets and golden files, which are too large for the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data in {SHARED}")
    return SHARED


# The smallest methods -------------------------------------------------------------------------------------------------


def tiny_frtm(*, pretrained: bool = False, seed: int = 0, **options: object) -> FRTM:
    """FRTM on timm's own test network: a frame of 64x96 takes milliseconds."""
    torch.manual_seed(seed)
    tiny = {"backbone": "test_efficientnet", "channels": 8, "width": 8, "capacity": 8, "first_samples": 2}
    tiny |= {"first_iterations": (4, 4), "first_last_iterations": 4}
    return FRTMConfig(**{**tiny, **options}).build(pretrained=pretrained)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_frtm() -> Callable[..., FRTM]:
    return tiny_frtm


PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """The name of a method that an installed package brings: see plugin/stub.py."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(PLUGIN)
        patched.setenv("PYTHONPATH", f"{PLUGIN}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # for processes
        plugins.points.cache_clear()
        yield "stub"
    plugins.points.cache_clear()


# Weights --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folders:
    """Where weights are found."""

    package: Path
    user: Path


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Folders:
    """Empty folders of weights, in place of the package's and the user's."""
    monkeypatch.setattr("onemask.weights.store.PACKAGE", tmp_path / "package")
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path / "home"))
    return Folders(tmp_path / "package", tmp_path / "home" / "weights")
