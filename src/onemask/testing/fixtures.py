"""The method under test, and measures for its label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ..methods.method import Method
from ..session import Session
from .known_clip import KnownClip, moving_shapes

FOUND = 0.3  # IoU; objects cover a tenth of a frame, which is about what chance would give


@dataclass(frozen=True)
class Candidate:
    """A small method under test, and the properties to expect of it."""

    build: Callable[[], Method]
    follows: bool = False  # finds objects without training; masks of an untrained network are wrong
    trains: bool = True  # offline, by gradients through the four calls
    competes: bool = False  # objects of a frame affect each other before the label map is made


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., KnownClip]:
    return moving_shapes


@pytest.fixture(scope="module")
def method(candidate: Candidate) -> Method:
    """The method under test, in evaluation mode."""
    torch.manual_seed(0)
    return candidate.build().eval()


@pytest.fixture
def follows(candidate: Candidate) -> bool:
    """Whether the method finds objects without training."""
    return candidate.follows


@pytest.fixture
def session(method: Method) -> Session:
    """A session of the method on the CPU."""
    return Session(method, device="cpu")


def worst_iou(found: np.ndarray, wanted: np.ndarray, ids: Sequence[int] | None = None) -> float:
    """The smallest IoU of these objects; None: of all objects that should be there."""
    pairs = [(found == i, wanted == i) for i in (ids or np.unique(wanted[wanted > 0]))]
    return min(float((a & b).sum() / (a | b).sum()) for a, b in pairs)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Share of pixels with the same label; the others may be due to rounding."""
    assert a.shape == b.shape
    return float((a == b).mean())


def assert_sound(session: Session, label_map: np.ndarray, frame: np.ndarray) -> None:
    """Assert that a label map has the frame's size, known objects only, and the likeliest label in every pixel."""
    assert label_map.shape == frame.shape[:2]
    assert label_map.dtype == np.uint8
    assert set(np.unique(label_map)) <= {0, *session.objects}
    probabilities = session.probabilities
    assert tuple(probabilities) == (0, *session.objects)
    maps = np.stack(list(probabilities.values()))
    assert maps.shape == (1 + len(session.objects), *frame.shape[:2])
    assert np.allclose(maps.sum(0), 1, atol=1e-3)
    assert (maps >= 0).all()


def follow(session: Session, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    label_maps = []
    for frame in frames:
        label_maps.append(session.step(frame))
        assert_sound(session, label_maps[-1], frame)
    return label_maps
