from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from made_videos import SIZE, picture, times, two_squares, write_frames, write_masks
from PIL import Image

from onemask.data.clip import VOID, Clip, ClipRequest
from onemask.data.davis import DavisDataset
from onemask.data.mixture import Mixture
from onemask.data.sampling import VideoClips, draw_places, objects_of
from onemask.data.sampling_options import SamplingConfig
from onemask.data.sequence import VideoSequence
from onemask.errors import InputError

AS_IT_IS = SamplingConfig(
    flip=0, scale=(1, 1), rotation=0, shear=0, drift=0, colour=0, reverse=0, minimum_pixels=4, kept=0.75
)
WILD = SamplingConfig(colour=0, minimum_pixels=4, drift=0, rotation=15, shear=10)
ANY = ClipRequest(length=3, size=SIZE, max_objects=2)


@pytest.fixture
def make_video(tmp_path):
    """A video of label maps; `annotated` are the frames that have a mask."""

    def make(label_maps, annotated=None, name="squares", suffix=".png", **options) -> VideoSequence:
        frames = write_frames(tmp_path / "frames" / name, label_maps, suffix)
        annotated = range(len(frames)) if annotated is None else annotated
        masks = write_masks(tmp_path / "masks" / name, {i: label_maps[i] for i in annotated})
        by_stem = {path.stem: path for path in masks}
        return VideoSequence(name, tuple(frames), tuple(by_stem.get(path.stem) for path in frames), **options)

    return make


@pytest.fixture
def video(make_video) -> VideoSequence:
    return make_video([two_squares(time) for time in range(12)])


def draws(source: VideoClips, request: ClipRequest = ANY, count: int = 40) -> list[Clip]:
    return [source.clip(0, request, np.random.default_rng(seed)) for seed in range(count)]


def same(one: Clip, other: Clip) -> bool:
    return one.name == other.name and (one.frames == other.frames).all() and (one.labels == other.labels).all()


# What a clip is -------------------------------------------------------------------------------------------------------


def test_a_clip_as_it_is_holds_the_pixels_of_the_files(video):
    clip = VideoClips([video], AS_IT_IS).clip(0, ANY, np.random.default_rng(0))
    assert (clip.name, clip.objects) == ("squares", 2)
    assert clip.frames.dtype == clip.labels.dtype == np.uint8
    for time, frame, labels in zip(times(clip.frames), clip.frames, clip.labels, strict=True):
        assert (labels == two_squares(time)).all()
        assert (frame == picture(labels, time)).all()


def test_one_generator_state_gives_one_clip(video):
    source = VideoClips([video], SamplingConfig(minimum_pixels=4))
    clips = draws(source, count=6)
    assert all(same(one, other) for one, other in zip(clips, draws(source, count=6), strict=True))
    assert not any(same(clips[0], other) for other in clips[1:])


def test_any_request_size_is_met_exactly(video):
    for size in ((30, 90), (90, 30), (65, 63)):
        for clip in draws(VideoClips([video], WILD), replace(ANY, size=size), 5):
            assert clip.frames.shape == (3, *size, 3)
            assert clip.labels.shape == (3, *size)


# Which frames ---------------------------------------------------------------------------------------------------------


def test_frames_in_any_order_are_distinct_and_go_both_ways(video):
    orders = [times(clip.frames) for clip in draws(VideoClips([video], AS_IT_IS), count=120)]
    assert all(len(set(order)) == 3 for order in orders)
    distances = {order[1] - order[0] for order in orders}
    assert min(distances) <= -9
    assert max(distances) >= 9
    assert any(order[0] < order[2] < order[1] for order in orders)


@pytest.mark.parametrize(("reverse", "signs"), [(0.0, {1}), (1.0, {-1}), (0.5, {1, -1})])
def test_frames_in_order_keep_the_skip(video, reverse, signs):
    source = VideoClips([video], replace(AS_IT_IS, reverse=reverse))
    steps = [np.diff(times(clip.frames)) for clip in draws(source, replace(ANY, max_skip=3), 80)]
    assert all((np.sign(step) == np.sign(step[0])).all() for step in steps)
    assert {int(np.sign(step[0])) for step in steps} == signs
    assert {abs(int(s)) for step in steps for s in step} == {1, 2, 3}


def test_neighbours_are_drawn_alike():
    places = np.array([draw_places(40, 4, 9, 0, np.random.default_rng(seed)) for seed in range(600)])
    means = np.diff(places).mean(axis=0)
    assert np.abs(means - 5).max() < 0.5
    assert places.min() == 0
    assert places.max() == 39


