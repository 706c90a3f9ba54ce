"""What Fusion matches: keys, or features as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from onemask.blocks.matching import normalised
from onemask.methods.fusion import FusionConfig


class TestKeysOfFusion:
    @pytest.mark.parametrize(("clues", "learned"), [(("target", "place"), False), (("place", "medial"), True)])
    def test_are_learned_only_where_a_clue_is_matched(self, clues: tuple[str, ...], learned: bool) -> None:
        method = FusionConfig("test_efficientnet", channels=8, width=8, fine_width=8, clues=clues).build(
            pretrained=False
        )
        assert (method.keys is not None) == learned
        assert method.own_losses == (("matching",) if learned else ())
        assert ("keys" in method.config.architecture) == learned

    def test_are_none_where_features_are_matched_as_they_are(self) -> None:
        with_keys = FusionConfig("test_efficientnet", channels=8, width=8, fine_width=8)
        without = replace(with_keys, keys=False)
        method = without.build(pretrained=False).eval()
        frames = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            features = method.encode(frames)
        assert method.keys is None
        assert torch.equal(features.matching, normalised(features.target.float()))
        assert without.architecture.keys() == with_keys.architecture.keys() - {"keys"}
