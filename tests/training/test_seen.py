"""Which DAVIS sequences a training may see."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_training import stage, write_recipe

from onemask.errors import InputError
from onemask.training.recipe import Recipe, read_recipe
from onemask.training.seen import refuse_seen
from onemask.training.train import Hardware, train

RECIPES = Path(__file__).parents[2] / "recipes"
LISTS = {
    "2016/fit": "bear boat",
    "2016/dev": "camel",
    "2016/val": "cows goat",
    "2017/train": "bear boat camel kid",
    "2017/val": "cows goat judo loading shooting",
}


@pytest.fixture
def base(tmp_path) -> Path:
    for name, sequences in LISTS.items():
        path = tmp_path / "davis/ImageSets" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sequences.split()))
    return tmp_path


def recipe(folder: Path, kind: str, split: str, validation: dict) -> Recipe:
    trained = stage(data=[{"kind": "stills", "root": "stills"}, {"kind": kind, "root": "davis", "split": split}])
    return read_recipe(write_recipe(folder, trained, validation={"root": "davis", **validation}))


def test_what_is_validated_on_is_not_trained_on(base):
    told = (
        r"stages\.0\.data\.1 trains on camel of davis2017 train, which validation uses too \(dev of DAVIS 2016\), so "
        r"its scores would mean nothing; train on another split, validate on another one, or leave "
        r"validation\.root empty"
    )
    with pytest.raises(InputError, match=told):
        refuse_seen(recipe(base, "davis2017", "train", {"split": "dev"}), base)


@pytest.mark.parametrize(
    ("kind", "split", "validation"),
    [
        ("davis2017", "train", {"year": 2017, "split": "val"}),  # as in the papers
        ("davis2016", "fit", {"split": "dev"}),
        ("davis2017", "train", {"root": ""}),
        ("davis2016", "fit", {"year": 2017, "split": "train", "sequences": ["camel", "kid"]}),
    ],
)
def test_what_is_apart_is_trained_on_without_a_word(base, caplog, kind, split, validation):
    refuse_seen(recipe(base, kind, split, validation), base)
    assert not caplog.text


def test_a_source_without_a_share_is_not_trained_on(base):
    its = recipe(base, "davis2017", "train", {"split": "dev"})
    its.stages[0].data[1].share = 0.0
    refuse_seen(its, base)


def test_a_warning_comes_with_davis_own_validation_set(base, caplog):
    refuse_seen(recipe(base, "davis2017", "val", {"split": "dev"}), base)
    assert "stages.0.data.1 trains on cows, goat, judo and 2 more of DAVIS's validation set" in caplog.text


def test_a_training_looks_before_it_writes(data, tmp_path):
    its = read_recipe(write_recipe(tmp_path, validation={"root": "davis", "year": 2017, "split": "fit"}))
    with pytest.raises(InputError, match=r"stages\.0\.data\.0 trains on shape0 and shape1 of davis2017 fit, which val"):
        train(its, tmp_path / "out", data=data, hardware=Hardware("cpu"))
    assert not (tmp_path / "out").exists()


def test_the_hint_for_row_d1_of_the_paper_is_not_refused(base):
    (base / "davis").rename(base / "davis-2017")
    source = "stages.0.data=[{kind: davis2017, root: davis-2017, split: train}]"
    path = RECIPES / "proposals/maskrcnn-lite-youtube-vos.yaml"
    assert all(hint in path.read_text() for hint in (source, "validation.root=''"))
    refuse_seen(read_recipe(path, [source, "validation.root=''"]), base)
