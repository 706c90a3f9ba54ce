"""What is not a row's own, matched for all rows at once: as if each were matched by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onemask.blocks.matching import NO_MATCH, indices_of, mean_of_valid, normalised
from onemask.methods.videomatch import annotated_frame
from onemask.methods.videomatch.annotated_frame import AnnotatedFrame

CELLS, PIXELS = 300, 90


def some(rows: int, places: int, seed: int = 0) -> Tensor:
    return normalised(torch.randn(rows, 8, places, generator=torch.Generator().manual_seed(seed)))


def plainly(frame: AnnotatedFrame, query: Tensor, wanted: Tensor, k: int) -> list[Tensor]:
    """Row by row, pixel by pixel: the mean of the k best."""
    means = []
    for row in range(len(frame.own)):
        seen = query[row if len(query) > 1 else 0][:, wanted[row]]
        a = (seen.T @ frame.features[row][:, ~frame.own[row]]).sort(1, descending=True).values[:, :k]
        means.append(a.mean(1) if a.shape[1] else torch.full((len(a),), NO_MATCH))
    return means


@pytest.fixture
def frame() -> AnnotatedFrame:
    """Rows 0, 1, 2, 4 and 5 of one frame, row 3 of another. 1 overlaps 0; 4 has nothing, 5 everything."""
    features = some(2, CELLS)[[0, 0, 0, 1, 0, 0]]
    own = torch.zeros(6, CELLS, dtype=torch.bool)
    own[0, :100], own[1, 80:130], own[2, 200:203], own[3, 50:90], own[5] = True, True, True, True, True
    return AnnotatedFrame(features, own, torch.tensor([7, 7, 7, 9, 7, 7]))


@pytest.fixture
def wanted() -> Tensor:
    return torch.rand(6, PIXELS, generator=torch.Generator().manual_seed(3)) < 0.6


def query_of(frame: AnnotatedFrame) -> Tensor:
    """Pixels that resemble cells from all over the frame: of what is 0's own most have many of 0's near them."""
    near = frame.features[:1, :, torch.arange(0, CELLS, CELLS // PIXELS)[:PIXELS]]
    return normalised(near + 0.5 * some(1, PIXELS, seed=1))


@pytest.mark.parametrize("k", [1, 5, 20, 200, 1000])
def test_rows_together_are_as_rows_alone(frame, wanted, k):
    query = query_of(frame)
    of_all = plainly(frame, query, wanted, k)
    for asked in (query, query.expand(6, -1, -1)):
        found = frame.best_of_others(asked, indices_of(wanted), k)
        assert all(values.shape[2] <= k for values in found)
        for values, mean in zip(found, of_all, strict=True):
            assert torch.allclose(mean_of_valid(values)[0], mean, atol=1e-5)


def test_half_precision(frame, wanted):
    query = query_of(frame)
    half = AnnotatedFrame(frame.features.half(), frame.own, frame.frame_of_row)
    for values, mean in zip(
        half.best_of_others(query.half(), indices_of(wanted), 20), plainly(frame, query, wanted, 20), strict=True
    ):
        assert values.dtype == torch.float16
        assert torch.allclose(mean_of_valid(values)[0].float(), mean, atol=5e-3)


def test_rows_that_look_at_other_frames(frame, wanted):
    query = some(6, PIXELS, seed=4)
    for values, mean in zip(
        frame.best_of_others(query, indices_of(wanted), 5), plainly(frame, query, wanted, 5), strict=True
    ):
        assert torch.allclose(mean_of_valid(values)[0], mean, atol=1e-5)


def test_rows_of_one_frame_are_matched_once(frame, wanted, monkeypatch):
    sizes = []

    def watched(query: Tensor, template: Tensor, k: int) -> tuple[Tensor, Tensor]:
        sizes.append((query.shape[2], template.shape[2]))
        return original(query, template, k)

    original = annotated_frame.top_k
    monkeypatch.setattr(annotated_frame, "top_k", watched)
    frame.best_of_others(query_of(frame), indices_of(wanted), 5)
    whole, *others = [pixels for pixels, cells in sizes if cells == CELLS]
    assert whole == wanted[[0, 1, 2, 4, 5]].any(0).sum()
    assert not others
    again = {cells: pixels for pixels, cells in sizes if cells < CELLS}
    assert again[CELLS - 40] == wanted[3].sum()  # the row of the other frame
    assert 0 < again[CELLS - 100] < wanted[0].sum()  # in the midst of object 0
    assert CELLS - 3 not in again  # it cannot have more than k of the best


def test_gradients_are_those_of_rows_alone(frame, wanted):
    query, of_ways = query_of(frame), []
    for asked in (query, query.expand(6, -1, -1)):
        features, seen = frame.features.clone().requires_grad_(), asked.clone().requires_grad_()
        values = AnnotatedFrame(features, frame.own, frame.frame_of_row).best_of_others(seen, indices_of(wanted), 5)
        torch.cat([mean_of_valid(v)[0] for v in values]).square().sum().backward()
        assert features.grad is not None
        assert seen.grad is not None
        # Rows of one frame hold the same features, so it is their sum that counts.
        of_ways.append((features.grad[[0, 1, 2, 4, 5]].sum(0), features.grad[3], seen.grad.sum(0)))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*of_ways, strict=True))


def test_a_large_frame_is_thinned_alike_for_all_rows(frame):
    thinned = AnnotatedFrame.of(frame.features, frame.own, 100)
    assert torch.equal(thinned.features, frame.features[:, :, 2::3])
    assert torch.equal(thinned.own, frame.own[:, 2::3])
    whole = AnnotatedFrame.of(frame.features, frame.own, CELLS)
    assert torch.equal(whole.features, frame.features)