def test_skips_are_counted_in_annotated_frames(make_video):
    video = make_video([two_squares(time) for time in range(21)], annotated=range(0, 21, 5))
    clips = draws(VideoClips([video], AS_IT_IS), replace(ANY, length=2, max_skip=2))
    assert {times(clip.frames)[1] - times(clip.frames)[0] for clip in clips} == {5, 10}


def test_a_short_video_shows_every_frame_before_one_comes_again(make_video):
    video = make_video([two_squares(time) for time in range(4)])
    for clip in draws(VideoClips([video], AS_IT_IS), replace(ANY, length=7), 10):
        assert set(times(clip.frames)[:4]) == {0, 1, 2, 3}
        assert len(set(times(clip.frames)[4:])) == 3


def test_a_short_video_in_order_turns_back_at_its_ends():
    rng = np.random.default_rng(0)
    assert draw_places(3, 7, 5, 0, rng) == [0, 1, 2, 1, 0, 1, 2]
    assert draw_places(3, 7, 5, 1, rng) == [2, 1, 0, 1, 2, 1, 0]
    assert draw_places(2, 5, 1, 0, rng) == [0, 1, 0, 1, 0]
    assert draw_places(1, 3, 5, 1, rng) == draw_places(1, 3, None, 0, rng) == [0, 0, 0]
    assert draw_places(1, 1, 5, 0, rng) == [0]
    assert draw_places(3, 3, 25, 0, rng) == [0, 1, 2]


# Which objects --------------------------------------------------------------------------------------------------------


def test_every_object_shows_in_the_reference_and_no_other_object_is_in_the_clip(video):
    config = replace(WILD, scale=(0.5, 3), minimum_pixels=25)
    counts = set()
    for clip in draws(VideoClips([video], config), count=80):
        counts.add(clip.objects)
        assert all((clip.labels[0] == i).sum() >= 25 for i in range(1, clip.objects + 1))
        assert set(np.unique(clip.labels)) <= {0, VOID, *range(1, clip.objects + 1)}
    assert counts == {1, 2}  # of large scales one object often lies outside


def test_an_object_that_comes_late_is_background_unless_the_reference_has_it(make_video):
    video = make_video([two_squares(time, late=5) for time in range(10)], objects=(1, 2))
    with_late = set()
    for clip in draws(VideoClips([video], AS_IT_IS), count=60):
        order = times(clip.frames)
        assert clip.objects == (2 if order[0] >= 5 else 1)
        for time, labels in zip(order, clip.labels, strict=True):
            expected = two_squares(time, late=5)
            assert (labels == (expected if order[0] >= 5 else expected == 1)).all()
        with_late.add(order[0] < 5 <= max(order))
    assert with_late == {True, False}


def test_a_reference_without_an_object_is_drawn_again(make_video):
    maps = [two_squares(time) if time in (3, 4) else np.zeros(SIZE, np.uint8) for time in range(8)]
    firsts = {times(clip.frames)[0] for clip in draws(VideoClips([make_video(maps)], AS_IT_IS))}
    assert firsts == {3, 4}


def test_of_too_many_objects_each_is_chosen_at_times(video):
    chosen = set()
    for clip in draws(VideoClips([video], AS_IT_IS), replace(ANY, max_objects=1)):
        assert clip.objects == 1
        expected = two_squares(times(clip.frames)[0])
        (original,) = np.unique(expected[clip.labels[0] == 1])
        assert (clip.labels[0] == (expected == original)).all()
        chosen.add(int(original))
    assert chosen == {1, 2}


def test_ids_are_renumbered_and_stay_with_their_objects(make_video):
    renamed = np.zeros(256, np.uint8)
    renamed[[1, 2]] = [7, 3]
    video = make_video([two_squares(time) for time in range(5)])
    for path, time in zip(video.annotations, range(5), strict=True):
        write_masks(path.parent, {time: renamed[two_squares(time)]})
    for clip in draws(VideoClips([video], AS_IT_IS), count=5):
        for time, labels in zip(times(clip.frames), clip.labels, strict=True):
            assert (labels == np.array([0, 2, 1], np.uint8)[two_squares(time)]).all()


def test_an_object_that_shows_once_is_found_in_order_too(make_video):
    maps = [two_squares(time) if time == 6 else np.zeros(SIZE, np.uint8) for time in range(30)]
    source = VideoClips([make_video(maps)], replace(AS_IT_IS, reverse=0.5))
    for clip in draws(source, replace(ANY, max_skip=4), 30):
        order = times(clip.frames)
        assert order[0] == 6
        assert set(np.abs(np.diff(order))) <= {1, 2, 3, 4}
        assert len(set(np.sign(np.diff(order)))) == 1


