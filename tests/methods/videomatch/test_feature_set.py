"""Bounded sets: what comes in, what stays, what goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onemask.methods.videomatch.feature_set import EMPTY, KEPT, FeatureSet, spread


def test_spread_evenly():
    features = torch.arange(10.0).expand(2, 1, 10)
    chosen = torch.tensor([[True] * 10, [False, True] * 5])
    packed, valid = spread(features, chosen, 5)
    assert packed[:, 0].tolist() == [[1, 3, 5, 7, 9]] * 2
    assert valid.all()
    packed, valid = spread(features, chosen[1:], 7)
    assert packed[0, 0, :5].tolist() == [1, 3, 5, 7, 9]
    assert valid.tolist() == [[True] * 5 + [False] * 2]


class TestSets:
    def some(self, count: int) -> FeatureSet:
        return FeatureSet.of(torch.arange(10.0)[None, None], torch.arange(10)[None] < count, 4, 8)

    def test_the_annotated_frame_has_its_share_and_stays(self):
        full = self.some(10)
        assert full.usage.tolist() == [[KEPT] * 4 + [EMPTY] * 4]
        new, every = torch.full((1, 1, 3), 50.0), torch.ones(1, 3, dtype=torch.bool)
        for _ in range(5):
            full = full.after(torch.zeros(1, 8), new, every, 3)
        assert full.features[0, 0, :4].tolist() == [2, 4, 7, 9]
        assert (full.features[0, 0, 4:] == 50).all()

    def test_those_in_use_come_first(self):
        few = self.some(2).after(torch.zeros(1, 8), torch.full((1, 1, 1), 50.0), torch.tensor([[True]]), 1)
        assert (few.usage != EMPTY).sum() == 3
        assert few.features[0, 0].tolist() == [0, 1, 50, 0, 0, 0, 0, 0]

    def test_rarely_used_ones_are_dropped(self):
        full = FeatureSet(torch.arange(5.0)[None, None], torch.tensor([[KEPT, 9.0, 1.0, 5.0, 2.0]]))
        counts = torch.tensor([[0.0, 0.0, 50.0, 0.0, 0.0]])
        after = full.after(counts, torch.tensor([[[70.0, 80.0]]]), torch.ones(1, 2, dtype=torch.bool), 2)
        assert after.features[0, 0].tolist() == [0, 1, 2, 70, 80]  # those that are left, then the new ones
        assert after.usage[0, [3, 4]].tolist() == pytest.approx([np.mean([8.1, 5.9, 4.5, 1.8])] * 2)

    def test_of_those_that_were_used_alike_the_younger_goes(self):
        """Else a sort decides, and the last digits of a runtime with it."""
        few = FeatureSet(torch.arange(200.0)[None, None], torch.full((1, 200), 3.0))
        after = few.after(torch.zeros(1, 200), torch.full((1, 1, 1), 500.0), torch.tensor([[True]]), 1)
        assert after.features[0, 0].tolist() == [*range(199), 500]

    def test_rows_of_which_one_has_room_change_as_they_do_alone(self):
        sets = FeatureSet(
            torch.arange(10.0).view(2, 1, 5), torch.tensor([[KEPT, 2.0, 1.0, EMPTY, EMPTY], [KEPT, 1.0, 3.0, 2.0, 5.0]])
        )
        counts, new = torch.ones(2, 5), torch.tensor([[[70.0, 80.0, 90.0]]]).expand(2, -1, -1)
        chosen = torch.tensor([[True, True, True], [False, True, False]])
        after = sets.after(counts, new, chosen, 3)
        assert after.features[:, 0].tolist() == [[0, 1, 70, 80, 90], [5, 7, 8, 9, 80]]
        for row in range(2):
            alone = sets.row(row).after(counts[row, None], new[row, None], chosen[row, None], 3)
            assert torch.equal(alone.features, after.row(row).features)
            assert torch.equal(alone.usage, after.row(row).usage)

    def test_nothing_chosen_changes_nothing(self):
        full = self.some(10)
        after = full.after(torch.zeros(1, 8), torch.ones(1, 1, 3), torch.zeros(1, 3, dtype=torch.bool), 3)
        assert torch.equal(after.features, full.features)
        assert torch.equal(after.usage, full.usage)

    def test_gradients_pass_through_what_is_added(self):
        new = torch.ones(1, 1, 3, requires_grad=True)
        self.some(10).after(torch.zeros(1, 8), new, torch.ones(1, 3, dtype=torch.bool), 3).features.sum().backward()
        assert new.grad is not None
        assert new.grad.tolist() == [[[1, 1, 1]]]
