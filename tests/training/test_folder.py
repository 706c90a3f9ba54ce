"""What the folder of a training says that it was started with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onemask import InputError
from onemask.training.folder import TrainingFolder
from onemask.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(params=["pmvos-lite", "ttvos-lite", "fusion"])
def recipe(request):
    return replace(read_recipe(RECIPES / f"{request.param}.yaml"), options={})


def begun(recipe, out: Path, *, recorded_all: bool = True) -> TrainingFolder:
    """A training that was killed after a step, whose record names all options or, as earlier, those of its recipe."""
    with TrainingFolder(out).opened(recipe, "data", overwrite=False, resume=False):
        (out / "checkpoint.pt").write_bytes(b"a checkpoint")
    record = out / ".onemask" / "asked.json"
    asked = json.loads(record.read_text())
    if not recorded_all:
        asked["asked"]["options"] = dict(recipe.options)
    record.write_text(json.dumps(asked))
    return TrainingFolder(out)


def test_resumes_with_the_options_that_it_began_with(recipe, tmp_path):
    begun(recipe, tmp_path / "out").check(recipe, overwrite=False, resume=True)


def test_refuses_defaults_that_have_changed_since(recipe, tmp_path):
    """They were not recorded then."""
    folder, then = begun(recipe, tmp_path / "out", recorded_all=False), {"background": "product"}
    if recipe.method == "fusion":  # its defaults are the same
        folder.check(recipe, overwrite=False, resume=True)
        return
    with pytest.raises(InputError, match=r"was started with background product \(now least\)"):
        folder.check(recipe, overwrite=False, resume=True)
    then |= {"returns": True} if recipe.method == "ttvos-lite" else {"padding": "edge"}
    folder.check(replace(recipe, options=then), overwrite=False, resume=True)