def test_a_video_without_a_large_enough_object_gives_way_to_the_next(make_video):
    tiny = np.zeros(SIZE, np.uint8)
    tiny[5, 5] = 1
    small = make_video([tiny] * 3, name="small")
    large = make_video([two_squares(time) for time in range(3)], name="large")
    assert {clip.name for clip in draws(VideoClips([small, large], AS_IT_IS), count=3)} == {"large"}
    with pytest.raises(InputError, match="no object of 1 videos covers 4 pixels of a 48x64 clip"):
        VideoClips([small], AS_IT_IS).clip(0, ANY, np.random.default_rng(0))


# Objects drawn alike --------------------------------------------------------------------------------------------------


def of_colour(clip: Clip) -> int:
    """Which object of `two_squares` is object 1 of a clip."""
    red, _, blue = clip.frames[0][clip.labels[0] == 1].mean(axis=0)
    return 1 if red > blue else 2


def two_videos(make_video, **options) -> list[VideoSequence]:
    """A video of object 1 alone, and one of objects 1 and 2."""
    alone = make_video([np.where(two_squares(time) == 1, 1, 0).astype(np.uint8) for time in range(5)], name="alone")
    return [alone, make_video([two_squares(time) for time in range(5)], name="both", **options)]


@pytest.mark.parametrize("by_object", [False, True])
def test_objects_are_drawn_alike_or_videos_are(make_video, by_object):
    source = VideoClips(two_videos(make_video), replace(AS_IT_IS, by_object=by_object))
    stream = Mixture([(source, 1.0)], seed=0)
    clips = [stream.clip(number, replace(ANY, max_objects=1)) for number in range(120)]
    drawn = Counter((clip.name, of_colour(clip)) for clip in clips)
    expected = (1 / 3, 1 / 3, 1 / 3) if by_object else (1 / 2, 1 / 4, 1 / 4)
    assert len(source) == (3 if by_object else 2)
    for key, share in zip((("alone", 1), ("both", 1), ("both", 2)), expected, strict=True):
        assert drawn[key] / 120 == pytest.approx(share, abs=0.1)


def test_the_drawn_object_is_in_the_clip_and_others_may_join_it(make_video):
    source = VideoClips(two_videos(make_video), replace(AS_IT_IS, by_object=True))
    for index, key in enumerate((("alone", 1), ("both", 1), ("both", 2))):
        for seed in range(8):
            clip = source.clip(index, replace(ANY, max_objects=1), np.random.default_rng(seed))
            assert (clip.name, of_colour(clip)) == key
    assert source.clip(2, ANY, np.random.default_rng(0)).objects == 2


def test_an_object_is_looked_for_in_the_frames_that_show_it(make_video):
    late = make_video([two_squares(time, late=9) for time in range(10)])
    source = VideoClips([late], replace(AS_IT_IS, by_object=True))
    for seed in range(8):
        clip = source.clip(1, replace(ANY, max_objects=1), np.random.default_rng(seed))
        assert (times(clip.frames)[0], of_colour(clip)) == (9, 2)


def test_in_place_of_an_object_that_is_too_small_any_other_is_drawn(make_video):
    maps = [two_squares(time) for time in range(4)]
    for labels in maps:
        labels[0, 0] = 3
    source = VideoClips([make_video(maps)], replace(AS_IT_IS, by_object=True))
    clips = [source.clip(2, replace(ANY, max_objects=1), np.random.default_rng(seed)) for seed in range(16)]
    drawn = Counter(of_colour(clip) for clip in clips)
    assert len(source) == 3
    assert min(drawn[1], drawn[2]) > 3


def test_objects_are_those_that_the_dataset_lists_or_that_label_maps_show(make_video):
    maps = [two_squares(time, late=2) for time in range(4)]
    maps[1][:6, :9] = VOID
    assert objects_of(make_video(maps, name="shown")) == (1, 2)
    assert objects_of(make_video(maps, name="listed", objects=(2,))) == (2,)
    assert objects_of(make_video(maps, name="one", one_object=True)) == (1,)
    listed = VideoClips([make_video(maps, name="of_two", objects=(2,))], replace(AS_IT_IS, by_object=True))
    clip = listed.clip(0, replace(ANY, max_objects=1), np.random.default_rng(0))
    assert of_colour(clip) == 2


def test_videos_without_any_object_cannot_be_drawn_from_by_object(make_video):
    with pytest.raises(InputError, match="the label maps of 1 videos show no object"):
        VideoClips([make_video([np.zeros(SIZE, np.uint8)] * 2)], replace(AS_IT_IS, by_object=True))


