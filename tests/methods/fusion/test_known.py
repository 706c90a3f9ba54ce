"""The veto: what the annotated frame surely knows as background is not the object, whatever the network says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from small_fusion import TINY, clip_of_two, frames_and_masks, made

import onemask
from earlier import saved_earlier
from onemask.labels import resize
from onemask.methods.fusion.clues import cells_of_classes
from onemask.methods.fusion.known import KNOWN, MARGIN, beside, edges, known_background
from onemask.methods.fusion.model import FusionPrediction


def cell(background: float, of_object: float, touched: float = 0.0) -> float:
    """What is found of a cell far from the object."""
    cosines = torch.tensor([background, touched, of_object]).view(1, 3, 1, 1).expand(-1, -1, 3, 3)
    return known_background(cosines)[0, 0, 1, 1].item()


class TestKnownBackground:
    def test_is_what_matches_background_well_and_the_object_less(self) -> None:
        assert cell(0.9, 0.5) == pytest.approx(0.4 - MARGIN)
        assert cell(0.9, 0.9 - MARGIN / 2) == 0
        assert cell(0.5, 0.9) == 0

    def test_is_not_what_matches_neither_well(self) -> None:
        """A part of the object that the annotated frame does not show is like nothing that is there."""
        assert cell(0.6, 0.3) == 0
        assert cell(sum(KNOWN) / 2, 0.3) == pytest.approx((sum(KNOWN) / 2 - 0.3 - MARGIN) / 2)

    def test_cells_that_the_object_touches_count_as_the_object(self) -> None:
        assert cell(0.9, 0.3, touched=0.7) == cell(0.9, 0.7)

    def test_spares_the_objects_outline(self) -> None:
        """Of a cell and those around it, each with its own background, the one that is least sure decides."""
        cosines = torch.tensor([0.95, 0.0, 0.5]).view(1, 3, 1, 1).repeat(1, 1, 1, 4)
        cosines[0, :, 0, 0] = torch.tensor([0.5, 0.0, 0.9])
        assert (known_background(cosines)[0, 0, 0] > 0).tolist() == [False, False, True, True]
        cosines[0, :, 0, 0] = torch.tensor([0.9, 0.0, 0.6])
        assert known_background(cosines)[0, 0, 0, 1].item() == pytest.approx(0.3 - MARGIN)


def test_edges_are_the_cells_of_background_that_an_object_touches() -> None:
    mask = torch.zeros(1, 1, 16, 80)
    mask[..., 36:], mask[0, 0, 8, :36] = 1, 1  # a string of one pixel, and a block from the middle of the third cell on
    mask[..., :16] = 0
    cells = cells_of_classes(mask, (1, 5))
    assert cells[0, 1, 0].tolist() == [0, 0, 1, 1, 1]
    assert edges(mask, cells)[0, 0, 0].tolist() == [0, 1, 0, 0, 0]
    assert beside(cells)[0, 0, 0].tolist() == [0, 1, 0, 0, 0]


def segmented(veto: float, *, training: bool = False) -> FusionPrediction:
    """The annotated frame again: all that is background is known."""
    method = made(replace(TINY, veto=veto), joining=0.1)
    frames, masks = frames_and_masks()
    with torch.no_grad():
        features = method.encode(frames[:1])
        memory = method.memorize(features, masks)
        method.training = training
        prediction = method.segment(features, memory)
    assert isinstance(prediction, FusionPrediction)
    return prediction


def test_logits_fall_where_background_is_known_and_nowhere_else() -> None:
    without, found = segmented(0.0), segmented(10.0)
    changed, known = without.logits - found.logits, found.known
    assert without.known is None
    assert known is not None
    assert known.max() > 0.5
    expected = resize(resize(known, (32, 48)), (64, 96))
    torch.testing.assert_close(changed, expected, atol=1e-4, rtol=0)


def test_in_training_the_network_tells_by_itself() -> None:
    assert torch.equal(segmented(0.0, training=True).logits, segmented(10.0, training=True).logits)


def test_what_training_keeps_does_not_depend_on_it() -> None:
    assert "veto" in made().not_of_memory


def test_it_is_shown() -> None:
    frames, labels = clip_of_two()
    session = onemask.Session(made(joining=0.1), short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    session.step(frames[0], explain=True)
    shown = session.diagnostics[1]["known background"]
    assert shown[0, 5] > 0.9  # by cell
    assert shown[1, 1] < 0.1


def test_a_thin_part_that_is_annotated_is_kept(shared: Path) -> None:
    """A ball on a string of 6 pixels, far from any cell that the object covers by half."""
    ground = np.array(Image.open(shared / "data/davis-2016/JPEGImages/480p/flamingo/00000.jpg"))
    masks = np.zeros((3, *ground.shape[:2]), np.uint8)
    for time, mask in enumerate(masks):
        cv2.circle(mask, (300 + 3 * time, 120), 40, 1, -1)
        cv2.line(mask, (300 + 3 * time, 160), (310 + 3 * time, 360), 1, 6)
    frames = np.where(masks[..., None] > 0, np.array([200, 30, 30], np.uint8), ground)
    found = []
    for options in ({}, {"veto": 0}):
        session = onemask.Session(onemask.load("fusion-fast", **options), device="cpu")
        session.annotate(frames[0], masks[0])
        string = [(session.step(frame) > 0)[180:] for frame in frames[1:]][-1]
        found.append(np.count_nonzero(string & (masks[-1, 180:] > 0)))
    assert found[0] >= 0.95 * found[1] > 0.2 * np.count_nonzero(masks[-1, 180:])


def test_a_session_saved_before_there_was_a_veto_goes_on_with_it(tmp_path: Path) -> None:
    frames, labels = clip_of_two()
    method = made(joining=0.1)
    session = onemask.Session(method, short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    earlier = saved_earlier(session, tmp_path, options=("veto",), remembered=("first_edges",))
    restored = onemask.Session.restore(earlier, method, device="cpu")
    restored.step(frames[0], explain=True)
    assert restored.diagnostics[1]["known background"].max() > 0.5
    more = np.zeros_like(labels)
    more[40:60, 2:30] = 7
    restored.annotate(frames[1], more)  # beside one whose edges are known
    restored.step(frames[2])


def test_a_second_bird_that_the_annotated_frame_shows_is_left_alone(shared: Path) -> None:
    """As it is the network takes it within five frames."""
    root, overlaps = shared / "data/davis-2016", []
    truths = [np.array(Image.open(root / f"Annotations/480p/flamingo/{n:05}.png")) for n in range(6)]
    frames = [np.array(Image.open(root / f"JPEGImages/480p/flamingo/{n:05}.jpg")) for n in range(6)]
    for options in ({}, {"veto": 0}):
        session = onemask.Session(onemask.load("fusion-fast", **options), device="cpu")
        session.annotate(frames[0], truths[0])
        found = [session.step(frame) for frame in frames[1:]][-1] > 0
        overlaps.append(np.count_nonzero(found & (truths[-1] > 0)) / np.count_nonzero(found | (truths[-1] > 0)))
    assert overlaps[0] > 0.85
    assert overlaps[1] < 0.75
