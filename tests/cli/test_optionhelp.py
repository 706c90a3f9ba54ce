"""What is said of a configuration's fields."""

from dataclasses import dataclass, make_dataclass

from onemask.cli.optionhelp import option_help


@dataclass
class Base:
    kept: int = 1  # of the base
    changed: int = 2  # replaced


@dataclass
class Derived(Base):
    # not of a field
    changed: int = 3  # a #2 of "several" words
    long: tuple[int, ...] = (
        1,  # not this one
        2,
    )  # this one
    told: int = 4  # not this one
    """A docstring, which may
    be longer."""
    silent: int = 5


def test_docstrings_stand_under_their_fields_and_comments_behind_them():
    assert option_help(Derived()) == {
        "kept": "of the base",
        "changed": 'a #2 of "several" words',
        "long": "this one",
        "told": "A docstring, which may be longer.",
    }


def test_a_class_without_source_has_none():
    assert option_help(make_dataclass("Made", [("a", int, 1)])()) == {}
