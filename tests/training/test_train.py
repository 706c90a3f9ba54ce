"""A training from its recipe to weights that run: it learns, it can be killed, it can be split over processes."""

from __future__ import annotations

from made_training import a_recipe, losses, stage

from onemask.training.train import Hardware, train

CPU = Hardware("cpu")


def test_the_loss_falls(tmp_path, data):
    recipe = a_recipe(tmp_path, stage(iterations=30, distinct=2, cache=True))
    trained = train(recipe, tmp_path / "out", data=data, hardware=CPU)
    curve = losses(tmp_path / "out")
    assert trained.steps == 30
    assert curve[-3:].mean() < 0.7 * curve[:3].mean()
