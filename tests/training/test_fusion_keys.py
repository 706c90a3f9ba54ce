"""What is learned of Fusion's clues: every clue that matches teaches it, and memories that were kept follow it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_training import a_recipe, stage

from onemask.data.sources import open_mixture
from onemask.methods.fusion import FusionConfig
from onemask.methods.fusion.model import Fusion
from onemask.training.cache import ClipCache
from onemask.training.recipe import Recipe
from onemask.training.unroll import ClipBatch, Unroll, batch_of, joined

TINY = FusionConfig(
    "test_efficientnet", channels=8, width=8, fine_width=8, capacity=8, first_samples=2, update_every=0,
    forget=0.0, misled=0.0,
)  # fmt: skip


def made(config: FusionConfig = TINY, *, learned: float = 0.0) -> Fusion:
    torch.manual_seed(0)
    method = config.build(pretrained=False).eval()
    for part in (method.join, method.keys):
        for parameter in part.parameters() if part is not None else ():
            torch.nn.init.normal_(parameter, std=0.1 if part is method.join else learned)
    return method


def clips(tmp_path, data) -> tuple[Recipe, list[ClipBatch]]:
    recipe = a_recipe(tmp_path, stage(distinct=2, cache=True, update=True))
    staged = recipe.stages[0]
    mixture = open_mixture(staged.data, 0, data)
    return recipe, [batch_of([mixture.clip(number, staged.request(1.0))]) for number in range(2)]


class TestTraining:
    @pytest.mark.parametrize("clue", ["first", "bank", "local", "medial"])
    def test_each_clue_that_matches_teaches_keys(self, tmp_path, data, clue: str) -> None:
        _, batches = clips(tmp_path, data)
        method = made(replace(TINY, clues=(clue,))).train()
        unrolled = Unroll(method, ["matching"], update=True).unrolled(batches[0])
        unrolled.losses["matching"].backward()
        assert method.keys is not None
        assert method.keys.add.weight.grad is not None
        assert method.keys.add.weight.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in method.backbone.parameters())

    def test_the_masks_teach_them_too(self, tmp_path, data) -> None:
        _, batches = clips(tmp_path, data)
        method = made().train()
        Unroll(method, ["cross_entropy"], update=True).unrolled(batches[0]).losses["cross_entropy"].backward()
        assert method.keys is not None
        assert method.keys.add.weight.grad is not None
        assert method.keys.add.weight.grad.abs().sum() > 0

    def test_memories_that_were_kept_are_matched_with_the_keys_of_now(self, tmp_path, data) -> None:
        recipe, batches = clips(tmp_path, data)
        cache = ClipCache(tmp_path / "cache", made(), recipe, recipe.stages[0])
        for number, batch in enumerate(batches):
            cache.fill(number, batch)
        kept = joined([cache.read(number) for number in range(2)])
        assert kept.memory is not None
        for learned in (0.0, 0.5):
            method = made(learned=learned)
            assert ClipCache(tmp_path / "cache", method, recipe, recipe.stages[0]).folder == cache.folder
            unroll = Unroll(method, ["matching", "cross_entropy"], update=True)
            with torch.no_grad():
                one, other = unroll.unrolled(kept), unroll.unrolled(joined(batches))
            for name, loss in one.losses.items():
                assert loss.item() == pytest.approx(other.losses[name].item(), rel=1e-2)

    def test_caches_without_keys_are_others(self, tmp_path, data) -> None:
        recipe, _ = clips(tmp_path, data)
        with_keys, without = (
            ClipCache(tmp_path / "cache", made(replace(TINY, keys=keys)), recipe, recipe.stages[0]).folder
            for keys in (True, False)
        )
        assert with_keys != without
