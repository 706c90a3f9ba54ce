"""The rules of CONTRIBUTING that no tool checks."""

from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "onemask"
LONGEST = 400
LONGER = {
    "session.py": (470, "one class, which callers read from top to bottom; its docstrings are a third of it"),
}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_has_one_purpose_and_at_most_400_lines(path):
    longest, _ = LONGER.get(str(path.relative_to(SOURCE)), (LONGEST, ""))
    assert lines_of(path) <= longest, "split it by its purposes, or say in LONGER why it has but one"


def test_what_is_no_longer_long_is_no_exception():
    assert {name for name in LONGER if lines_of(SOURCE / name) > LONGEST} == set(LONGER)
