"""FRTM's table 4 by one command, on a tiny dataset in YouTube-VOS's layout."""

from __future__ import annotations

import json
import runpy
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_training import SIZE, TINY
from PIL import Image

from onemask.video.masks import write_mask

SCRIPT = Path(__file__).parents[2] / "benchmarks/frtm_training_data.py"
CATEGORIES = {"1": "dog", "2": "okapi"}  # seen in YouTube-VOS's training set, and not


def write_videos(root: Path, make_clip: Callable, names: list[str], annotated: int = 4) -> None:
    """Videos of four frames and two objects; annotated: frames with a label map."""
    for number, name in enumerate(names):
        clip = make_clip(4, 2, SIZE, seed=number)
        for folder in ("JPEGImages", "Annotations"):
            (root / folder / name).mkdir(parents=True)
        for time, (frame, labels) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
            Image.fromarray(frame).save(root / "JPEGImages" / name / f"{time:05}.jpg", quality=95)
            if time < annotated:
                write_mask(root / "Annotations" / name / f"{time:05}.png", labels)
    frames = [f"{time:05}" for time in range(4)]
    objects = {i: {"category": category, "frames": frames} for i, category in CATEGORIES.items()}
    meta = {"videos": {name: {"objects": objects} for name in names}}
    (root / "meta.json").write_text(json.dumps(meta))


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_clip) -> Path:
    """A folder with youtube-vos: six videos in train, of which four are jjtrain and one is jjvalid; one in valid."""
    data = tmp_path_factory.mktemp("table")
    root, names = data / "youtube-vos", [f"video{number}" for number in range(6)]
    write_videos(root / "train", make_clip, names)
    write_videos(root / "valid", make_clip, ["unknown"], annotated=1)
    (root / "ImageSets").mkdir()
    (root / "ImageSets/jjtrain.txt").write_text("\n".join(names[:4]))
    (root / "ImageSets/jjvalid.txt").write_text(names[4])
    return data


def asked(data: Path, out: Path, split: str) -> list[str]:
    """The command's arguments, with a tiny network and two steps."""
    small = {name: value for name, value in TINY.items() if name in ("backbone", "channels", "width", "first_samples")}
    recipe = [f"options.{name}={value}" for name, value in small.items()]
    recipe += ["stages.0.iterations=2", "stages.0.batch=1", f"stages.0.size=[{SIZE[0]},{SIZE[1]}]", "workers=0"]
    recipe += ["stages.0.data.0.options.minimum_pixels=20", "precision=float32", "options.first_iterations=[2]"]
    options = [f"{name}={value}" for name, value in small.items()]
    given = [str(data), "--out", str(out), "--split", split, "--size", "0"]
    for flag, values in (("--set", recipe), ("--option", [*options, "first_iterations=2", "update_every=0"])):
        given += [word for value in values for word in (flag, value)]
    return given


def test_rows_are_trained_on_parts_of_the_list_and_scored(videos, tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    main(asked(videos, tmp_path, "jjvalid"))
    lists = {share: (tmp_path / f"youtube-vos/ImageSets/jjtrain-{share}.txt").read_text().split() for share in (50, 25)}
    assert lists == {50: ["video0", "video2"], 25: ["video0"]}
    assert sorted(path.name for path in (videos / "youtube-vos/ImageSets").iterdir()) == ["jjtrain.txt", "jjvalid.txt"]
    header, _, *rows = (tmp_path / "table.md").read_text().splitlines()
    assert header == "| data | G | J-Seen | J-Unseen | F-Seen | F-Unseen |"
    assert [row.split(" | ")[0] for row in rows] == ["| 100%", "| 50%", "| 25%", "| D-only"]
    scores = json.loads((tmp_path / "evaluation-100/scores.json").read_text())["global"]
    assert rows[0].split(" | ")[1] == f"{100 * scores['G']:.1f}"
    with zipfile.ZipFile(tmp_path / "D-only.zip") as submission:
        assert all("video4" in name for name in submission.namelist())
    # What is there is not done again; of what is missing only that.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("training-*/*.safetensors")}
    shutil.rmtree(tmp_path / "evaluation-25")
    capsys.readouterr()
    main(asked(videos, tmp_path, "jjvalid"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("training-*/*.safetensors")} == before
    assert (tmp_path / "evaluation-25/scores.json").exists()
    assert rows[0] in capsys.readouterr().out


def test_without_annotations_there_are_zips_to_submit(videos, tmp_path, capsys):
    runpy.run_path(str(SCRIPT))["main"](asked(videos, tmp_path, "valid"))
    assert "submit the ZIPs" in capsys.readouterr().out
    assert not (tmp_path / "table.md").exists()
    for row in ("100", "50", "25", "D-only"):
        with zipfile.ZipFile(tmp_path / f"{row}.zip") as submission:
            assert len(submission.namelist()) == 4
