"""Each call that changes the disk fails once; what is on disk is whole, and --resume mends the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from disk import Disk, Killed
from safetensors import safe_open

from onemask import Session
from onemask.errors import OutputError
from onemask.evaluation.evaluate import evaluate
from onemask.jobs.running import run
from onemask.settings import Settings
from onemask.video.masks import read_label_map, write_mask
from onemask.video.reader import open_video
from videos import Scene, Still, write_images

KINDS = ("refused", "full", "killed")
SETTINGS = Settings(method="stub", short_side=64, device="cpu")
FRAMES = 3
TRAININGS = 4  # of so many calls one fails, in one of the three ways; 1: all, which takes half a minute

pytestmark = pytest.mark.usefixtures("stub")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=FRAMES, height=48, width=64, ids=(1, 7))


@pytest.fixture(scope="module")
def root(scene, tmp_path_factory) -> Path:
    """A dataset in DAVIS layout with one sequence."""
    root = tmp_path_factory.mktemp("davis")
    write_images(root / "JPEGImages" / "480p" / "one", scene.images)
    for index, label_map in enumerate(scene.labels):
        write_mask(root / "Annotations" / "480p" / "one" / f"{index:05d}.png", label_map)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("one\n")
    return root


@pytest.fixture(autouse=True)
def checkpoint_after_every_frame(monkeypatch):
    monkeypatch.setattr("onemask.jobs.running.CHECKPOINT_SECONDS", 0.0)


def results(out: Path) -> dict[str, bytes]:
    """What is the same however often the work was interrupted."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix in (".png", ".csv") and ".onemask" not in path.parts
    }


def refuse_half(out: Path) -> None:
    """Fail if a file stands half-written under its own name."""
    for path in out.rglob("*") if out.exists() else ():
        if ".partial." in path.name or not path.is_file():
            continue
        if path.suffix == ".png":
            read_label_map(path) if "masks" in path.parts[-2] else path.read_bytes()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass


def asked(out: Path) -> dict:
    return json.loads((out / ".onemask" / "asked.json").read_text())


def temporaries(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*") if ".partial" in path.name]


def every_call_fails(
    kind: str,
    folder: Path,
    work: Callable[[Path, bool], object],
    results: Callable[[Path], object] = results,
    calls: Iterable[int] = count(1),
) -> int:
    """Let each of `calls` of `work` (folder, whether to resume) fail in turn; how many there are."""
    work(folder / "whole", False)
    whole = results(folder / "whole")
    for at in calls:
        out, disk = folder / str(at), Disk(at, kind)
        try:
            with disk.used():
                work(out, False)
        except (OutputError, Killed):
            assert disk.struck
        if not disk.struck:
            assert results(out) == whole
            return at
        refuse_half(out)
        work(out, True)
        assert results(out) == whole, f"call {at}"
        assert temporaries(out) == [], f"call {at}"
        assert not (out / ".onemask" / "lock").exists()
    raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(scene, tmp_path, kind):
    annotations = {0: scene.labels[0]}

    def work(out: Path, resume: bool) -> None:
        run(open_video(scene.images), annotations, out, SETTINGS, save=["masks"], resume=resume)

    assert every_call_fails(kind, tmp_path, work) > 30


@pytest.mark.parametrize("kind", ["full", "killed"])
def test_a_run_that_overwrites_another(scene, tmp_path, kind):
    """The earlier results are there, whole, until the new ones are."""
    video, annotations = open_video(scene.images), {0: scene.labels[0]}
    earlier = {0: scene.labels[0] * (scene.labels[0] == 1)}
    run(video, annotations, tmp_path / "whole", SETTINGS, save=["masks"])
    whole = results(tmp_path / "whole")
    for at in count(1, 2):
        out, disk = tmp_path / str(at), Disk(at, kind)
        run(video, earlier, out, SETTINGS, save=["masks"])
        before = results(out)
        try:
            with disk.used():
                run(video, annotations, out, SETTINGS, save=["masks"], overwrite=True)
        except (OutputError, Killed):
            assert disk.struck
        if not disk.struck:
            assert results(out) == whole
            break
        refuse_half(out)
        masks = {name: mask for name, mask in results(out).items() if name.startswith("masks/")}
        waiting = {path.name for path in (out / "masks.partial").glob("[!.]*.png")}
        assert masks in (before, whole) or waiting == {Path(name).name for name in whole}
        begun = asked(out) == asked(tmp_path / "whole")
        assert begun or masks == before
        run(video, annotations, out, SETTINGS, save=["masks"], resume=begun, overwrite=not begun)
        assert results(out) == whole, f"call {at}"
        assert temporaries(out) == [], f"call {at}"
    assert at > 30


@pytest.mark.parametrize("kind", ["full", "killed"])
def test_an_evaluation(root, tmp_path, kind):
    def work(out: Path, resume: bool) -> None:
        evaluate(root, out, SETTINGS, protocol="davis2017", resume=resume)

    assert every_call_fails(kind, tmp_path, work) > 30


def weights_and_losses(out: Path) -> dict[str, object]:
    weights = {path.name: path.read_bytes() for path in sorted(out.glob("*.safetensors"))}
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return weights | {"losses": [(line["step"], line["loss"]) for line in lines if "loss" in line]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training(root, tmp_path, monkeypatch, kind):
    """A training of two steps, with a checkpoint after each."""
    pytest.importorskip("lightning_fabric")
    from onemask.training.recipe import read_recipe
    from onemask.training.train import Hardware, train

    source = {"kind": "davis2017", "root": ".", "split": "val", "options": {"minimum_pixels": 20}}
    sizes = {"size": [32, 48], "length": 2, "max_objects": 1, "batch": 1, "iterations": 2}
    stage = {"name": "main", "data": [source], **sizes, "optimiser": {"lr": 0.001}}
    recipe = {"method": "stub", "workers": 0, "checkpoint_every": 1, "stages": [stage]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))

    def work(out: Path, resume: bool) -> None:
        train(read_recipe(tmp_path / "recipe.yaml"), out, data=root, hardware=Hardware("cpu"), resume=resume)

    monkeypatch.setattr("onemask.training.train.commit", lambda: "none")  # asks git
    calls = count(1 + TRAININGS * KINDS.index(kind), TRAININGS * len(KINDS))
    assert every_call_fails(kind, tmp_path, work, weights_and_losses, calls) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_session(scene, tmp_path, kind):
    """After a failure the file of the earlier session is there, whole."""
    session, path = Session(Still(), short_side=None), tmp_path / "session.safetensors"
    session.annotate(scene.images[0], scene.labels[0])
    session.save(path)
    before = path.read_bytes()
    session.step(scene.images[1])
    for at in count(1):
        disk = Disk(at, kind)
        try:
            with disk.used():
                session.save(path)
        except (OutputError, Killed):
            assert disk.struck
        restored = Session.restore(path, Still())
        assert set(restored.objects) == {1, 7}
        if not disk.struck:
            break
        path.write_bytes(before)
    assert at > 2
    expected = session.step(scene.images[2])
    assert np.array_equal(restored.step(scene.images[2]), expected)
