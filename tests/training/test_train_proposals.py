"""Training of the proposal network: what it learns from, its files, and going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from onemask.cli import main
from onemask.errors import InputError, OutputError
from onemask.methods.dmn_aoa.proposals import LITE, LiteConfig, ProposalGenerator, maskrcnn_lite
from onemask.training import proposals as module
from onemask.training.proposals import objects_of, read_proposal_recipe, recall, train_proposals
from onemask.weights.store import check, read

RECIPES = Path(__file__).parents[2] / "recipes" / "proposals"
TINY = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)
RECIPE = """
workers: 0
held_out: 3
stages:
  - name: heads
    data: [{kind: stills, root: stills}]
    size: [64, 96]
    length: 2
    batch: 1
    iterations: 2
    losses: &losses {loss_objectness: 1, loss_rpn_box_reg: 1, loss_classifier: 1, loss_box_reg: 1, loss_mask: 1}
    optimiser: {name: adam, rate: 1.0e-3, groups: {backbone.backbone: 0.0}}
  - name: all
    data: [{kind: stills, root: stills}]
    size: [64, 96]
    length: 2
    batch: 1
    iterations: 2
    losses: *losses
    optimiser: {name: adam, rate: 1.0e-3, groups: {backbone.backbone: 0.1}}
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


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    monkeypatch.setattr(module, "maskrcnn_lite", lambda: maskrcnn_lite(TINY, pretrained=False))


def trained(data: Path, out: str = "out", **options: Any):
    return train_proposals(read_proposal_recipe(data / "recipe.yaml"), data / out, data=data, device="cpu", **options)


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
    def test_weights_with_their_card(self, data):
        card = trained(data)
        path = data / "out" / f"{LITE}.safetensors"
        assert check(path) == card
        assert card.method == LITE
        assert set(card.scores) == {"held-out stills AR@10", "held-out stills AR@30"}
        network = maskrcnn_lite(TINY, pretrained=False)
        network.load_state_dict(read(path))
        lines = [json.loads(line) for line in (data / "out/history.jsonl").read_text().splitlines()]
        assert [(line["stage"], line["step"]) for line in lines] == [("heads", 0), ("heads", 1), ("all", 0), ("all", 1)]

    def test_what_is_held_out_is_not_seen(self, data):
        (sources,) = {id(source): source for source, _ in module._sources(self.stage(data), 3, data)}.values()
        assert sources.stills.names == ("1", "2")
        held = module._measured(read_proposal_recipe(data / "recipe.yaml"), data)["held-out stills"]
        assert len(held) == len(list(held)) == 2

    def stage(self, data):
        return read_proposal_recipe(data / "recipe.yaml").stages[0]

    @pytest.mark.parametrize("every", [1, 2])
    def test_goes_on_to_the_same_weights(self, data, monkeypatch, every):
        whole = trained(data, "whole")
        steps = []
        learn = module._Training._learn

        def interrupted(training, *arguments):
            if len(steps) == 3:
                raise RuntimeError("power cut")
            steps.append(learn(training, *arguments))

        monkeypatch.setattr(module._Training, "_learn", interrupted)
        (data / "recipe.yaml").write_text(f"checkpoint_every: {every}\n" + RECIPE)
        with pytest.raises(RuntimeError, match="power cut"):
            trained(data, "cut")
        monkeypatch.setattr(module._Training, "_learn", learn)
        assert trained(data, "cut", resume=True).sha256 == whole.sha256
        assert (data / "cut/history.jsonl").read_text() == (data / "whole/history.jsonl").read_text()

    def test_refuses_to_go_on_with_another_recipe(self, data):
        trained(data)
        (data / "recipe.yaml").write_text("seed: 2\n" + RECIPE)
        with pytest.raises(InputError, match=r"holds a training of proposals that was started with seed 0 \(now 2\)"):
            trained(data, resume=True)

    def test_refuses_a_folder_that_is_taken(self, data):
        (data / "out").mkdir()
        (data / "out/thesis.tex").touch()
        with pytest.raises(OutputError, match="exists already"):
            trained(data)


class TestRecipe:
    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("precision=float16", "precision is float32 or bfloat16"),
            ("stages.0.cache=true", "distinct must be"),
            ("stages.0.update=true", r"stages.0.update has no meaning for proposals"),
            ("held_out=-1", "must be 0 or more"),
            ("stages=[]", "stages is empty"),
            ("colour=red", "colour"),
        ],
    )
    def test_refuses(self, data, assignment, message):
        with pytest.raises(InputError, match=message):
            read_proposal_recipe(data / "recipe.yaml", [assignment])

    def test_losses_are_torchvisions(self, data):
        recipe = read_proposal_recipe(data / "recipe.yaml", ["stages.0.losses={cross_entropy: 1}"])
        with pytest.raises(InputError, match="losses of heads must be loss_"):
            train_proposals(recipe, data / "out", data=data, device="cpu")

    def test_the_one_that_ships(self):
        recipe = read_proposal_recipe(RECIPES / f"{LITE}.yaml")
        network = maskrcnn_lite(pretrained=False)
        for stage in recipe.stages:
            assert module.trained_parameters(network, stage.optimiser.groups)


def test_the_command(data, capsys):
    arguments = ["train-proposals", str(data / "recipe.yaml"), "--data", str(data), "--out", str(data / "out")]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "held-out stills AR@10" in capsys.readouterr().out


def test_recall_of_a_generator():
    """Of one that gives the right box, and of one whose box is half of it."""
    labels = np.zeros((32, 48), np.uint8)
    labels[4:12, 8:24] = 1
    picture = np.zeros((32, 48, 3), np.uint8)

    class Fixed(ProposalGenerator):
        def __init__(self, right: float):
            super().__init__(maskrcnn_lite(TINY, pretrained=False))
            self.right = right

        def forward(self, frames):
            boxes = torch.zeros(1, 30, 4)
            boxes[0, 0] = torch.tensor([8, 4, self.right, 12])
            scores = torch.zeros(1, 30)
            scores[0, 0] = 0.5
            return module_proposals(boxes, scores)

    def module_proposals(boxes, scores):
        from onemask.methods.dmn_aoa.proposals import Proposals

        return Proposals(boxes, scores, torch.zeros(1, 30, 28, 28))

    assert recall(Fixed(24), [(picture, labels)]) == {10: 1.0, 30: 1.0}
    assert recall(Fixed(16), [(picture, labels)]) == pytest.approx({10: 0.1, 30: 0.1})