def test_short_videos_can_be_left_out(make_video):
    short = make_video([two_squares(time) for time in range(6)], annotated=[0, 3, 5], name="short")
    long = make_video([two_squares(time) for time in range(4)], name="long")
    source = VideoClips([short, long], replace(AS_IT_IS, minimum_frames=4))
    assert {clip.name for clip in draws(source)} == {"long"}
    with pytest.raises(InputError, match="none of 2 videos has 5 annotated frames; lower minimum_frames"):
        VideoClips([short, long], replace(AS_IT_IS, minimum_frames=5))


# Void -----------------------------------------------------------------------------------------------------------------


def test_void_of_the_file_stays_void(make_video):
    maps = [two_squares(time) for time in range(4)]
    for labels in maps:
        labels[:6, :9] = VOID
    clip = VideoClips([make_video(maps)], AS_IT_IS).clip(0, ANY, np.random.default_rng(0))
    assert (clip.labels[:, :6, :9] == VOID).all()
    assert (clip.labels == VOID).sum() == 3 * 6 * 9


def test_outside_the_picture_is_void_and_in_it_nothing_is(video):
    for clip in draws(VideoClips([video], replace(AS_IT_IS, scale=(0.5, 0.5), colour=1.0)), count=10):
        outside = clip.labels == VOID
        assert (outside == outside[0]).all()
        assert (clip.frames[outside] == (124, 116, 104)).all()
        assert (~outside[0]).sum() == pytest.approx(SIZE[0] * SIZE[1] / 4, rel=0.1)
        rows, columns = np.flatnonzero(~outside[0].all(axis=1)), np.flatnonzero(~outside[0].all(axis=0))
        assert not outside[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()


# Augmentation ---------------------------------------------------------------------------------------------------------


def test_a_flip_mirrors_picture_and_mask(video):
    flipped = draws(VideoClips([video], replace(AS_IT_IS, flip=1)), count=5)
    for one, other in zip(draws(VideoClips([video], AS_IT_IS), count=5), flipped, strict=True):
        assert (one.frames[:, :, ::-1] == other.frames).all()
        assert (one.labels[:, :, ::-1] == other.labels).all()


def test_half_of_the_clips_are_flipped(video):
    clips = draws(VideoClips([video], replace(AS_IT_IS, flip=0.5)), count=100)
    unflipped = sum((clip.labels[0] == two_squares(times(clip.frames)[0])).all() for clip in clips)
    assert 30 < unflipped < 70


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("divisor", [1, 2, 5, 8])
def test_the_mask_stays_on_its_object(make_video, suffix, divisor):
    """Whatever the picture is shrunk by while it is read, and whether its sides can be divided or not."""
    size = (divisor * 48 + 1, divisor * 64 + 3)
    video = make_video([two_squares(time, size) for time in range(3)], suffix=suffix)
    for clip in draws(VideoClips([video], WILD), count=12):
        for i, channel in ((1, 0), (2, 2)):
            if clip.objects == 2:
                mask, seen = clip.labels == i, clip.frames[..., channel] > 127
                seen &= ~(clip.labels == VOID)
                assert (mask & seen).sum() > 0.9 * (mask | seen).sum()


def test_what_stands_still_stays_in_place_over_a_clip(make_video):
    still = make_video([two_squares(0)] * 4)
    for clip in draws(VideoClips([still], WILD), count=10):
        assert (clip.labels == clip.labels[0]).all()
        assert (clip.frames[..., 0] == clip.frames[0, ..., 0]).all()


def test_drift_moves_the_crop_a_little_from_frame_to_frame(make_video):
    still = make_video([two_squares(0)] * 4)
    moved = []
    for clip in draws(VideoClips([still], replace(AS_IT_IS, drift=0.03)), count=20):
        middles = [np.argwhere(labels == 1).mean(axis=0) for labels in clip.labels]
        moved += [float(np.abs(step).max()) for step in np.diff(middles, axis=0)]
    assert 0.5 < np.mean(moved) < 5


def test_scales_are_spread_over_their_range(video):
    source = VideoClips([video], replace(AS_IT_IS, scale=(0.5, 1.5)))
    scales = []
    for clip in draws(source, replace(ANY, max_objects=1), 80):
        (channel,) = (c for c in (0, 2) if clip.frames[0][clip.labels[0] == 1][:, c].mean() > 127)
        whole = (picture(two_squares(0), 0)[..., channel] > 0).sum()
        scales.append(np.sqrt((clip.labels[0] == 1).sum() / whole))
    assert min(scales) == pytest.approx(0.5, abs=0.1)
    assert max(scales) == pytest.approx(1.5, abs=0.1)
    assert np.median(scales) == pytest.approx(np.sqrt(0.5 * 1.5), abs=0.15)


def test_the_crop_keeps_most_of_an_object_at_the_border(make_video):
    corner = np.zeros(SIZE, np.uint8)
    corner[-10:, -14:] = 1
    source = VideoClips([make_video([corner] * 3)], replace(AS_IT_IS, scale=(2, 4), flip=0.5))
    for clip in draws(source):
        scale = np.sqrt((clip.labels[0] == 1).sum() / 140)
        assert 1.9 < scale < 4.1  # all of it is in sight, at whatever scale it was drawn
        assert not (clip.labels == VOID).any()


def test_an_object_that_no_enlarged_crop_can_hold_is_shown_whole(make_video):
    wide = np.zeros(SIZE, np.uint8)
    wide[2:-2, 2:-2] = 1
    for clip in draws(VideoClips([make_video([wide] * 3)], replace(AS_IT_IS, scale=(3, 4))), count=5):
        assert (clip.labels[0] == wide).all()


def test_colours_change_alike_over_a_clip_and_leave_labels_alone(make_video):
    still = make_video([two_squares(0)] * 4)
    plain, jittered = (
        VideoClips([still], replace(AS_IT_IS, colour=colour)).clip(0, ANY, np.random.default_rng(3))
        for colour in (0.0, 1.0)
    )
    assert (plain.labels == jittered.labels).all()
    object_before, object_after = (clip.frames[clip.labels == 1].mean(axis=0) for clip in (plain, jittered))
    assert np.abs(object_before - object_after).max() > 5


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "1 or more frames"),
        ({"size": (0, 5)}, "1 or more frames and pixels"),
        ({"max_objects": 0}, "objects"),
        ({"max_objects": 255}, "1 to 254 objects"),
        ({"max_skip": 0}, "max_skip must be 1 or more"),
    ],
)
def test_requests_out_of_range(video, change, message):
    with pytest.raises(InputError, match=message):
        VideoClips([video], AS_IT_IS).clip(0, replace(ANY, **change), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": (0, 1)}, "scale must be above 0, got 0"),
        ({"scale": (2, 1)}, "the smaller first, got 2 and 1"),
        ({"scale": (1,)}, r"scale must be 2 numbers, separated by commas, got \(1,\)"),
        ({"drift": -0.1}, "drift must be 0 or more, got -0.1"),
        ({"colour": -1}, "colour must be 0 or more, got -1"),
        ({"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
        ({"rotation": -1}, r"rotation must be in \[0, 90\)"),
        ({"minimum_pixels": 0}, "minimum_pixels must be 1 or more"),
    ],
)
def test_configurations_out_of_range(video, change, message):
    with pytest.raises(InputError, match=message):
        VideoClips([video], replace(AS_IT_IS, **change))


def test_videos_that_no_clip_can_be_drawn_from(make_video):
    with pytest.raises(InputError, match="at least one video"):
        VideoClips([])
    with pytest.raises(InputError, match="1 videos have none: bare"):
        VideoClips([make_video([two_squares(0)], annotated=[], name="bare")])


@pytest.mark.parametrize("contents", [b"", b"no picture"])
def test_damaged_frames_are_named(video, contents):
    for path in video.frames:
        path.write_bytes(contents)
    with pytest.raises(InputError, match=r"squares/0\d+.png could not be read as a picture"):
        VideoClips([video], AS_IT_IS).clip(0, ANY, np.random.default_rng(0))


def test_missing_frames_are_named(video):
    for path in video.frames:
        path.unlink()
    with pytest.raises(InputError, match=r"squares/0\d+.png could not be read"):
        VideoClips([video], AS_IT_IS).clip(0, ANY, np.random.default_rng(0))


def test_frames_of_another_size_than_their_masks_are_named(video):
    for path in video.frames:
        Image.new("RGB", (70, 50)).save(path)
    with pytest.raises(InputError, match=r"0\d+.png is 50x70 but its label map is 48x64"):
        VideoClips([video], AS_IT_IS).clip(0, ANY, np.random.default_rng(0))


# Real videos ----------------------------------------------------------------------------------------------------------


def test_clips_of_davis(shared):
    source = VideoClips(DavisDataset(shared / "data" / "davis-2016", 2016, "fit").sequences)
    request = ClipRequest(3, (120, 216), max_skip=5)
    for index in range(0, len(source), 4):
        clip = source.clip(index, request, np.random.default_rng(index))
        assert clip.name == source.sequences[index].name
        assert clip.objects == 1
        assert (clip.labels[0] == 1).sum() >= source.config.minimum_pixels
