"""Where objects were lately, and what is removed for being too far from there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onemask.blocks.reach import reach_by_size, touched, without_outliers
from onemask.methods.method import Features, Memory, Prediction
from onemask.methods.whereabouts import annotated_there, found_mask, found_there, within_reach
from onemask.session import Session
from videos import Still

SIZE = (64, 96)


@dataclass
class _Memory(Memory):
    rows: Tensor


def box(top: int, bottom: int, left: int, right: int) -> Tensor:
    masks = torch.zeros(1, 1, *SIZE)
    masks[..., top:bottom, left:right] = 1
    return masks


def memory_of(masks: Tensor) -> _Memory:
    return _Memory(torch.zeros(len(masks)), **annotated_there(masks))


def logits_of(*masks: Tensor) -> Tensor:
    return 6 * torch.stack(masks).amax(0) - 3


def test_what_is_far_from_where_the_object_was_is_removed():
    annotated, far = box(0, 16, 0, 16), box(40, 56, 72, 96)
    memory, logits = memory_of(annotated), logits_of(annotated, far)
    assert memory.size is not None
    assert memory.size.item() == 16 / 8
    left = within_reach(logits, memory, 0.2)
    assert ((left > 0) == annotated.bool()).all()
    assert torch.equal(
        left, without_outliers(logits, reach_by_size(memory.unseen, memory.size, memory.away, 0.2), whole=True)
    )


def test_logits_stay_as_they_are_where_all_is_connected_or_nothing_is_known():
    annotated, grown = box(0, 16, 0, 16), box(0, 16, 8, 90)
    logits = logits_of(annotated, grown)
    assert within_reach(logits, memory_of(annotated), 0.2) is logits
    assert within_reach(logits, _Memory(torch.zeros(1)), 0.2) is logits


@pytest.mark.parametrize("eager", [True, False])
def test_an_object_is_not_cut_for_what_another_one_does(eager, monkeypatch):
    """What is not the object's either way, its doubtful pixels far away, counts where objects are aggregated."""
    monkeypatch.setattr("onemask.methods.whereabouts.eager_on_cpu", lambda tensor: eager)
    one, other, far = box(0, 16, 0, 16), box(0, 16, 40, 56), box(40, 56, 72, 96)
    stray, doubtful = logits_of(one, far), logits_of(other) + 2 * far
    together = within_reach(torch.cat([stray, doubtful]), memory_of(torch.cat([one, other])), 0.2)
    assert torch.equal(together[:1], within_reach(stray, memory_of(one), 0.2))
    assert torch.equal(together[1:], doubtful)


def test_places_follow_masks_and_that_of_a_lost_object_stays():
    memory, moved = memory_of(box(0, 16, 0, 16)), box(48, 64, 80, 96)
    nothing, there = torch.zeros_like(moved), touched(moved, (8, 12))
    seen = []
    for masks in (moved, moved, nothing, nothing, moved):
        memory = _Memory(memory.rows, **found_there(memory, masks))
        seen.append(memory)
    assert [m.away.item() for m in seen] == [0, 0, 1, 2, 0]
    assert (seen[0].unseen[there] == 0).all()
    before = touched(box(0, 16, 0, 16), (8, 12))
    assert [m.unseen[before].unique().tolist() for m in seen] == [[1], [2], [2], [2], [3]]
    assert [m.size.item() for m in seen] == pytest.approx([2.0] * 5)
    assert found_there(_Memory(torch.zeros(1)), moved) == {}


def test_what_went_behind_something_comes_out_on_the_other_side():
    def beside(left: int, right: int) -> Tensor:
        masks = torch.zeros(1, 1, 128, 512)
        masks[..., left:right] = 1
        return masks

    memory = memory_of(beside(0, 128))
    for right in (96, 64, 32, 8, 0, 0, 0):  # less of it in each frame, then nothing
        memory = _Memory(memory.rows, **found_there(memory, beside(0, right)))
    assert memory.away.item() == 4
    assert memory.size is not None
    assert memory.size.item() == pytest.approx(16 * 0.95**3)  # cells; it was not lost in three frames
    there = beside(208, 336)
    assert torch.equal(within_reach(logits_of(there), memory, 0.2) > 0, there > 0)
    thin = replace(memory, size=torch.tensor([(128 * 8) ** 0.5 / 8]))  # of the strip that was seen last
    assert (within_reach(logits_of(there), thin, 0.2) < 0).all()


class Red(Still):
    """Takes all that is red for the object."""

    def segment(self, features: Features, memory: Memory) -> Prediction:
        return Prediction(16 * features.frames[:, :1].expand(len(memory), -1, -1, -1) - 8)


@pytest.mark.parametrize("reach", [0.0, 0.2])
def test_a_session_keeps_it_for_any_method(reach, tmp_path):
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    frames[:, :16, :16, 0] = frames[1:, 40:56, 72:88, 0] = 255  # a red square, and soon its double far off
    method = Red()
    method.reach = reach
    session = Session(method, device="cpu", short_side=None)
    session.annotate(frames[0], frames[0, ..., 0] > 0)
    wanted = frames[1, ..., 0] > 0
    if reach:
        wanted[32:] = False
    assert ((session.step(frames[1]) == 1) == wanted).all()
    session.save(tmp_path / "session")
    for each in (session, session.copy(), Session.restore(tmp_path / "session", method)):
        assert ((each.step(frames[2]) == 1) == wanted).all()


def test_a_found_mask_is_the_mean_of_each_four_by_four_pixels():
    masks = torch.rand(2, 1, *SIZE)
    assert torch.allclose(found_mask(masks), torch.nn.functional.avg_pool2d(masks, 4), atol=1e-6)
