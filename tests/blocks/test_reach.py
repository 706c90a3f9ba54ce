"""Where an object may be: cells, extrusion, and how reach grows while an object is lost."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.blocks.reach import (
    RECENT,
    REMOVED,
    _by_axes,
    _grown,
    _largest_allowed,
    any_above,
    area,
    cells_of,
    connected,
    extruded,
    is_lost,
    largest,
    next_reach,
    reach_by_size,
    squared_distances,
    touched,
    without_outliers,
)
from onemask.labels import resize
from pretended_gpu import pretended_gpu


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (64, 96)) -> Tensor:
    mask = torch.zeros(1, 1, *size)
    mask[:, :, top:bottom, left:right] = 1
    return mask


def test_cells_of():
    assert cells_of(box(8, 24, 16, 32), (8, 12)).nonzero()[:, 2:].tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert cells_of(box(8, 12, 16, 24), (8, 12)).sum() == 1  # a half is enough
    assert cells_of(box(9, 11, 17, 19), (8, 12)).nonzero()[:, 2:].tolist() == [[1, 2]]  # too small: most covered
    assert not cells_of(box(0, 0, 0, 0), (8, 12)).any()


def test_extruded_is_nearer_than_the_radius():
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[0, 0, 4, 4] = True
    away = torch.tensor([[np.hypot(y - 4, x - 4) for x in range(9)] for y in range(9)])
    for radius in (0.3, 1.0, 1.5, 3.0, 3.2):
        assert torch.equal(extruded(mask, radius)[0, 0], (away < radius) | (away == 0))


def test_an_object_is_lost_below_a_share_of_its_annotated_cells():
    masks = torch.cat([box(0, 8, 0, 8 * n) for n in (0, 1, 2)]).bool()
    cells = cells_of(masks.float(), (8, 12))
    assert is_lost(cells, torch.tensor([10.0, 10, 10]), 0.15).tolist() == [True, True, False]
    assert is_lost(cells, torch.tensor([10.0, 10, 10]), 0).tolist() == [True, False, False]


def test_reach_grows_while_an_object_is_lost_and_follows_it_while_it_is_not():
    reach, found = (cells_of(box(*sides), (8, 12)) for sides in ((0, 8, 0, 8), (40, 48, 80, 88)))
    lost, known = (torch.tensor([value]) for value in (True, False))
    assert torch.equal(next_reach(reach, found, known, 1.5), extruded(found, 1.5))
    assert torch.equal(next_reach(reach, found, lost, 1.5), extruded(reach | found, 1.5))


def test_only_what_is_out_of_reach_is_removed():
    logits = torch.full((1, 1, 64, 96), 3.0)
    logits[..., 95] = -20.0
    kept = without_outliers(logits, cells_of(box(0, 64, 0, 48), (8, 12)))
    assert (kept[..., :48] == 3).all()
    assert (kept[..., 52:95] == REMOVED).all()
    assert (kept[..., 95] == -20).all()


def test_parts_with_a_seed_are_connected():
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)[
        None, None
    ]
    seeds = torch.zeros_like(mask)
    seeds[..., 0, 0] = seeds[..., 2, 4] = True  # the second lies beside the mask
    assert connected(mask, seeds)[0, 0].int().tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0] * 5, [0] * 5]
    long = torch.ones(1, 1, 1, 100, dtype=torch.bool)
    assert connected(long, torch.arange(100).view(1, 1, 1, 100) == 0).all()


def test_a_gpu_is_waited_for_once_where_parts_are_small():
    mask, seeds = torch.ones(1, 1, 8, 8, dtype=torch.bool), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    seeds[0, 0, 4, 4] = True
    with pretended_gpu() as gpu:
        assert connected(mask.to("cuda"), seeds.to("cuda")).sum().cpu() == 64
    assert gpu.waits == {"tolist": 1, "cpu": 1}


def test_what_is_connected_with_what_is_near_is_kept_whole():
    logits = torch.full((1, 1, 64, 96), -3.0)
    logits[..., 16:32, 8:72] = 3  # from within reach far out of it
    logits[..., 48:56, 80:88] = 3  # by itself
    kept = without_outliers(logits, cells_of(box(0, 64, 0, 24), (8, 12)), whole=True)
    assert (kept[..., 16:32, 8:72] == 3).all()
    assert (kept[..., 48:56, 80:88] == REMOVED).all()
    assert (kept[..., :24] == logits[..., :24]).all()


def test_cells_that_are_touched():
    assert touched(box(15, 17, 30, 31), (8, 12)).nonzero()[:, 2:].tolist() == [[1, 3], [2, 3]]


def test_reach_by_size():
    unseen = torch.full((3, 1, 1, 20), RECENT, dtype=torch.uint8)
    unseen[:2, ..., 10] = RECENT - 1  # of the third nothing is known
    size, away = torch.tensor([2.0, 10, 10]), torch.tensor([0, 2, 0])
    reach = reach_by_size(unseen, size, away, 0.2)[:, 0, 0].nonzero().tolist()
    columns = [[column for row, column in reach if row == n] for n in range(3)]
    assert columns == [[9, 10, 11], list(range(4, 17)), list(range(20))]


def test_what_opencv_computes_on_a_cpu_is_what_any_device_computes():
    generator = torch.Generator().manual_seed(0)
    for height, width, share in [(60, 108, 0.001), (60, 108, 0.5), (33, 7, 0.1), (1, 40, 0.3), (12, 12, 0.0)]:
        mask, seeds = (torch.rand(2, 1, height, width, generator=generator) < s for s in (share, 0.02))
        assert torch.equal(squared_distances(mask), _by_axes(mask))
        assert torch.equal(connected(mask, seeds), _grown(mask, seeds)[0])
        size = (8 * height, 8 * width)
        logits = 20 * torch.randn(2, 1, *size, generator=generator)
        kept = torch.where(resize(mask.float(), size) > 0.5, logits, logits.clamp(max=REMOVED))
        assert torch.equal(torch.minimum(logits, _largest_allowed(mask, size)), kept)


def test_no_row_at_all():
    none = torch.zeros(0, 1, 6, 8, dtype=torch.bool)
    assert squared_distances(none).shape == connected(none, none).shape == none.shape
    assert without_outliers(torch.zeros(0, 1, 48, 64), none, whole=True).shape == (0, 1, 48, 64)


def test_what_an_area_was_made_of_is_not_kept():
    assert not area(torch.rand(1, 1, 4, 4, requires_grad=True)).requires_grad


def test_largest_of_cells_and_area():
    maps = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    for grid in [(6, 5), (48, 40), (5, 7)]:
        assert torch.equal(largest(maps, grid), F.adaptive_max_pool2d(maps, grid))
    for some in (maps[:, :1], maps[:, :1].contiguous(), maps[:, :1].double()):
        for least in (0.5, 0.99):
            assert torch.equal(any_above(some, (6, 5), least), F.adaptive_max_pool2d(some, (6, 5)) > least)
            assert torch.equal(any_above(some, (48, 40), least), some > least)
    maps[0, 0, 0, :4] = torch.tensor([0.5, 0.5000001, 1.0, 0.4999999])
    wanted = (maps > 0.5).sum((1, 2, 3)).float()
    for of in (maps, maps > 0.5, maps.double(), (maps > 0.5).flatten(1, 2)):
        assert torch.equal(area(of), wanted)


def test_what_is_no_number_is_above_nothing_and_hides_nothing():
    maps = torch.zeros(1, 1, 16, 24)
    maps[0, 0, 3, 4] = maps[0, 0, 12, 20] = torch.nan
    maps[0, 0, 5, 6] = 1
    cells = torch.tensor([[True, False, False], [False, False, False]])
    for odd in (maps, maps.double()):  # by NumPy, and as on other devices
        assert torch.equal(any_above(odd, (2, 3), 0)[0, 0], cells)
        assert area(odd).tolist() == [1]
    assert torch.equal(any_above(maps, (1, 2), 0)[0, 0], torch.tensor([[True, False]]))
