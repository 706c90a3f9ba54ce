"""The veto: what the annotated frame surely knows as background is not the object, whatever the network says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_fusion import TINY, clip_of_two, frames_and_masks, made

import onemask
from earlier import saved_earlier
from onemask.methods.fusion.known import KNOWN, MARGIN, known_background


def cell(background: float, of_object: float) -> float:
    """What is found of a cell far from the object."""
    cosines = torch.tensor([background, of_object]).view(1, 2, 1, 1).expand(-1, -1, 3, 3)
    return known_background(cosines)[0, 0, 1, 1].item()


class TestKnownBackground:
    def test_is_what_matches_background_well_and_the_object_less(self) -> None:
        assert cell(0.9, 0.5) == pytest.approx(0.4 - MARGIN)
        assert cell(0.9, 0.9 - MARGIN / 2) == 0
        assert cell(0.5, 0.9) == 0

    def test_is_not_what_matches_neither_well(self) -> None:
        """A part of the object that no frame has shown is like nothing that was seen."""
        assert cell(0.6, 0.3) == 0
        assert cell(sum(KNOWN) / 2, 0.3) == pytest.approx((sum(KNOWN) / 2 - 0.3 - MARGIN) / 2)

    def test_spares_the_objects_outline(self) -> None:
        cosines = torch.tensor([0.9, 0.5]).view(1, 2, 1, 1).repeat(1, 1, 1, 4)
        cosines[0, :, 0, 0] = torch.tensor([0.5, 0.9])
        assert (known_background(cosines)[0, 0, 0] > 0).tolist() == [False, False, True, True]


def logits(veto: float, *, training: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the second frame, and what is known of it as background."""
    method = made(replace(TINY, veto=veto), joining=0.1)
    frames, masks = frames_and_masks()
    with torch.no_grad():
        memory = method.memorize(method.encode(frames[:1]), masks)
        features = method.encode(frames[:1])  # the annotated frame again: all that is background is known
        method.network.train(training)
        method.training = training
        prediction = method.segment(features, memory)
    return prediction.logits, known_background(prediction.clues["first"])


def test_logits_fall_where_background_is_known_and_nowhere_else() -> None:
    without, known = logits(0.0)
    changed = without - logits(10.0)[0]
    assert known.max() > 0.05
    assert changed.max() == pytest.approx(10 * known.max().item(), rel=0.3)  # it is enlarged from the cells
    none = torch.nn.functional.max_pool2d(known, 3, 1, 1) == 0
    assert none.any()
    assert (changed[none.repeat_interleave(16, 2).repeat_interleave(16, 3)] == 0).all()


def test_in_training_the_network_tells_by_itself() -> None:
    assert torch.equal(logits(0.0, training=True)[0], logits(10.0, training=True)[0])


def test_a_session_saved_before_there_was_a_veto_goes_on_with_it(tmp_path: Path) -> None:
    frames, labels = clip_of_two()
    method = made(joining=0.1)
    session = onemask.Session(method, short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    restored = onemask.Session.restore(saved_earlier(session, tmp_path, options=("veto",)), method, device="cpu")
    assert np.array_equal(restored.step(frames[1]), session.step(frames[1]))


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
