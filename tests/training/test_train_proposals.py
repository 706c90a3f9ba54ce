"""Training of the proposal network: what it learns from, its files, and going on after an interruption."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from made_training import history

import onemask
from onemask.cli import main
from onemask.data.sources import open_mixture
from onemask.errors import InputError
from onemask.methods.dmn_aoa.proposals import LITE, LiteConfig, ProposalGenerator, Proposals, maskrcnn_lite
from onemask.training import train as training
from onemask.training.detection import RecallValidator, objects_of
from onemask.training.recipe import read_recipe
from onemask.training.train import Hardware, task_of, train
from onemask.weights.store import check, find, read

RECIPES = Path(__file__).parents[2] / "recipes" / "proposals"
TINY = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)
RECIPE = f"""
method: {LITE}
options: {asdict(TINY)}
workers: 0
held_out: 3
stages:
  - name: heads
    data: [{{kind: stills, root: stills}}]
    size: [64, 96]
    length: 2
    batch: 1
    iterations: 2
    losses: &losses {{loss_objectness: 1, loss_rpn_box_reg: 1, loss_classifier: 1, loss_box_reg: 1, loss_mask: 1}}
    optimiser: {{name: adam, lr: 1.0e-3, groups: {{backbone.backbone: 0.0}}}}
  - name: all
    data: [{{kind: stills, root: stills}}]
    size: [64, 96]
    length: 2
    batch: 1
    iterations: 2
    losses: *losses
    optimiser: {{name: adam, lr: 1.0e-3, groups: {{backbone.backbone: 0.1}}}}
