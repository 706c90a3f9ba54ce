from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from onemask.data.clip import VOID, Clip, ClipRequest
from onemask.data.stills import Cutouts, StillImages
from onemask.data.synthetic import StillClips, _well_seen
from onemask.data.synthetic_options import SyntheticConfig
from onemask.video.masks import write_mask

SIZE = (96, 160)
RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 220, 20), (30, 30, 230), (220, 220, 20)
PLAIN = SyntheticConfig(
    colours=0, degraded=0, blurred=0, occluder=0, distractors=(1.0,), texture=0, cutout=0, further_object=0
)
SCENES = {
    "whole": replace(PLAIN, whole=1),
    "apart": replace(PLAIN, whole=0, elsewhere=0),
    "elsewhere": replace(PLAIN, whole=0, elsewhere=1),
}


def add(
    root: Path, name: str, discs: list[tuple[int, int, int, tuple[int, int, int]]], void=0, size=(150, 200)
) -> None:
    """A grey texture with coloured discs (x, y, radius, colour); void: width of the void ring round each."""
    rng = np.random.default_rng(len(name))
    grey = cv2.resize(rng.integers(60, 190, (12, 16)).astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    image, labels = np.repeat(grey[..., None], 3, axis=2), np.zeros(size, np.uint8)
    rows, columns = np.indices(size)
    for object_id, (x, y, radius, colour) in enumerate(discs, start=1):
        distance = np.hypot(columns - x, rows - y)
        labels[distance < radius + void] = VOID if void else 0
        labels[distance < radius] = object_id
        image[distance < radius + void / 2] = colour
    (root / "images").mkdir(exist_ok=True)
    Image.fromarray(image).save(root / "images" / f"{name}.png")
    write_mask(root / "masks" / f"{name}.png", labels)


def add_cutout(root: Path, name: str, colour=(200, 0, 200)) -> None:
    picture = np.zeros((60, 60, 4), np.uint8)
    cv2.circle(picture, (30, 30), 25, (*colour, 255), -1, cv2.LINE_AA)
    root.mkdir(exist_ok=True)
    Image.fromarray(picture).save(root / f"{name}.png")


@pytest.fixture
def stills(tmp_path):
    """Picture 0 has a red disc, 1 a green one, 2 three: blue, yellow and green."""
    add(tmp_path, "a", [(100, 70, 35, RED)])
    add(tmp_path, "b", [(60, 80, 30, GREEN)])
    add(tmp_path, "c", [(50, 50, 28, BLUE), (140, 60, 30, YELLOW), (100, 115, 25, GREEN)])
    return StillImages(tmp_path)


def clips(source: StillClips, index: int, number: int, length=3, max_skip=None, max_objects=1) -> list[Clip]:
    request = ClipRequest(length, SIZE, max_skip, max_objects)
    return [source.clip(index, request, np.random.default_rng(seed)) for seed in range(number)]


def like(frames: np.ndarray, colour: tuple[int, int, int], within: int) -> np.ndarray:
    return (np.abs(frames.astype(int) - colour) <= within).all(axis=-1)


def inner(mask: np.ndarray, pixels: int = 3) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1)), borderValue=0) > 0


def pixels_of(clip: Clip, object_id: int) -> np.ndarray:
    """(T,) pixels of an object in each frame."""
    return (clip.labels == object_id).sum(axis=(1, 2))


# The promises of a clip source ----------------------------------------------------------------------------------------


