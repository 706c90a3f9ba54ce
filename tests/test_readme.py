"""What the README shows is run as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from onemask.cli import parser
from onemask.video.reader import open_video
from onemask.video.writer import VideoWriter

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def clip(tmp_path, monkeypatch) -> Path:
    """clip.mp4 in the working directory: a bright square that moves over noise."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 90, (96, 128, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    with VideoWriter("clip.mp4", 256, 192, 24) as video:
        for t in range(4):
            frame = noise.copy()
            frame[60:140, 40 + 8 * t : 120 + 8 * t] = (230, 200, 40)
            video.write(frame)
    return tmp_path / "clip.mp4"


def test_every_python_block_runs(clip):
    frames = [frame.image for frame in open_video(clip).frames()]
    label_map = np.zeros((192, 256), np.uint8)
    label_map[60:140, 40:120] = 7
    names = {"first_label_map": label_map, "first_frame": frames[0], "later_frames": frames[1:]}
    python = blocks("python")
    assert len(python) == 2
    for block in python:
        exec(block, names)
        last = names.pop("label_map")
        assert last.shape == (192, 256)
        assert set(np.unique(last)) == {0, 7}
    assert names["session"].objects == (7,)


def test_every_command_is_one_that_the_command_line_takes():
    commands = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
    ours = [shlex.split(command)[1:] for command in commands if command.startswith("onemask")]
    assert len(ours) >= 3
    for arguments in ours:
        assert callable(parser().parse_args(arguments).command)
