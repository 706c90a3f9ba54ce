import numpy as np
import pytest

from onemask.data.clip import ClipRequest
from onemask.data.layers import WAVES
from onemask.data.paths import Motion, draw_times
from onemask.data.sprites import Sprite

SIZE = (100, 200)
AMPLITUDES = (0.2, 0.1, 0.3, 0.2, 0.1, 0.1)
STANDING = np.zeros((6, 6))  # a path of three times


def motion(camera: float = 0.0, exposure: float = 0.0, bend: float = 0.02, seed: int = 0) -> Motion:
    times = np.array([0.3, 0.5, 0.1])
    return Motion(SIZE, times, AMPLITUDES, bend, camera, exposure, np.random.default_rng(seed))


def sprite(scale: float = 0.5) -> Sprite:
    return Sprite(np.full((40, 20, 4), 255, np.uint8), None, scale, (0.0, 0.0), (False,) * 4)


# Times ----------------------------------------------------------------------------------------------------------------


def test_frames_follow_one_another_one_to_max_skip_apart():
    steps = set()
    for seed in range(30):
        times = draw_times(ClipRequest(5, SIZE, 3), 40, np.random.default_rng(seed))
        assert times.shape == (5,)
        steps |= set(np.round(np.diff(times) * 40, 6))
    assert steps == {1, 2, 3}


def test_without_max_skip_frames_are_taken_in_any_order():
    steps = np.array([np.diff(draw_times(ClipRequest(2, SIZE), 40, np.random.default_rng(i)))[0] for i in range(40)])
    assert 0.25 < (steps > 0).mean() < 0.75
    assert np.abs(steps).max() > 0.5


# Paths ----------------------------------------------------------------------------------------------------------------


def test_a_path_begins_at_zero_and_keeps_to_its_amplitudes():
    paths = np.stack([motion(seed=seed).path() for seed in range(100)])
    assert paths.shape == (100, 6, 6)
    assert (paths[:, 0] == 0).all()
    assert (np.abs(paths).max(axis=(0, 1)) <= 2 * np.array(AMPLITUDES)).all()
    assert (np.abs(paths).max(axis=(0, 1)) > 0.8 * np.array(AMPLITUDES)).all()


def test_an_instant_later_a_thing_has_hardly_moved():
    paths = np.stack([motion(seed=seed).path() for seed in range(20)])
    assert np.abs(paths[:, 3:] - paths[:, :3]).max() < 0.1 * np.abs(paths).max()


# Layers ---------------------------------------------------------------------------------------------------------------


def at(pose: np.ndarray, x: float, y: float) -> np.ndarray:
    return pose @ np.array([x, y, 1.0])


def test_a_sprite_begins_where_it_is_anchored_at_its_scale():
    layer = motion(camera=1.0).placed(sprite(), np.array([70.0, 30.0]), motion().path(), 2)
    assert layer.object_id == 2
    assert layer.poses.shape == (3, 2, 3)
    assert at(layer.poses[0], 10, 20) == pytest.approx((70, 30))
    assert layer.poses[0, :, :2] == pytest.approx(0.5 * np.eye(2))


def test_a_path_shifts_by_short_sides_and_turns_about_the_middle():
    path = STANDING.copy()
    path[1] = [0.1, 0.2, np.pi / 2, np.log(2), 0, 0]
    layer = motion().placed(sprite(), np.array([70.0, 30.0]), path, 1)
    assert at(layer.poses[1], 10, 20) == pytest.approx((80, 50))
    assert at(layer.poses[1], 11, 20) == pytest.approx((80, 51))  # what was right is below, twice as far


def test_the_camera_moves_the_base_and_everything_of_the_scene_alike():
    moving = motion(camera=1.0)
    base = moving.base(np.zeros((300, 400, 3), np.uint8), None, 0.7, (200.0, 150.0))
    standing = moving.placed(sprite(), np.array([100.0, 50.0]), STANDING, 1)
    apart = moving.placed(sprite(), np.array([100.0, 50.0]), STANDING, 1, camera=False)
    assert at(base.poses[0], 200, 150) == pytest.approx((100, 50))
    for t in range(3):
        assert at(base.poses[t], 200, 150) == pytest.approx(at(standing.poses[t], 10, 20))
        assert at(apart.poses[t], 10, 20) == pytest.approx((100, 50))
    assert np.hypot(*(at(base.poses[1], 200, 150) - (100, 50))) > 1


def test_a_bending_is_none_at_first_and_grows_with_the_size_of_the_thing():
    small, large = (motion().placed(sprite(scale), np.zeros(2), STANDING, 1).bends for scale in (0.5, 1.0))
    assert small.shape == (3, 2, WAVES, WAVES)
    assert not small[0].any()
    assert small[1:, :, 0, 1:].any()
    assert not small[:, :, 0, 0].any()
    assert large == pytest.approx(2 * small)


def test_a_smear_is_the_way_during_the_exposure_as_long_as_it_is_short():
    path = STANDING.copy()
    path[3:, 0] = 0.001  # short sides in 0.01 paths: 10 pixels a path
    for exposure, expected in ((0.0, 0), (0.1, 1), (0.5, 5), (3.0, 6)):  # at most 0.06 of 100 pixels
        smears = motion(exposure=exposure).placed(sprite(), np.array([70.0, 30.0]), path, 1).smears
        assert smears == pytest.approx(np.array([[expected, 0]] * 3), abs=1e-6)


def test_a_push_says_where_pixels_come_from():
    path = STANDING.copy()
    path[1, 0] = 0.1  # 10 pixels of the frame to the right, 5 of a base at scale 2
    push = motion().push(np.ones((4, 4), np.float32), (1.0, 2.0), 2.0, path)
    assert push.middle == (1.0, 2.0)
    assert push.changes.shape == (3, 2, 3)
    assert not push.changes[0].any()
    assert push.changes[1] == pytest.approx(np.array([[0, 0, -5], [0, 0, 0]]))


def test_what_crosses_is_over_the_other_at_that_time_and_beside_it_at_first():
    moving, other = motion(), np.array([[50.0, 50], [60, 40], [70, 45]])
    away = np.array([30.0, -10])
    way = moving.across(other, away, moving.times[1])
    assert way.shape == (6, 2)
    assert way[0] == pytest.approx(other[0] + away)
    assert way[1] == pytest.approx(other[1])
