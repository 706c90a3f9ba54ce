import numpy as np
import pytest

from onemask.data import photometry
from onemask.data.photometry import blur_along, degrade, jitter_colours, motion_blur

CHANGES = [
    photometry.jitter_colours,
    photometry.defocus,
    photometry.lose_resolution,
    photometry.sensor_noise,
    photometry.jpeg_noise,
]


def scene(frames: int = 3, size: tuple[int, int] = (240, 320), seed: int = 0) -> np.ndarray:
    """The same frame several times: stripes, a ramp and noise."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(60, 190, (*size, 3))
    frame[:, : size[1] // 2] = np.linspace(40, 200, size[0])[:, None, None]
    return np.repeat(frame[None].astype(np.uint8), frames, axis=0)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_another_array_and_the_same_for_the_same_generator(change):
    frames = scene()
    before = frames.copy()
    changed = change(frames, np.random.default_rng(1))
    assert (changed.shape, changed.dtype) == (frames.shape, np.uint8)
    assert (frames == before).all()
    assert difference(changed, frames) > 0.2
    assert (changed == change(frames, np.random.default_rng(1))).all()
    assert (changed != change(frames, np.random.default_rng(2))).any()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_frames_of_a_clip_are_changed_alike(change):
    for seed in range(5):
        changed = change(scene(), np.random.default_rng(seed)).astype(float)
        assert abs(changed.mean(axis=(1, 2, 3)) - changed.mean()).max() < 12


def test_colours_stay_with_strength_zero():
    frames = scene()
    assert (jitter_colours(frames, np.random.default_rng(0), strength=0) == frames).all()


def test_colours_change_more_with_more_strength():
    frames = scene()
    weak, strong = (
        np.mean([difference(jitter_colours(frames, np.random.default_rng(i), s), frames) for i in range(20)])
        for s in (0.2, 1.0)
    )
    assert 0 < 2 * weak < strong


def test_grey_stays_nearly_grey():
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (8, 1))[None, ..., None], 3, axis=3)
    for seed in range(10):
        changed = jitter_colours(ramp, np.random.default_rng(seed)).astype(int)
        assert (changed.max(axis=-1) - changed.min(axis=-1)).max() <= 50  # white balance alone


def test_brightness_keeps_its_order():
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (8, 1))[None, ..., None], 3, axis=3)
    for seed in range(10):
        changed = jitter_colours(ramp, np.random.default_rng(seed)).astype(int)
        assert (np.diff(changed, axis=2) >= 0).all()


def test_a_clip_is_rarely_made_grey():
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 150
    spreads = [np.ptp(jitter_colours(red, np.random.default_rng(i))[0, 0, 0].astype(int)) for i in range(400)]
    assert 1 <= sum(spread < 30 for spread in spreads) <= 40


def test_motion_below_a_pixel_blurs_nothing():
    image = scene()[0]
    assert (blur_along(image, (0.4, 0.4)) == image).all()


def test_blur_smears_along_the_motion_and_is_centred_on_the_place():
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    smeared = blur_along(point, (9.0, 0.0))
    rows, columns = np.nonzero(smeared > 0.05)
    assert set(rows) == {20}
    assert (columns.min(), columns.max()) == (16, 24)
    assert smeared.sum() == pytest.approx(1, abs=1e-4)
    assert (smeared[20] * np.arange(41)).sum() == pytest.approx(20, abs=0.01)


def test_blur_runs_in_the_direction_of_the_motion():
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    rows, columns = np.nonzero(blur_along(point, (6.0, 6.0)) > 0.05)
    assert (abs(rows - columns) <= 1).all()
    assert np.ptp(rows) >= 5


def test_a_moving_object_smears_over_its_surroundings_and_nothing_else_is_blurred():
    image = scene(size=(240, 320))[0]
    mask = np.zeros((240, 320), bool)
    mask[100:140, 100:160] = True
    image[mask] = (255, 0, 0)
    image[~mask, 0] = 0
    blurred = motion_blur(image, mask, np.random.default_rng(4))
    far = np.ones_like(mask)
    far[88:152, 88:172] = False
    assert (blurred[far] == image[far]).all()
    assert (blurred[105:135, 107:153] == (255, 0, 0)).mean() > 0.95
    beside = ~mask & ~far
    assert (blurred[beside, 0] > 20).mean() > 0.02


def test_camera_motion_blurs_everything():
    image = scene()[0]
    blurred = motion_blur(image, None, np.random.default_rng(0))
    assert blurred.shape == image.shape
    assert blurred.std() < 0.95 * image.std()


def test_sensor_noise_is_new_in_every_frame_and_brings_no_light():
    frames = np.full((2, 120, 160, 3), 128, np.uint8)
    for seed in range(5):
        noise = photometry.sensor_noise(frames, np.random.default_rng(seed)).astype(float) - 128
        assert abs(noise.mean()) < 0.2
        assert 0.8 < noise.std() < 9
        assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_degrading_leaves_about_a_third_as_it_is():
    frames = scene()
    same = [(degrade(frames, np.random.default_rng(i)) == frames).all() for i in range(200)]
    assert 0.2 < np.mean(same) < 0.5


def test_degrading_keeps_the_picture():
    frames = np.repeat(np.repeat(scene(size=(24, 40)), 8, axis=1), 8, axis=2)
    for seed in range(30):
        degraded = degrade(frames, np.random.default_rng(seed))
        assert (degraded.shape, degraded.dtype) == (frames.shape, np.uint8)
        assert np.corrcoef(degraded.ravel(), frames.ravel())[0, 1] > 0.6
