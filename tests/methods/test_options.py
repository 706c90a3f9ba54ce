"""Options as people type them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from onemask.errors import InputError
from onemask.methods.options import parse_assignments, with_options


@dataclass(frozen=True)
class Example:
    name: str = "resnet18"
    channels: int = 96
    share: float = 0.1
    only: bool = False
    strides: tuple[int, ...] = (4, 8)
    penalties: tuple[float, float] = (1e-4, 1e-2)

    def __post_init__(self):
        if self.channels < 1:
            raise InputError("channels must be positive")


class TestAssignments:
    def test_name_and_value(self):
        assert parse_assignments(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
        assert parse_assignments([]) == {}

    @pytest.mark.parametrize(("typed", "named"), [("channels", "'channels'"), ("=3", "''")])
    def test_anything_else(self, typed, named):
        with pytest.raises(InputError, match=f"an option is given as name=value, got {named}"):
            parse_assignments(["a=1", typed])


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("name", "resnet101", "resnet101"),
            ("channels", "32", 32),
            ("share", "0.25", 0.25),
            ("share", "1e-3", 0.001),
            ("share", "1", 1.0),
            ("only", "true", True),
            ("only", "Yes", True),
            ("only", "1", True),
            ("only", "FALSE", False),
            ("only", "no", False),
            ("only", "0", False),
            ("strides", "4,8,16", (4, 8, 16)),
            ("strides", "(4, 8)", (4, 8)),
            ("strides", "16", (16,)),
            ("strides", "(16,)", (16,)),
            ("strides", "", ()),
            ("penalties", "1e-3,0", (0.001, 0.0)),
        ],
    )
    def test_text_is_read_by_the_type(self, name, text, value):
        changed = with_options(Example(), {name: text})
        found = getattr(changed, name)
        assert found == value
        assert type(found) is type(value)
        assert changed == Example(**{name: value})

    @pytest.mark.parametrize(
        ("name", "given", "value"),
        [("channels", 3, 3), ("share", 1, 1.0), ("only", True, True), ("strides", [4, 16], (4, 16))],
    )
    def test_values_of_the_right_kind_are_taken(self, name, given, value):
        found = getattr(with_options(Example(), {name: given}), name)
        assert found == value
        assert type(found) is type(value)

    def test_the_original_stays(self):
        original = Example()
        with_options(original, {"channels": "5"})
        assert original == Example()


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("channels", "many", "option channels is a whole number, got 'many'"),
            ("channels", "1.5", "option channels is a whole number, got '1.5'"),
            ("channels", 1.5, "option channels is a whole number, got 1.5"),
            ("channels", True, "option channels is a whole number, got True"),
            ("share", "a tenth", "option share is a number, got 'a tenth'"),
            ("share", True, "option share is a number, got True"),
            ("only", "perhaps", "option only is true or false, got 'perhaps'"),
            ("only", 1, "option only is true or false, got 1"),
            ("name", 5, "option name is text, got 5"),
            ("penalties", "1,2,3", "option penalties is 2 of float, separated by commas, got '1,2,3'"),
            ("penalties", 0.1, "option penalties is 2 of float, separated by commas, got 0.1"),
            ("strides", 4, "option strides is a list of int, separated by commas, got 4"),
            ("strides", "4,eight", "option strides is a list of int, separated by commas, got '4,eight'"),
        ],
    )
    def test_a_value_that_cannot_be_read(self, name, value, message):
        with pytest.raises(InputError, match=f"^{message}$"):
            with_options(Example(), {name: value})

    def test_an_unknown_option_names_those_there_are(self):
        there = "there are: name, channels, share, only, strides, penalties"
        with pytest.raises(InputError, match=f"option 'chanels' is not known; {there}"):
            with_options(Example(), {"chanels": "3"})

    def test_what_the_configuration_itself_refuses(self):
        with pytest.raises(InputError, match="channels must be positive"):
            with_options(Example(), {"channels": "0"})