"""


@pytest.fixture
def data(tmp_path, make_clip) -> Path:
    clip = make_clip(4, 2, (96, 128))
    for folder in ("images", "masks"):
        (tmp_path / "stills" / folder).mkdir(parents=True)
    for number, (frame, labels) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
        cv2.imwrite(str(tmp_path / f"stills/images/{number}.png"), frame[..., ::-1])
        cv2.imwrite(str(tmp_path / f"stills/masks/{number}.png"), labels)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def trained(data: Path, out: str = "out", **options: Any) -> training.Trained:
    return train(read_recipe(data / "recipe.yaml"), data / out, data=data, hardware=Hardware("cpu"), **options)


class TestObjects:
    def test_boxes_are_the_pixels_outer_edges(self):
        labels = torch.zeros(20, 30, dtype=torch.uint8)
        labels[2:5, 7:20] = 1
        labels[10:20, 0:4] = 4
        labels[0:2] = 255
        objects = objects_of(labels)
        assert objects["boxes"].tolist() == [[7, 2, 20, 5], [0, 10, 4, 20]]
        assert objects["labels"].tolist() == [1, 1]
        assert objects["masks"].dtype == torch.uint8
        assert torch.equal(objects["masks"][1], (labels == 4).to(torch.uint8))

    @pytest.mark.parametrize("pixels", [(), ((3, 3),)], ids=["nothing", "a pixel"])
    def test_what_is_too_small_is_left_out(self, pixels):
        labels = torch.zeros(8, 9, dtype=torch.uint8)
        for y, x in pixels:
            labels[y, x] = 1
        objects = objects_of(labels)
        assert objects["boxes"].shape == (0, 4)
        assert objects["masks"].shape == (0, 8, 9)


class TestTraining:
    def test_weights_with_their_card_and_recall(self, data):
        result = trained(data)
        card, path = check(result.best), data / "out/best.safetensors"
        assert (card.method, card.architecture, card.scores) == (LITE, asdict(TINY), result.scores)
        assert set(card.scores) == {"held-out stills AR@10", "held-out stills AR@30"}
        network = maskrcnn_lite(TINY, pretrained=False)
        network.load_state_dict(read(path))
        lines = history(data / "out")
        steps = [line for line in lines if "loss" in line]
        assert [(line["stage"], line["step"]) for line in steps] == [("heads", 1), ("heads", 2), ("all", 3), ("all", 4)]
        assert all(line["loss_mask"] > 0 for line in steps)
        assert [line["step"] for line in lines if "held-out stills AR@30" in line] == [2, 4]

    def test_what_is_held_out_is_not_seen(self, data):
        recipe = read_recipe(data / "recipe.yaml")
        assert len(open_mixture(recipe.stages[0].data, 0, data, recipe.held_out)) == 2
        validator = task_of(recipe, data).validator()
        assert {name: len(pictures) for name, pictures in validator.pictures.items()} == {"held-out stills": 2}

    def test_sets_that_are_held_out_are_told_apart(self, data):
        for folder in ("one/stills", "other/stills"):
            shutil.copytree(data / "stills", data / folder)
        sources = "stages.0.data=[{kind: stills, root: one/stills}, {kind: stills, root: other/stills}]"
        validator = task_of(read_recipe(data / "recipe.yaml", [sources]), data).validator()
        assert set(validator.pictures) == {"held-out one/stills", "held-out other/stills", "held-out stills"}

    def test_nothing_to_recall_is_refused(self, data):
        cv2.imwrite(str(data / "stills/masks/0.png"), np.zeros((96, 128), np.uint8))
        cv2.imwrite(str(data / "stills/masks/3.png"), np.zeros((96, 128), np.uint8))
        with pytest.raises(InputError, match="no picture of held-out stills has an object, so there is no recall"):
            trained(data)
        assert not (data / "out").exists()

    def test_goes_on_to_the_same_weights(self, data, monkeypatch):
        whole, steps, step = trained(data, "whole"), [], training.Training._step

        def interrupted(self, *arguments):
            if len(steps) == 3:
                raise RuntimeError("power cut")
            steps.append(step(self, *arguments))

        (data / "recipe.yaml").write_text(f"checkpoint_every: 1\n{RECIPE}")
        monkeypatch.setattr(training.Training, "_step", interrupted)
        with pytest.raises(RuntimeError, match="power cut"):
            trained(data, "cut")
        monkeypatch.undo()
        assert check(trained(data, "cut", resume=True).best).sha256 == check(whole.best).sha256
        assert history(data / "cut") == history(data / "whole")

    def test_begins_with_weights_of_its_own(self, data):
        best = trained(data).best
        (data / "recipe.yaml").write_text(f"weights: {best}\n{RECIPE}")
        network = task_of(read_recipe(data / "recipe.yaml"), data).begin(None)
        expected = read(best)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("stages.0.update=true", "update does not apply to maskrcnn-lite"),
            ("stages.0.losses={cross_entropy: 1}", "'cross_entropy' is not known; there are: loss_objectness"),
            ("stages.0.losses={loss_mask: 1}", "but its losses give it no gradient"),
            ("initial={backbone: ttvos-lite}", "initial does not apply"),
            ("options={channels: 9}", "channels must be a multiple of 8"),
            ("held_out=-1", "held_out must be 0 or more"),
        ],
    )
    def test_refuses(self, data, assignment, message):
        with pytest.raises(InputError, match=message):
            train(read_recipe(data / "recipe.yaml", [assignment]), data / "out", data=data, hardware=Hardware("cpu"))

    def test_the_recipe_that_ships(self):
        recipe = read_recipe(RECIPES / f"{LITE}.yaml")
        task_of(recipe, Path()).check(maskrcnn_lite(pretrained=False), 1)


def test_the_command(data, capsys):
    arguments = ["train", str(data / "recipe.yaml"), "--data", str(data), "--out", str(data / "out")]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "held-out stills AR@10" in capsys.readouterr().out


@pytest.mark.parametrize(("right", "recall"), [(24, 1.0), (16, 0.1)])
def test_recall(right, recall):
    """Of proposals that give the right box, and of those whose box is half of it."""
    labels = np.zeros((32, 48), np.uint8)
    labels[4:12, 8:24] = 1
    picture = np.zeros((32, 48, 3), np.uint8)

    class Fixed(ProposalGenerator):
        def forward(self, frames):
            boxes, scores = torch.zeros(1, 30, 4), torch.zeros(1, 30)
            boxes[0, 0], scores[0, 0] = torch.tensor([8, 4, right, 12]), 0.5
            return Proposals(boxes, scores, torch.zeros(1, 30, 28, 28))

    network = maskrcnn_lite(TINY, pretrained=False)
    validator = RecallValidator(network, {"a": [lambda: (picture, labels)], "b": [lambda: (picture, 0 * labels)]})
    validator.generator = Fixed(network)
    parts = [validator.scores(network, rank, of=2) for rank in range(2)]
    found = validator.validation(sum(parts))
    assert found.figures == pytest.approx({"a AR@10": recall, "a AR@30": recall})
    assert found.criterion == pytest.approx(recall)
    assert found.scores == {"a AR@10": 100 * recall, "a AR@30": 100 * recall}


def test_tuned_on_youtube_vos(tmp_path, make_clip):
    """The recipe that ships, two steps on a small folder in YouTube-VOS's layout, begins with the weights that ship."""
    clip = make_clip(3, 2, (96, 128))
    root = tmp_path / "youtube-vos/train"
    for folder in ("JPEGImages/squares", "Annotations/squares"):
        (root / folder).mkdir(parents=True)
    for number, (frame, labels) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
        cv2.imwrite(str(root / f"JPEGImages/squares/{number:05}.jpg"), frame[..., ::-1])
        cv2.imwrite(str(root / f"Annotations/squares/{number:05}.png"), labels)
    (root / "meta.json").write_text(json.dumps({"videos": {"squares": {"objects": {"1": {}, "2": {}}}}}))
    small = ["iterations=2", "batch=1", "size=[64, 96]", "optimiser.lr=1e-5"]
    recipe = read_recipe(
        RECIPES / "maskrcnn-lite-youtube-vos.yaml",
        ["workers=0", "validation.root=''", "precision=float32", *(f"stages.0.{value}" for value in small)],
    )
    train(recipe, tmp_path / "out", data=tmp_path, hardware=Hardware("cpu"))
    tuned, shipped = (read(path) for path in (tmp_path / "out/last.safetensors", find(LITE)))
    assert any(not torch.equal(tuned[name], shipped[name]) for name in shipped)
    assert all(torch.allclose(tuned[name], shipped[name], atol=1e-3) for name in shipped)
    assert len(ProposalGenerator(maskrcnn_lite(pretrained=False)).network.state_dict()) == len(tuned)
    onemask.load("dmn-aoa-lite", proposals=str(tmp_path / "out/last.safetensors"))
