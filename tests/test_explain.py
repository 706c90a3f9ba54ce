"""The picture of what a method goes by."""

import numpy as np
import pytest
from PIL import Image

from onemask.cli import main
from onemask.errors import InputError
from onemask.explaining import CELL, Explained, explain, grid
from onemask.settings import Settings
from onemask.video.images import ArraySequence
from onemask.video.masks import write_mask

SETTINGS = Settings(
    "frtm-lite", {"target_only": True, "channels": 16, "first_samples": 2, "capacity": 4}, short_side=64, device="cpu"
)


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(7, objects=2)


def test_columns_are_frames_and_rows_what_was_matched(clip, tmp_path):
    explain(ArraySequence(clip.frames), {1: clip.label_maps[1]}, tmp_path / "grid.png", SETTINGS, frames=3)
    picture = np.asarray(Image.open(tmp_path / "grid.png"))
    rows = 3  # the frame, the target model's score, refined
    height = round(CELL * clip.frames[0].shape[0] / clip.frames[0].shape[1])
    assert picture.shape[1] // CELL == 3
    assert rows * height < picture.shape[0] < (rows + 1) * height


def test_another_object_makes_another_picture(clip, tmp_path):
    for object_id in (1, 2):
        path = tmp_path / f"{object_id}.png"
        explain(ArraySequence(clip.frames), {0: clip.label_maps[0]}, path, SETTINGS, object_id=object_id, frames=2)
    one, two = (np.asarray(Image.open(tmp_path / f"{i}.png")) for i in (1, 2))
    assert one.shape == two.shape
    assert not np.array_equal(one, two)


def test_numbers_stand_below_and_a_frame_without_diagnostics_has_an_empty_cell():
    picture = np.full((30, 40, 3), 200, np.uint8)
    seen = [Explained(0, picture, {}), Explained(5, picture, {"match": np.eye(4, dtype=np.float32), "weight": 0.25})]
    whole = grid(seen)
    alone = grid([Explained(5, picture, {"weight": 0.25})])
    assert whole.shape[0] > 1.8 * alone.shape[0]
    below = whole[whole.shape[0] // 2 :]
    left, right = below[:, : CELL - 20], below[:, CELL + 40 :]
    assert (left[:150] < 60).all()  # nothing
    assert len(np.unique(right.reshape(-1, 3), axis=0)) > 2  # viridis


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"object_id": 7}, "has the objects 1, 2, not 7"),
        ({"object_id": "1"}, "an object's id must be a whole number, such as 1; got '1'"),
        ({"frames": 1}, "frames must be 2 or more"),
        ({"annotate": 6}, "there is no frame after frame 6"),
    ],
)
def test_what_cannot_be_explained_is_said(clip, tmp_path, options, message):
    annotate = options.pop("annotate", 0)
    with pytest.raises(InputError, match=message):
        explain(
            ArraySequence(clip.frames),
            {annotate: clip.label_maps[annotate]},
            tmp_path / "grid.png",
            SETTINGS,
            **options,
        )
    assert not (tmp_path / "grid.png").exists()


def test_the_command(clip, tmp_path, capsys):
    for index, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    write_mask(tmp_path / "masks" / "first.png", clip.label_maps[0])
    options = [f"--set={name}={value}" for name, value in SETTINGS.options.items()]
    command = ["explain", str(tmp_path), "--mask", str(tmp_path / "masks" / "first.png"), "--size=64", "--device=cpu"]
    command += [
        "--method",
        SETTINGS.method,
        "--out",
        str(tmp_path / "out" / "grid.png"),
        "--object=2",
        "--frames=3",
        *options,
    ]
    assert main(command) == 0
    assert Image.open(tmp_path / "out" / "grid.png").size[0] > 3 * CELL
    assert "grid.png" in capsys.readouterr().out
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
