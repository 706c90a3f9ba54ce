"""Names in files never lead out of their folder: lists and ZIPs, manifests, JSON of datasets, cards of weights.

The same of DAVIS's lists is in test_evaluate, of comparisons in test_compare, of batches in test_batching, of what a
result lists as its own in test_run.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from onemask.cli import main
from onemask.data.youtube_vos import YouTubeVosDataset
from onemask.errors import InputError
from onemask.evaluation.archives import extract_masks
from onemask.files import inside
from onemask.weights.card import Card
from onemask.weights.store import card_of, save
from videos import Still

LEADING_OUT = (
    "../a",
    "a/../../b",
    "..",
    "/a",
    "C:\\a",
    "C:a",
    "..\\a",
    "a\\..\\..\\b",
    "\\\\host\\a",
    "",
    " ",
    ".",
    "a\0b",
)


@pytest.mark.parametrize("name", [*LEADING_OUT, None, 7, ["a"]])
def test_what_leads_out_of_a_folder(name):
    with pytest.raises(InputError, match=r"list\.txt names .*; expected a name that stays inside here"):
        inside(Path("here"), name, "list.txt")


@pytest.mark.parametrize("name", ["x" * 256, "a/" + "é" * 128, "\ud800"])
def test_what_no_file_can_be_called(name):
    with pytest.raises(InputError, match=r"list\.txt names .*which is too long for a file name"):
        inside(Path("here"), name, "list.txt")


@pytest.mark.parametrize("name", ["a", "a/b.png", "x" * 255, "...", "..a", "a..b", "./a"])
def test_what_does_not(name):
    assert inside(Path("here"), name, "list.txt") == Path("here") / name


@pytest.mark.parametrize("name", LEADING_OUT[:8])
def test_videos_in_json(tmp_path, name):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    meta = {"videos": {name: {"objects": {"1": {"category": "ape", "frames": ["00000"]}}}}}
    (tmp_path / "set" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"meta\.json names .*; expected a name that stays inside"):
        YouTubeVosDataset(tmp_path / "set")


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "a\\..\\..\\b.png"])
def test_members_of_a_zip(tmp_path, name):
    archive, folder = tmp_path / "results.zip", tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, b"")
    with pytest.raises(InputError, match=r"results\.zip names .*; expected a name that stays inside"):
        extract_masks(archive, folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_cards(folders, tmp_path, capsys):
    """A card tells of its weights; no file is looked for, read or written by what is in it."""
    known = {"commit": "abc", "date": "2026-01-31", "scores": {}, "licence": "MIT"}
    recipe = {"name": "../../b", "text": "name: ../../c"}
    card = Card("../../a", {"backbone": "../../d"}, ["../../e"], recipe, notes="../../f", **known)
    folders.user.mkdir(parents=True)
    save(Still(), folders.user / "mine.safetensors", card)
    before = sorted(tmp_path.rglob("*"))
    assert card_of(folders.user / "mine.safetensors").method == "../../a"
    for arguments in (["weights"], ["weights", "mine"], ["weights", "mine", "--check"]):
        assert main(arguments) == 0
    assert "../../a" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
