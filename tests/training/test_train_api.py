"""Scores, comparisons and trainings by the calls at the top level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_training import TINY, write_data

import onemask
from onemask import InputError
from onemask.data.sources import SourceConfig
from onemask.training.processes import Hardware
from onemask.training.recipe import OptimiserConfig, Recipe, StageConfig
from onemask.weights.store import read
from videos import Still


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_clip) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), make_clip)


class TestDatasets:
    def test_evaluate(self, data, tmp_path):
        found = onemask.evaluate(
            data / "davis", tmp_path / "out", method=Still(), split="dev", short_side=64, device="cpu"
        )
        assert "frames per second" in found.table()
        assert json.loads((tmp_path / "out" / "scores.json").read_text())["asked"]["method"] == "Still"
        with pytest.raises(onemask.OutputError):
            onemask.evaluate(data / "davis", tmp_path / "out", method=Still(), split="dev", short_side=64, device="cpu")
        again = onemask.evaluate(
            data / "davis", tmp_path / "out", method=Still(), split="dev", short_side=64, device="cpu", resume=True
        )
        assert (again.computed, again.scores) == (0, found.scores)

    def test_compare(self, data, tmp_path, make_frtm):
        pytest.importorskip("matplotlib")
        methods = {"still": Still(), "frtm": make_frtm()}
        found = onemask.compare(data / "davis", tmp_path / "out", methods, split="dev", short_side=64, device="cpu")
        assert [row.label for row in found.rows] == ["still", "frtm"]
        assert "Still" in (tmp_path / "out" / "comparison.md").read_text()
        more = {**methods, "still again": Still()}
        found = onemask.compare(
            data / "davis", tmp_path / "out", more, split="dev", short_side=64, device="cpu", resume=True
        )
        assert [row.label for row in found.rows] == ["still", "frtm", "still again"]


def recipe(**values: object) -> Recipe:
    source = SourceConfig(kind="davis2016", root="davis", split="fit")
    one = StageConfig(name="main", data=[source], size=[64, 96], batch=2, iterations=1)
    return Recipe(method="frtm-lite", stages=[one], options=dict(TINY), **values)


class TestTrain:
    HARDWARE = Hardware("cpu")

    def test_a_recipe_made_in_python(self, data, tmp_path):
        trained = onemask.train(recipe(workers=0), tmp_path / "out", data=data, hardware=self.HARDWARE)
        assert trained.best.is_file()

    def test_a_method_to_begin_with(self, data, tmp_path):
        asked = recipe(workers=0)
        method = onemask.methods.configuration("frtm-lite", asked.options).build(pretrained=False)
        before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        asked.stages[0].optimiser = OptimiserConfig(lr=1e-9)
        onemask.train(asked, tmp_path / "out", method=method, data=data, hardware=self.HARDWARE)
        after = read(tmp_path / "out" / "last.safetensors")
        name = "network.head.0.weight"
        assert torch.allclose(after[name], before[name], atol=1e-3)
        other = onemask.methods.configuration("frtm-lite", {**asked.options, "width": 16}).build(pretrained=False)
        with pytest.raises(InputError, match="the method that was given is not frtm-lite with the recipe's options"):
            onemask.train(asked, tmp_path / "other", method=other, data=data, hardware=self.HARDWARE)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda r: setattr(r.stages[0].optimiser, "name", "lion"),
                "optimiser.name must be one of adam, adamw, sgd",
            ),
            (lambda r: setattr(r.stages[0].optimiser, "lr", float("nan")), "optimiser.lr must be a finite number"),
            (lambda r: setattr(r.stages[0], "losses", {"guess": 1.0}), "losses: 'guess' is not known"),
            (lambda r: setattr(r, "seed", "one"), "seed must be a whole number, got 'one'"),
            (lambda r: setattr(r, "stages", []), "stages is empty"),
            (lambda r: setattr(r, "method", "frmt"), "method 'frmt' is not known"),
            (lambda r: setattr(r.stages[0], "name", "???"), "missing mandatory value: name|name"),
        ],
    )
    def test_a_recipe_is_checked_as_the_command_does(self, data, tmp_path, change, message):
        wrong = recipe()
        change(wrong)
        with pytest.raises(InputError, match=message):
            onemask.train(wrong, tmp_path / "out", data=data, hardware=self.HARDWARE)
        assert not (tmp_path / "out").exists()

    def test_what_is_no_recipe(self, tmp_path):
        with pytest.raises(InputError, match="expected a Recipe or a recipe file, got dict"):
            onemask.train({"method": "frtm-lite"}, tmp_path / "out")
        with pytest.raises(InputError, match="there is no recipe"):
            onemask.train(tmp_path / "nothing.yaml", tmp_path / "out")
