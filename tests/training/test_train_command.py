"""`onemask train` as a user types it: from data to weights, and to scores with those."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from made_training import TINY, stage, write_recipe
from PIL import Image

from onemask.cli import main
from onemask.methods import load

RUN = ["--size", "64", "--device", "cpu"]


def test_train_resume_evaluate_load(data, tmp_path, capsys):
    recipe = write_recipe(
        tmp_path, validation={"root": "davis", "year": 2017, "split": "dev", "short_side": 64, "every": 4}
    )
    command = ["train", str(recipe), "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "6 steps, " in said
    assert "dev J&F" in said
    best = tmp_path / "out" / "best.safetensors"
    needed = "--method frtm-lite --set backbone=test_efficientnet --set width=8 --weights FILE"
    assert f"{best}; use them with {needed}\n" in said
    assert load("frtm-lite", weights=best, backbone="test_efficientnet", width=8)
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert f"{tmp_path / 'out'} already holds the finished training" in capsys.readouterr().out

    scores = json.loads(best.with_suffix(".json").read_text())["scores"]
    options = [f"--set={name}={value}" for name, value in TINY.items()]
    evaluate = ["evaluate", str(data / "davis"), "--protocol", "davis2017", "--split", "dev", *RUN, *options]
    evaluate += ["--method", "frtm-lite"]
    assert main([*evaluate, "--weights", str(best), "--out", str(tmp_path / "scores")]) == 0
    table = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert 100 * table["global"]["J&F-Mean"] == pytest.approx(scores["dev J&F"], abs=0.2)


def test_values_are_set_after_the_recipe(data, tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    command = ["train", str(recipe), "stages.0.iterations=2", "--data", str(data), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "out"), "seed=5"]) == 0  # after options, too
    assert "2 steps" in capsys.readouterr().out
    assert "seed: 5" in (tmp_path / "out" / "recipe.yaml").read_text()


def test_preview_shows_a_row_a_clip(data, tmp_path, capsys):
    stills = stage(name="stills", data=[{"kind": "stills", "root": "stills"}])
    recipe = write_recipe(tmp_path, stage(), stills)
    command = ["train", str(recipe), "--data", str(data), "--preview", str(tmp_path / "sheet.png")]
    assert main(command) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[0] > 24 * 64
    assert not (tmp_path / "out").exists()
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.yaml"], "there is no recipe nothing.yaml"),
        (["{recipe}", "stages.0.bach=4"], "bach"),
        (["{recipe}", "seed"], "name=value, got 'seed'"),
        (["{recipe}"], "needs --out"),
        (["{recipe}", "--out", "{out}", "--data", "{out}"], "is not a folder"),
        (["{recipe}", "--out", "{out}", "--devices", "many"], "devices"),
        (["{recipe}", "--out", "{out}", "--device", "abacus"], "abacus"),
    ],
)
def test_refusals(data, tmp_path, capsys, arguments, message):
    recipe = write_recipe(tmp_path)
    told = [argument.format(recipe=recipe, out=tmp_path / "out") for argument in arguments]
    where = [] if "--data" in told else ["--data", str(data)]
    assert main(["train", *told, *where]) == 2
    assert message in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    for module in [name for name in sys.modules if name.startswith("onemask.training")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    assert main(["train", str(write_recipe(tmp_path)), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "training needs the package omegaconf: " in message
    assert "[train]" in message