def test_there_are_as_many_clips_as_pictures(stills):
    source = StillClips(stills)
    assert len(source) == 3
    assert [source.clip(i, ClipRequest(1, SIZE), np.random.default_rng(0)).name for i in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("max_skip", [None, 1, 10])
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("size", [(96, 160), (131, 97)])
def test_a_clip_has_the_length_and_size_that_were_asked_for(stills, length, size, max_skip):
    clip = StillClips(stills).clip(2, ClipRequest(length, size, max_skip, 3), np.random.default_rng(0))
    assert (clip.frames.shape, clip.frames.dtype) == ((length, *size, 3), np.uint8)
    assert (clip.labels.shape, clip.labels.dtype) == ((length, *size), np.uint8)


def test_the_same_generator_gives_the_same_clip_whatever_was_made_before(stills, tmp_path):
    add_cutout(tmp_path / "cutouts", "ball")
    cutouts, request = Cutouts(tmp_path / "cutouts"), ClipRequest(3, SIZE, None, 3)
    source, other = StillClips(stills, cutouts), StillClips(stills, cutouts)
    first = [source.clip(2, request, np.random.default_rng(seed)) for seed in range(6)]
    np.random.seed(1)  # noqa: NPY002 - that it is not used is the point
    again = [other.clip(2, request, np.random.default_rng(seed)) for seed in reversed(range(6))]
    for one, same in zip(first, reversed(again), strict=True):
        assert (one.frames == same.frames).all()
        assert (one.labels == same.labels).all()
    assert (first[0].frames != first[1].frames).any()


@pytest.mark.parametrize("max_objects", [1, 2, 3])
def test_every_object_shows_in_the_first_frame_and_there_are_no_others(stills, tmp_path, max_objects):
    add_cutout(tmp_path / "cutouts", "ball")
    source = StillClips(stills, Cutouts(tmp_path / "cutouts"), SyntheticConfig(occluder=1, distractors=(0, 0, 0, 1)))
    numbers = set()
    for index in range(3):
        for clip in clips(source, index, 12, max_objects=max_objects):
            assert 1 <= clip.objects <= max_objects
            assert min(pixels_of(clip, i)[0] for i in range(1, clip.objects + 1)) >= 16  # 100 in 240 rows
            assert set(np.unique(clip.labels)) <= {*range(clip.objects + 1), VOID}
            numbers.add(clip.objects)
    assert numbers == set(range(1, max_objects + 1))


def test_the_first_object_is_shown_at_many_sizes(stills):
    config = SyntheticConfig(distractors=(1.0,), occluder=0)
    shares = [(clip.labels[0] == 1).mean() for clip in clips(StillClips(stills, config=config), 0, 60, length=1)]
    assert 0.02 < min(shares) < 0.08
    assert 0.3 < max(shares) < 0.8
    assert 0.08 < np.median(shares) < 0.3


# Masks and pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
def test_mask_and_pixels_move_together(stills, scene):
    moved = 0
    for clip in clips(StillClips(stills, config=SCENES[scene]), 0, 12):
        for frame, labels in zip(clip.frames, clip.labels, strict=True):
            under = inner(labels == 1)
            assert like(frame[under], RED, 25).mean() > 0.99 if under.any() else True
            red = like(frame, RED, 40)
            assert (labels[red] > 0).mean() > 0.98 if red.any() else True
        moved += (clip.labels[0] != clip.labels[1]).mean() > 0.01
    assert moved >= 10


@pytest.mark.parametrize("scene", SCENES)
def test_edges_of_masks_are_edges_of_pixels(stills, scene):
    """Half way between the colours lies the mask's border, so a mask grown or shrunk by a pixel fits worse."""
    misses = {-2: 0, 0: 0, 2: 0}
    for clip in clips(StillClips(stills, config=SCENES[scene]), 0, 8, length=2):
        for frame, labels in zip(clip.frames, clip.labels, strict=True):
            red = frame[..., 0].astype(int) - frame[..., 1] > 105  # half of what the disc has
            known = labels < VOID
            for growth in misses:
                kernel = np.ones((abs(growth) + 1,) * 2, np.uint8)
                change = cv2.dilate if growth > 0 else cv2.erode
                mask = change((labels == 1).astype(np.uint8), kernel) > 0 if growth else labels == 1
                misses[growth] += np.count_nonzero((mask != red) & known)
    assert misses[0] < 0.6 * min(misses[-2], misses[2])


def test_several_objects_keep_their_colours(stills):
    colours = {BLUE: 0, YELLOW: 0, GREEN: 0}
    for scene in SCENES.values():
        for clip in clips(StillClips(stills, config=scene), 2, 10, max_objects=3):
            for object_id in range(1, clip.objects + 1):
                under = inner(clip.labels[0] == object_id)
                seen = [colour for colour in colours if under.any() and like(clip.frames[0][under], colour, 25).all()]
                for colour in seen:
                    colours[colour] += 1
                    for frame, labels in zip(clip.frames, clip.labels, strict=True):
                        later = inner(labels == object_id)
                        assert like(frame[later], colour, 25).mean() > 0.98 if later.any() else True
    assert min(colours.values()) > 3


def test_of_more_objects_than_asked_for_the_rest_is_background(stills):
    chosen = set()
    for clip in clips(StillClips(stills, config=SCENES["whole"]), 2, 20, length=1):
        assert clip.objects == 1
        for name, colour in (("blue", BLUE), ("yellow", YELLOW), ("green", GREEN)):
            of_colour = inner(like(clip.frames[0], colour, 30))
            if of_colour.any():
                values = set(np.unique(clip.labels[0][of_colour]))
                assert values <= {0, VOID} or values <= {1, VOID}
                chosen |= {name} if 1 in values else set()
    assert chosen == {"blue", "yellow", "green"}


# Void -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
def test_void_is_carried_along_and_is_neither_object_nor_background(tmp_path, scene):
    add(tmp_path, "a", [(100, 70, 35, RED)], void=6)
    add(tmp_path, "b", [(60, 80, 30, GREEN)])
    for clip in clips(StillClips(StillImages(tmp_path), config=SCENES[scene]), 0, 10):
        for labels in clip.labels:
            if (labels == 1).sum() < 50:
                continue
            around = cv2.dilate((labels == 1).astype(np.uint8), np.ones((3, 3))) > 0
            ring = labels[around & (labels != 1)]
            assert (ring == VOID).mean() > 0.9


def test_the_void_of_the_surroundings_stays_void_when_the_object_is_moved_away(tmp_path):
    add(tmp_path, "a", [(60, 60, 35, RED)])
    labels = np.asarray(Image.open(tmp_path / "masks" / "a.png")).copy()
    labels[:, 150:] = VOID
    image = np.asarray(Image.open(tmp_path / "images" / "a.png")).copy()
    image[:, 150:] = BLUE
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a.png", labels)
    seen = 0
    config = replace(SCENES["apart"], mirror=0)
    for clip in clips(StillClips(StillImages(tmp_path), config=config), 0, 15):
        blue = like(clip.frames, BLUE, 20)
        seen += np.count_nonzero(blue)
        if blue.any():  # but for what the picture's border mirrors
            assert (clip.labels[blue] == VOID).mean() > 0.5
    assert seen > 1000


def test_a_picture_of_void_alone_still_gives_a_clip(tmp_path):
    add(tmp_path, "a", [])
    write_mask(tmp_path / "masks" / "a.png", np.full((150, 200), VOID, np.uint8))
    for clip in clips(StillClips(StillImages(tmp_path)), 0, 5):
        assert clip.objects == 1
        assert pixels_of(clip, 1)[0] >= 16


# What is in a clip ----------------------------------------------------------------------------------------------------


def test_an_occluder_hides_objects_in_later_frames_only(stills):
    def least_share_left(config: SyntheticConfig) -> list[float]:
        made = clips(StillClips(stills, config=config), 0, 40)
        return [pixels_of(clip, 1)[1:].min() / pixels_of(clip, 1)[0] for clip in made]

    still = replace(SCENES["elsewhere"], shift=0.02, zoom=0.02, turn=1)
    hidden = np.array(least_share_left(replace(still, occluder=1)))
    assert (np.array(least_share_left(still)) > 0.7).all()
    assert (hidden < 0.7).mean() > 0.5


@pytest.mark.parametrize("scene", SCENES)
def test_what_hides_is_seen_first_is_then_out_of_sight_and_comes_back(stills, scene):
    config = replace(SCENES[scene], shift=0.02, zoom=0.02, turn=1, largest=0.4, hides=1)
    shares = [pixels_of(clip, 1) / pixels_of(clip, 1)[0] for clip in clips(StillClips(stills, config=config), 0, 30, 6)]
    hidden = np.array([(share[2:-1] < 0.1).sum() > 0 for share in shares])
    assert hidden.mean() > 0.7
    assert min(share[1] for share in shares) > 0.5
    assert np.median([share[-1] for share in shares]) > 0.8
    assert not any((pixels_of(clip, 1) == 0).any() for clip in clips(StillClips(stills, config=config), 0, 10, 3))


@pytest.mark.parametrize("scene", SCENES)
def test_what_covers_hides_a_part_at_first_and_then_less(stills, scene):
    def gained(config: SyntheticConfig) -> np.ndarray:
        """By how much more of the object is to be seen in some later frame than in the first."""
        made = clips(StillClips(stills, config=config), 0, 30, 6)
        seen = np.array([pixels_of(clip, 1) for clip in made])
        assert (seen[:, 0] > 0).all(), "a part of it is to be seen"
        return seen[:, 1:].max(1) / seen[:, 0]

    still = replace(SCENES[scene], shift=0.02, zoom=0.02, turn=1, largest=0.4, occluder=0, distractors=(1,))
    covered = gained(replace(still, covers=1))
    assert (gained(still) < 1.3).mean() > 0.8
    assert (covered > 1.3).mean() > 0.4
    assert covered.min() > 0.9, "it leaves the object, from frame to frame in any order"


def test_distractors_are_background(stills, tmp_path):
    add_cutout(tmp_path / "cutouts", "ball")
    config = replace(SCENES["whole"], distractors=(0, 1), cutout=1)
    seen = 0
    for clip in clips(StillClips(stills, Cutouts(tmp_path / "cutouts"), config), 0, 10):
        ball = like(clip.frames, (200, 0, 200), 10)
        assert (clip.labels[ball] == 0).all()
        seen += np.count_nonzero(ball)
    assert seen > 1000


@pytest.mark.parametrize("scene", SCENES)
def test_a_twin_looks_like_the_object_and_is_background(stills, scene):
    """A red disc has a twin that is nearly as red; without, there is no red but the object's."""
    beside = []
    for twin in (0.0, 1.0):
        made = clips(StillClips(stills, config=replace(SCENES[scene], twin=twin)), 0, 12)
        red = [like(clip.frames, RED, 60) & (clip.labels == 0) for clip in made]
        beside.append(
            [np.count_nonzero(mask[0]) / np.count_nonzero(clip.labels[0]) for mask, clip in zip(red, made, strict=True)]
        )
    alone, twins = beside
    assert max(alone) < 0.15
    assert np.mean(np.array(twins) > 0.3) > 0.6  # elsewhere it is hidden, or beyond the frame


def test_a_rival_is_a_twin_that_is_an_object_too(stills):
    config = replace(SCENES["whole"], twin=1.0, rival=1.0)
    made = clips(StillClips(stills, config=config), 0, 12, max_objects=3)
    red = [like(clip.frames[0], RED, 60) for clip in made]
    assert all((clip.labels[0][mask] > 0).mean() > 0.9 for clip, mask in zip(made, red, strict=True))
    several = [len(np.unique(clip.labels[0][mask])) > 1 for clip, mask in zip(made, red, strict=True)]
    assert np.mean(several) > 0.4  # elsewhere it is hidden, or there are three objects without it
    alone = clips(StillClips(stills, config=config), 0, 4)
    assert all(clip.objects == 1 for clip in alone)


def test_a_cutout_can_be_the_object(stills, tmp_path):
    add_cutout(tmp_path / "cutouts", "ball")
    config = replace(SCENES["elsewhere"], further_object=1, cutout=1)
    found = 0
    for clip in clips(StillClips(stills, Cutouts(tmp_path / "cutouts"), config), 0, 12, max_objects=2):
        under = inner(clip.labels[0] == 2)
        if clip.objects == 2 and under.any():
            found += 1
            assert like(clip.frames[0][under], (200, 0, 200), 10).all()
    assert found >= 3


@pytest.mark.parametrize(("probability", "taken"), [(0.0, False), (1.0, True)])
def test_regions_of_textures_are_objects_only_as_often_as_the_configuration_says(tmp_path, probability, taken):
    add(tmp_path, "bsds-1", [(100, 70, 35, RED)])
    add(tmp_path, "duts-1", [(60, 80, 30, GREEN)])
    config = replace(SCENES["whole"], texture_as_object=probability)
    for clip in clips(StillClips(StillImages(tmp_path), config=config), 0, 8, length=1):
        under = inner(clip.labels[0] == 1)
        assert like(clip.frames[0][under], RED if taken else GREEN, 25).all()


def test_rounded_probabilities_need_not_sum_to_1_exactly(stills):
    source = StillClips(stills, config=SyntheticConfig(distractors=(0.3333333, 0.3333333, 0.3333333)))
    assert len(clips(source, 0, 3)) == 3


@pytest.mark.parametrize("kind", ["hides", "covers"])
def test_a_cutout_that_shows_nothing_hides_nothing(stills, tmp_path, kind):
    (tmp_path / "cutouts").mkdir()
    Image.new("RGBA", (20, 20)).save(tmp_path / "cutouts" / "a.png")
    config = SyntheticConfig(cutout=1, texture=0, further_object=1, **{kind: 1})
    source = StillClips(stills, Cutouts(tmp_path / "cutouts"), config)
    for clip in clips(source, 0, 8, length=5, max_skip=3, max_objects=3):
        assert (pixels_of(clip, 1)[0]) > 0


def test_objects_too_small_to_be_learned_are_not_taken(tmp_path):
    add(tmp_path, "a", [(20, 20, 3, RED), (120, 80, 30, BLUE)])
    for scene in SCENES.values():
        for clip in clips(StillClips(StillImages(tmp_path), config=scene), 0, 5, length=1, max_objects=2):
            assert clip.objects == 1
            assert like(clip.frames[0][inner(clip.labels[0] == 1)], BLUE, 25).all()


@pytest.mark.parametrize(("side", "least"), [(240, 100), (120, 25), (480, 100)])
def test_how_much_of_an_object_must_be_seen_goes_by_the_frames_area(side, least):
    label_map = np.zeros((side, 2 * side), np.uint8)
    label_map[: side // 2, : side // 2] = 1
    for pixels, seen in ((least, True), (least - 1, False)):
        label_map[-1] = 0
        label_map[-1, :pixels] = 2
        assert _well_seen(label_map, 2, SyntheticConfig()) == seen


def test_where_nothing_else_will_do_a_piece_of_the_picture_is_the_object(stills):
    for clip in clips(StillClips(stills, config=SyntheticConfig(attempts=0)), 0, 5, max_objects=3):
        assert clip.objects == 1
        assert 0.05 < (clip.labels[0] == 1).mean() < 0.4


# Motion ---------------------------------------------------------------------------------------------------------------


def steps(made: list[Clip]) -> np.ndarray:
    """How far the middle of object 1 goes from frame to frame, pixels, where it is in sight."""
    lengths = []
    for clip in made:
        middles = [np.argwhere(labels == 1).mean(axis=0) for labels in clip.labels if (labels == 1).sum() > 100]
        lengths += [np.hypot(*(b - a)) for a, b in pairwise(middles)]
    return np.array(lengths)


def test_steps_are_as_long_as_frames_are_apart(stills):
    source = StillClips(stills, config=SCENES["elsewhere"])
    near, far = (steps(clips(source, 0, 25, length=4, max_skip=skip)).mean() for skip in (1, 8))
    assert 0.2 < near < 4
    assert far > 2.5 * near


def test_frames_that_follow_one_another_go_the_same_way(stills):
    source = StillClips(stills, config=SCENES["elsewhere"])
    turns = []
    for clip in clips(source, 0, 20, length=4, max_skip=1):
        middles = np.array([np.argwhere(labels == 1).mean(axis=0) for labels in clip.labels])
        first, last = np.diff(middles, axis=0)[[0, -1]]
        if min(np.hypot(*first), np.hypot(*last)) > 0.7:
            turns.append(first @ last > 0)
    assert len(turns) > 5
    assert np.mean(turns) > 0.8


def test_clips_of_the_pictures_beside_the_repository(shared):
    objects = StillImages(shared / "data" / "objects")
    source = StillClips(objects, Cutouts(shared / "data" / "cutouts"))
    rng = np.random.default_rng(0)
    for index in rng.choice(len(source), 12, replace=False):
        clip = source.clip(int(index), ClipRequest(3, (120, 216), None, 3), rng)
        assert min(pixels_of(clip, i)[0] for i in range(1, clip.objects + 1)) >= 25
        assert set(np.unique(clip.labels)) <= {*range(clip.objects + 1), VOID}
        assert clip.frames.std() > 5
