"""The clues of the fusion: what they say of made-up features and masks, against loops that are easy to believe."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onemask.methods.fusion import clues
from onemask.methods.fusion.clues import (
    TILE,
    cells_of_classes,
    class_means,
    cosine_with_means,
    nearness,
    windowed_match,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=1)


class TestCellsOfClasses:
    def test_a_cell_is_of_what_covers_more_than_half_of_it(self) -> None:
        mask = torch.zeros(1, 1, 32, 48)
        mask[..., :16, :10] = 1  # ten sixteenths of the first cell
        mask[..., :16, 16:20] = 1  # a quarter of the second
        cells = cells_of_classes(mask, (2, 3))
        assert cells[0, 1].tolist() == [[1, 0, 0], [0, 0, 0]]
        assert torch.equal(cells[0, 0], 1 - cells[0, 1])

    def test_an_object_without_such_a_cell_has_the_one_that_it_covers_most(self) -> None:
        mask = torch.zeros(1, 1, 32, 48)
        mask[..., 14:16, 20:24] = 1
        mask[..., 16:18, 20:23] = 1
        assert cells_of_classes(mask, (2, 3))[0, 1].tolist() == [[0, 1, 0], [0, 0, 0]]

    def test_what_is_not_there_has_no_cell(self) -> None:
        assert cells_of_classes(torch.zeros(1, 1, 32, 48), (2, 3))[0, 1].sum() == 0


class TestWindowedMatch:
    @pytest.mark.parametrize(("pairs", "rows"), [(1, 1), (1, 3), (3, 3)])
    @pytest.mark.parametrize("grid", [(4, 6), (TILE[0] + 2, 2 * TILE[1] + 3)], ids=["in one tile", "over tiles"])
    def test_is_the_best_cosine_within_the_window(self, pairs: int, rows: int, grid: tuple[int, int]) -> None:
        height, width = grid
        query, template = unit(pairs, 5, *grid), unit(pairs, 5, *grid, seed=1)
        cells = (torch.rand(rows, 2, *grid, generator=torch.Generator().manual_seed(2)) > 0.4).float()
        radius = 2
        wanted = torch.zeros(rows, 2, *grid)
        for row in range(rows):
            for y in range(height):
                for x in range(width):
                    down, across = (slice(max(0, at - radius), at + radius + 1) for at in (y, x))
                    keys = template[row % pairs, :, down, across]
                    cosines = torch.einsum("c,chw->hw", query[row % pairs, :, y, x], keys)
                    wanted[row, :, y, x] = (cosines * cells[row, :, down, across]).flatten(1).amax(1).clamp(min=0)
        torch.testing.assert_close(windowed_match(query, template, cells, radius), wanted)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
    @pytest.mark.parametrize("pairs", [1, 3])
    def test_a_part_of_the_frame_is_enough_on_a_cpu(
        self, pairs: int, share: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        query, template = unit(pairs, 5, 12, 15), unit(pairs, 5, 12, 15, seed=1)
        cells = (torch.rand(3, 2, 12, 15, generator=torch.Generator().manual_seed(2)) < share).float()
        cells[1, :, :, :9], cells[2, 0] = cells[1, 0, 0, 0], 1  # in one corner, and everywhere
        found = windowed_match(query, template, cells, 2)
        monkeypatch.setattr(clues, "eager_on_cpu", lambda tensor: False)
        assert torch.equal(found, windowed_match(query, template, cells, 2))

    def test_nothing_of_a_class_in_reach_is_0(self) -> None:
        features, cells = unit(1, 5, 4, 12), torch.zeros(1, 2, 4, 12)
        cells[:, 0], cells[:, 1, :, 0] = 1, 1
        match = windowed_match(features, features, cells, 3)
        assert (match[0, 1, :, 4:] == 0).all()
        torch.testing.assert_close(match[0, 1, :, 0], torch.ones(4))


class TestMeans:
    def test_of_each_class_over_its_cells(self) -> None:
        features = torch.arange(12.0).view(1, 2, 2, 3)
        cells = torch.zeros(1, 2, 2, 3)
        cells[0, 1, 0, :2] = 1
        means = class_means(features, cells)
        assert means[0, 1].tolist() == [0.5, 6.5]
        assert means[0, 0].tolist() == [0, 0]

    def test_a_cell_like_the_mean_has_a_cosine_of_1_and_an_empty_class_0(self) -> None:
        query = unit(1, 4, 2, 3)
        means = torch.stack([torch.zeros(4), 0.3 * query[0, :, 1, 2]])[None]
        cosine = cosine_with_means(query, means)
        assert cosine[0, 1, 1, 2].item() == pytest.approx(1, abs=1e-5)
        assert (cosine[0, 0] == 0).all()


def test_nearness_falls_from_the_mask_outward() -> None:
    mask = torch.zeros(1, 1, 32, 128)
    mask[..., 16:20, 0:4] = 1
    row = nearness(mask, (8, 32))[0, 0, 4]
    assert row[0] == 1
    assert (row.diff() <= 0).all()
    assert row[1] == row[0] * 0.75
    assert row[-1] == 0
