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
        assert after.features[0, 0].tolist() == [0, 1, 2, 80, 70]  # least used first
        assert after.usage[0, [3, 4]].tolist() == pytest.approx([np.mean([8.1, 5.9, 4.5, 1.8])] * 2)

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
