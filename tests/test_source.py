"""The rules of CONTRIBUTING that no tool checks."""

import ast
from pathlib import Path

import pytest

from onemask.video import label_maps

SOURCE = Path(__file__).parents[1] / "src" / "onemask"
LONGEST = 400
LONGER = {
    "session/session.py": (470, "one class, which callers read from top to bottom; its docstrings are a third of it"),
}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_has_one_purpose_and_at_most_400_lines(path):
    longest, _ = LONGER.get(str(path.relative_to(SOURCE)), (LONGEST, ""))
    assert lines_of(path) <= longest, "split it by its purposes, or say in LONGER why it has but one"


def test_what_is_no_longer_long_is_no_exception():
    assert {name for name in LONGER if lines_of(SOURCE / name) > LONGEST} == set(LONGER)


def imported_from_masks(path: Path) -> set[str]:
    """The names that a file takes from `onemask.video.masks`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.name
        for node in imports
        if node.module in ("video.masks", "masks", "onemask.video.masks")
        for alias in node.names
    }


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_what_label_maps_offers_is_taken_from_there(path):
    offered = {
        name for name, value in vars(label_maps).items() if getattr(value, "__module__", "") == label_maps.__name__
    }
    assert imported_from_masks(path) & offered == set()
