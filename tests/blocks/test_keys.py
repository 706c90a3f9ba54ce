"""Keys: at first a backbone's features, then what matching taught them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.blocks.keys import Keys, matching_loss
from onemask.blocks.matching import normalised
from onemask.labels import resize

CHANNELS = {4: 3, 8: 4, 16: 5, 32: 6}


def pyramid() -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {s: torch.randn(2, c, 64 // s, 96 // s, generator=generator) for s, c in ((4, 3), (8, 4), (16, 5), (32, 6))}


class TestKeys:
    def test_are_at_first_the_features_of_their_stride(self) -> None:
        features = pyramid()
        torch.testing.assert_close(Keys(CHANNELS, [16])(features), normalised(features[16]))

    def test_of_two_strides_are_both_joined_at_the_smaller(self) -> None:
        features = pyramid()
        joined = [normalised(features[8]), normalised(resize(features[16], (8, 12)))]
        torch.testing.assert_close(Keys(CHANNELS, [16, 8])(features), normalised(torch.cat(joined, 1)))

    @pytest.mark.parametrize("stride", [4, 8, 16, 32])
    def test_learn_from_every_stride(self, stride: int) -> None:
        torch.manual_seed(0)
        keys, features = Keys(CHANNELS, [16]), pyramid()
        torch.nn.init.normal_(keys.add.weight)
        found = keys(features)
        assert found.shape == (2, 5, 4, 6)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 4, 6))
        assert not torch.allclose(keys(features | {stride: features[stride].flip(1)}), found)

    def test_a_cell_is_made_of_what_lies_in_it(self) -> None:
        torch.manual_seed(0)
        keys, features = Keys({4: 3, 16: 5}, [16]), pyramid()
        torch.nn.init.normal_(keys.add.weight)
        changed = features[4].clone()
        changed[:, :, 4:8, 8:12] += 1  # the cell in row 1, column 2
        differs = (keys(features | {4: changed}) != keys(features)).any(1)
        assert differs.sum() == 2
        assert differs[:, 1, 2].all()


class TestMatchingLoss:
    def test_of_three_cells_by_hand(self) -> None:
        difference = torch.tensor([[[0.3, -0.5, 0.5]]])
        share, known = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.ones(1, 1, 3)
        missed, fine, wrong = F.softplus(torch.tensor([-3.6, -6.0, 6.0]))
        off = (0 + fine + wrong) / 3  # the worst are all three here, the object's own counting as none
        assert matching_loss(difference, share, known).item() == pytest.approx(
            (missed + ((fine + wrong) / 2 + off) / 2).item(), rel=1e-5
        )

    def test_cells_that_are_not_certain_or_not_known_do_not_count(self) -> None:
        difference = torch.rand(1, 1, 4)
        share, known = torch.tensor([[[1.0, 0.0, 0.4, 0.0]]]), torch.tensor([[[1.0, 1.0, 1.0, 0.5]]])
        other = difference.clone()
        other[..., 2:] = torch.rand(1, 1, 2)
        assert torch.equal(matching_loss(difference, share, known), matching_loss(other, share, known))

    def test_without_an_object_only_its_doubles_count(self) -> None:
        loss = matching_loss(torch.rand(2, 3, 3), torch.zeros(2, 3, 3), torch.ones(2, 3, 3))
        assert loss.isfinite().all()
        assert (loss > 0).all()
