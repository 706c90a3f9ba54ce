"""Options as people type them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import pytest

from onemask.errors import InputError
from onemask.methods import METHODS, configuration
from onemask.methods.options import (
    LARGEST,
    Count,
    ProperShare,
    Range,
    Whole,
    check_values,
    parse_assignments,
    unreadable,
    with_options,
)


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
        with pytest.raises(InputError, match=f"an option must be given as name=value, got {named}"):
            parse_assignments(["a=1", typed])


@dataclass(frozen=True)
class Words:
    words: tuple[str, ...] = ()


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

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("'a, b', c", ("'a, b'", "c")),
            ('a "b,c",d', ('a "b,c"', "d")),
            ("it's, a", ("it's", "a")),
            ("a,,b", ("a", "b")),
        ],
    )
    def test_commas_in_quotes_are_part_of_a_value(self, text, value):
        assert with_options(Words(), {"words": text}).words == value

    def test_the_original_stays(self):
        original = Example()
        with_options(original, {"channels": "5"})
        assert original == Example()


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("channels", "many", "option channels must be a whole number, got 'many'"),
            ("channels", "1.5", "option channels must be a whole number, got '1.5'"),
            ("channels", 1.5, "option channels must be a whole number, got 1.5"),
            ("channels", True, "option channels must be a whole number, got True"),
            ("share", "a tenth", "option share must be a number, got 'a tenth'"),
            ("share", True, "option share must be a number, got True"),
            ("only", "perhaps", "option only must be true or false, got 'perhaps'"),
            ("only", 1, "option only must be true or false, got 1"),
            ("name", 5, "option name must be text, got 5"),
            ("penalties", "1,2,3", "option penalties must be 2 numbers, separated by commas, got '1,2,3'"),
            ("penalties", 0.1, "option penalties must be 2 numbers, separated by commas, got 0.1"),
            ("strides", 4, "option strides must be a list of whole numbers, separated by commas, got 4"),
            (
                "strides",
                "4,eight",
                "option strides must be a list of whole numbers, separated by commas, got '4,eight'",
            ),
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


@dataclass(frozen=True)
class Ranges:
    count: Count = 1
    whole: Whole = 0
    share: ProperShare = 0.5
    angle: Annotated[float, Range(-90, 90, "(]")] = 0.0
    sizes: tuple[Count, ...] = (1,)
    width: Count | None = None
    rate: float | None = 0.1
    which: int | str = 3
    kind: Literal["a", "b"] = "a"
    number: int = 0
    table: Annotated[dict[str, float], Range(0)] = field(default_factory=dict)

    def __post_init__(self):
        check_values(self)


class TestRanges:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("count", 0, "count must be 1 or more, got 0"),
            ("count", LARGEST + 1, f"count must be {LARGEST} or less, got {LARGEST + 1}"),
            ("count", 10**30, f"count must be {LARGEST} or less, got {10**30}"),
            ("number", -(10**30), f"number must be {LARGEST} or less, got -{10**30}"),
            ("whole", -1, "whole must be 0 or more, got -1"),
            ("share", 0.0, r"share must be in \(0, 1\), got 0.0"),
            ("share", 1.5, r"share must be in \(0, 1\), got 1.5"),
            ("share", float("nan"), r"share must be a finite number, in \(0, 1\), got nan"),
            ("share", float("inf"), r"share must be a finite number, in \(0, 1\), got inf"),
            ("share", 10**400, r"share must be a finite number, got 10{39}\.\.\. \(401 characters\)"),
            ("angle", -90.0, r"angle must be in \(-90, 90\], got -90.0"),
            ("sizes", (3, 0), "sizes must be 1 or more, got 0"),
            ("width", 0, "width must be 1 or more, got 0"),
            ("width", "wide", "width must be none or a whole number|width must be a whole number or none, got 'wide'"),
            ("rate", float("inf"), "rate must be a finite number, got inf"),
            ("kind", "c", "kind must be one of a, b, got 'c'"),
        ],
    )
    def test_values_out_of_range_are_refused_however_they_come(self, name, value, message):
        with pytest.raises(InputError, match=message):
            Ranges(**{name: value})
        with pytest.raises(InputError, match=f"^option ({message})$" if "|" not in message else message):
            with_options(Ranges(), {name: value})

    @pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "9" * 5000, "-1"])
    def test_text_is_no_way_round(self, text):
        for name in ("count", "share", "sizes"):
            with pytest.raises(InputError) as caught:
                with_options(Ranges(), {name: text})
            assert len(str(caught.value)) < 150

    def test_numbers_in_a_table(self):
        with pytest.raises(InputError, match=r"table\.x must be 0 or more, got -1"):
            Ranges(table={"x": -1})

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("width", "none", None),
            ("width", "7", 7),
            ("rate", "None", None),
            ("rate", "0.5", 0.5),
            ("kind", "b", "b"),
            ("which", "5", 5),
            ("which", "five", "five"),
            ("angle", "90", 90.0),
        ],
    )
    def test_text_of_a_union(self, name, text, value):
        found = getattr(with_options(Ranges(), {name: text}), name)
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize("name", METHODS)
    def test_every_number_of_every_method_has_its_range(self, name):
        """No option of a method takes what is not finite, or has more than 31 bits."""
        chosen: Any = configuration(name)
        for option in fields(chosen):
            value = getattr(chosen, option.name)
            several = isinstance(value, tuple)
            one = next(iter(value), 1) if several else value  # what may be empty are numbers
            if isinstance(one, (int, float)) and not isinstance(one, bool):
                too_large = (10**30, -(10**30)) if isinstance(one, int) else ()
                for bad in (float("nan"), float("inf"), *too_large):
                    given = (bad,) * max(1, len(value)) if several else bad
                    with pytest.raises(InputError, match=option.name):
                        configuration(name, {option.name: given})
                    with pytest.raises(InputError, match=option.name):
                        configuration(name, {option.name: ",".join(map(str, given)) if several else str(bad)})


class TestTypes:
    def test_that_can_be_set_by_name(self):
        @dataclass
        class Fine:
            a: int | None = None
            b: tuple[Count, ...] = ()
            c: Literal["x"] = "x"
            d: float | str = 1.0

        assert unreadable(Fine()) is None

    def test_that_cannot(self):
        @dataclass
        class Lists:
            layers: list[int] = field(default_factory=list)

        assert str(unreadable(Lists())).startswith(
            "its option layers is list[int]; options are bool, int, float, str, Literal, tuples"
        )
        assert unreadable(Lists) == "it is type, but an instance of a dataclass is expected"
        assert unreadable(3) == "it is int, but an instance of a dataclass is expected"


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith("-lite") or name.startswith("fusion")])
def test_what_a_session_does_is_an_option_of_every_method(name):
    method = configuration(name).build(pretrained=False)
    assert method.reach == 0.2
    changed = configuration(name, {"reach": 0.4, "least_side": 96, "magnify": 1.5}).build(pretrained=False)
    assert (changed.reach, changed.least_side, changed.magnify) == (0.4, 96, 1.5)
    by_position = type(configuration(name))("test_efficientnet")  # as it could be before there were such options
    assert by_position.backbone == "test_efficientnet"


@pytest.mark.parametrize("name", ["frtm", "videomatch", "pmvos", "ttvos", "dmn-aoa"])
def test_no_paper_has_it(name):
    config = configuration(name)
    assert (config.reach, config.least_side, config.magnify) == (0.0, 0, 1.0)
