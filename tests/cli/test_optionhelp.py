"""The comments of a configuration's fields."""

from dataclasses import dataclass, make_dataclass

from onemask.cli.optionhelp import option_comments


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
    silent: int = 4


def test_comments_stand_beside_their_fields():
    assert option_comments(Derived()) == {
        "kept": "of the base",
        "changed": 'a #2 of "several" words',
        "long": "this one",
    }


def test_a_class_without_source_has_none():
    assert option_comments(make_dataclass("Made", [("a", int, 1)])()) == {}
