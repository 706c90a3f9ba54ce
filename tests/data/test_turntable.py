"""Things on a turntable: rings of views, the view nearest to an angle, and clips in which things turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.data.clip import ClipRequest
from onemask.data.sources import SourceConfig, open_source
from onemask.data.turntable import Turntable
from onemask.errors import InputError

AZIMUTHS = range(0, 360, 45)


def view(path: Path, colour: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, (colour, 255 - colour, 128, 255)).save(path)


@pytest.fixture
def root(tmp_path):
    """A cup seen from eight sides in a ring, each of a colour and size of its own, and from above."""
    for n, azimuth in enumerate(AZIMUTHS):
        view(tmp_path / "table/cup" / f"090-{azimuth:03}.png", 30 * n, (24 + 2 * n, 20 + n))
    view(tmp_path / "table/cup/000-000.png", 0, (8, 8))
    return tmp_path


def test_only_whole_rings_turn(root):
    assert Turntable(root / "table").things == ("cup",)
    (root / "table/cup/090-045.png").unlink()
    with pytest.raises(InputError, match="no object with 8 views at one elevation"):
        Turntable(root / "table")


def test_the_nearest_view_is_shown_in_the_middle_of_pictures_of_one_size(root):
    views = Turntable(root / "table").read(0, np.array([0, 44, 350, -46, 23]))
    assert [int(v[..., 0].max()) for v in views] == [0, 30, 0, 210, 30]
    assert {v.shape for v in views} == {(27, 38, 4)}
    rows, columns = np.nonzero(views[0][..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 22, 7, 30)


@pytest.fixture
def clips(root):
    """Clips of a grey photograph over which the cup turns."""
    for folder in ("images", "masks"):
        (root / "stills" / folder).mkdir(parents=True)
    Image.new("RGB", (160, 120), "grey").save(root / "stills/images/a.png")
    Image.new("L", (160, 120)).save(root / "stills/masks/a.png")

    def made(**options):
        config = SourceConfig(kind="stills", root="stills", turntable="table", options={"turning": 1.0, **options})
        return open_source(config, root)

    return made


def test_a_thing_turns_in_a_clip(clips):
    options = {"distractors": (1.0,), "occluder": 0.0, "degraded": 0.0, "colours": 0.0, "texture_as_object": 0.0}
    request = ClipRequest(size=(96, 128), length=6, max_skip=7, max_objects=1)
    seen = set()
    for seed in range(3):
        clip = clips(**options).clip(0, request, np.random.default_rng(seed))
        assert clip.objects == 1
        of_clip = {
            tuple(np.median(f[m == 1], 0).astype(int) // 8)
            for f, m in zip(clip.frames, clip.labels, strict=True)
            if m.any()
        }
        seen.add(len(of_clip))
    assert max(seen) > 1  # other sides have other colours
    still = clips(**options, turns=0.0).clip(0, request, np.random.default_rng(0))
    colours = [np.median(f[m == 1], 0) for f, m in zip(still.frames, still.labels, strict=True) if m.any()]
    assert np.ptp(colours, axis=0).max() <= 2


def test_turning_needs_a_turntable_and_a_turntable_needs_stills(root, clips):
    clips()
    with pytest.raises(InputError, match="no turntable is given"):
        open_source(SourceConfig(kind="stills", root="stills", options={"turning": 0.5}), root)
    with pytest.raises(InputError, match="move over stills"):
        open_source(SourceConfig(kind="folders", root="stills", turntable="table"), root)
