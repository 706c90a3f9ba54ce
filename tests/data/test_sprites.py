import numpy as np
import pytest

from onemask.data.sprites import cut_sprite, draw_blob, opaque_side, sprite_of_cutout, void_beside

SIZE = (120, 160)
RED, GREEN = (230, 20, 20), (20, 220, 20)


def disc(x: int = 80, y: int = 60, radius: int = 30) -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return np.hypot(columns - x, rows - y) < radius


def picture(mask: np.ndarray) -> np.ndarray:
    """A red thing before green."""
    return np.where(mask[..., None], RED, GREEN).astype(np.uint8)


def cut(mask: np.ndarray, scale: float = 1.0, void: np.ndarray | None = None):
    return cut_sprite(picture(mask), mask, void, scale, np.random.default_rng(0))


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 2.0])
def test_a_sprite_shows_its_thing_and_nothing_of_what_was_behind(scale):
    colours, alpha = np.split(cut(disc(), scale).picture.astype(float), [3], axis=2)
    seen = alpha[..., 0] > 127
    assert np.abs(colours[seen] / alpha[seen] * 255 - RED).max() < 60
    assert not alpha[0].any()
    assert not alpha[:, 0].any()


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 2.0])
def test_a_sprite_is_in_the_frame_as_large_as_the_scale_says(scale):
    sprite = cut(disc(), scale)
    diameter = 60 * scale
    assert opaque_side(sprite.picture) * sprite.scale == pytest.approx(diameter * np.sqrt(np.pi) / 2, rel=0.15)
    assert sprite.place == pytest.approx((80 * scale, 60 * scale), abs=scale)


def test_a_sprite_that_is_drawn_small_has_few_pixels():
    assert cut(disc(), 1.0).scale == 1.0
    small = cut(disc(), 0.25)
    assert 0.7 < small.scale < 1
    assert small.picture.shape[0] < 30


@pytest.mark.parametrize(
    ("middle", "touches"),
    [
        ((80, 60), (False, False, False, False)),
        ((10, 60), (True, False, False, False)),
        ((150, 110), (False, False, True, True)),
        ((80, 5), (False, True, False, False)),
    ],
)
def test_a_sprite_knows_where_its_picture_cut_it_off(middle, touches):
    assert cut(disc(*middle)).touches == touches


def test_only_the_void_along_its_border_goes_with_a_thing():
    assert cut(disc()).void is None
    ring = disc(radius=34) & ~disc()
    void = cut(disc(), void=ring | disc(5, 5, 5)).void
    assert void is not None
    assert np.count_nonzero(void) == pytest.approx(np.count_nonzero(ring), rel=0.02)
    assert cut(disc(), void=disc(5, 5, 5)).void is None


def test_void_beside_a_mask_is_what_is_in_reach():
    void = np.ones(SIZE, bool) & ~disc()
    beside = void_beside(disc(), void, 10)
    assert not beside[disc()].any()
    assert beside[disc(radius=38) & ~disc()].all()
    assert not beside[~disc(radius=42)].any()


def test_a_cutout_is_multiplied_by_its_alpha():
    cutout = np.full((40, 60, 4), (*RED, 128), np.uint8)
    sprite = sprite_of_cutout(cutout, 1.0)
    assert sprite.picture.shape == (44, 64, 4)
    assert np.abs(sprite.picture[22, 32].astype(int) - (*(c * 128 / 255 for c in RED), 128)).max() <= 1
    assert not sprite.picture[0].any()
    small = sprite_of_cutout(cutout, 0.25)
    assert small.scale * (small.picture.shape[1] - 4) == pytest.approx(15, abs=0.5)


def test_blobs_are_of_many_shapes_within_the_picture():
    blobs = [draw_blob(SIZE, np.random.default_rng(seed)) for seed in range(20)]
    assert all(blob.shape == SIZE and blob.dtype == bool for blob in blobs)
    assert all(0.05 < blob.mean() < 0.6 for blob in blobs)
    assert len({blob.tobytes() for blob in blobs}) == 20


def test_a_smooth_blob_is_an_ellipse():
    for seed in range(5):
        blob = draw_blob(SIZE, np.random.default_rng(seed), smooth=True)
        rows, columns = np.nonzero(blob)
        axes = np.ptp(columns) + 1, np.ptp(rows) + 1
        if min(columns.min(), rows.min()) > 0 and columns.max() < SIZE[1] - 1 and rows.max() < SIZE[0] - 1:
            assert blob.sum() == pytest.approx(np.pi / 4 * axes[0] * axes[1], rel=0.08)
