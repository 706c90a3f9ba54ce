"""Wrong last masks: a part is missing, or something else is in them; how often, and that all frames change alike."""

from __future__ import annotations

import pytest
import torch

from onemask.methods.fusion.misled import doubled, misled, torn


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def squares(rows: int, frames: int = 2) -> torch.Tensor:
    """A square of 12 x 12 in the middle of 60 x 80."""
    masks = torch.zeros(rows, frames, 60, 80)
    masks[..., 24:36, 34:46] = 1
    return masks


def test_torn_masks_lose_one_side_and_gain_nothing() -> None:
    masks = squares(200)
    left = torn(masks)
    assert bool((left <= masks).all())
    shares = left.sum((1, 2, 3)) / masks.sum((1, 2, 3))
    assert 0.4 < shares.mean() < 0.6
    assert shares.min() < 0.2
    assert shares.max() > 0.8


def test_the_cut_is_straight() -> None:
    masks = squares(1)
    left = torn(masks)[0, 0, 24:36, 34:46]
    steps = left.diff(dim=1)
    assert ((steps != 0).sum(1) <= 1).all(), "a row of pixels is cut once at most"


def test_doubled_masks_keep_the_object_and_hold_it_again_elsewhere() -> None:
    masks = squares(200)
    both = doubled(masks)
    assert torch.equal(torch.minimum(both, masks), masks)
    added = (both - masks).sum((1, 2, 3)) / masks.sum((1, 2, 3))
    assert (added > 0.1).float().mean() > 0.9
    assert (added <= 1.05).all()
    apart = added > 0.95
    assert 0.3 < apart.float().mean() < 1, "most copies lie by themselves, some overlap"


@pytest.mark.parametrize("change", [torn, doubled])
def test_all_frames_of_a_row_change_alike_and_rows_by_themselves(change) -> None:
    changed = change(squares(4, frames=2))
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.equal(changed[0], changed[1])


@pytest.mark.parametrize("change", [torn, doubled])
def test_an_empty_mask_stays_empty(change) -> None:
    empty = torch.zeros(2, 2, 30, 40)
    assert torch.equal(change(empty), empty)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_so_many_are_told_wrong(share: float) -> None:
    masks = squares(500)
    wrong = (misled(masks, share) != masks).flatten(1).any(1)
    smaller = (misled(masks, share).sum((1, 2, 3)) < masks.sum((1, 2, 3))).float().mean()
    assert abs(wrong.float().mean() - share) < 0.08
    assert abs(smaller - share / 2) < 0.08
