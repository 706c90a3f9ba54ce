from __future__ import annotations

import torch

from onemask.blocks.sharing import groups


def test_rows_of_one_frame_are_a_group():
    assert groups(torch.tensor([5, 2, 7, 5, 2]), 5) == [[0, 3], [1, 4], [2]]


def test_where_nothing_is_known_rows_share_nothing():
    assert groups(None, 3) == [[0], [1], [2]]
