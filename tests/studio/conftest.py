"""A small project that tests share the making of: a tiny clip, and the smallest method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the studio needs the extra [studio]")

from onemask.studio.desk import Desk
from onemask.studio.opening import Studio
from onemask.studio.project import MethodChoice, Project
from onemask.studio.recent import RecentProjects
from onemask.testing import KnownClip, moving_shapes

FRAMES = 8
TOKEN = "a-token-for-the-tests"


@pytest.fixture(scope="session")
def clip() -> KnownClip:
    return moving_shapes(FRAMES)


@pytest.fixture(scope="session")
def folder_of_frames(clip, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "shapes"
    folder.mkdir()
    for index, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="session")
def video_file(clip, tmp_path_factory) -> Path:
    """The first frames of the clip as MP4, with colours changed."""
    path = tmp_path_factory.mktemp("video") / "moving.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"g": "2", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in clip.frames[:5]:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[..., ::-1]))))
        file.mux(stream.encode())
    return path


@pytest.fixture
def project(folder_of_frames, tmp_path, stub) -> Project:
    return Project.open(tmp_path / "shapes.studio", folder_of_frames, MethodChoice(stub))


@pytest.fixture
def reopen(project) -> Callable[[], Project]:
    return lambda: Project.open(project.folder, None, MethodChoice("another"))


@pytest.fixture
def desk(project) -> Iterator[Desk]:
    desk = Desk(project)
    yield desk
    desk.close()


@pytest.fixture
def studio(desk, tmp_path) -> Iterator[Studio]:
    studio = Studio(desk, recent=RecentProjects(tmp_path / "recent.json"))
    yield studio
    studio.close()


def square(shape: tuple[int, int], top: int, left: int, side: int = 16, object_id: int = 1) -> np.ndarray:
    label_map = np.zeros(shape, np.uint8)
    label_map[top : top + side, left : left + side] = object_id
    return label_map


def until(true: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
