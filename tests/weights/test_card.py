"""What is said of weights, and what is refused as a card."""

from __future__ import annotations

import json

import pytest

from cards import a_card
from onemask.errors import InputError
from onemask.weights.card import Card, as_typed

ARCHITECTURE = {"backbone": "resnet18", "target_stride": 16, "strides": [4, 8], "width": 32}


def test_comes_back_from_json(tmp_path):
    card = a_card(architecture=ARCHITECTURE, notes="Trained in a day.", sha256="0" * 64, bytes=12)
    (tmp_path / "card.json").write_text(json.dumps(card.to_json()))
    assert Card.read(tmp_path / "card.json") == card


def test_notes_may_be_left_out():
    value = a_card().to_json()
    del value["notes"]
    assert Card.from_json(value) == a_card()


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{", "should be the card of a file of weights, but is not JSON"),
            (b"\xff\xfe", "should be the card of a file of weights, but is not JSON"),
            (b"[1]", "is not a card that this version of onemask can read: an object was expected, got list"),
            (b"{}", "missing: method, architecture, data, recipe, commit, date, scores, licence, sha256, bytes$"),
        ],
    )
    def test_a_file_of_another_kind(self, tmp_path, content, message):
        (tmp_path / "best.json").write_bytes(content)
        with pytest.raises(InputError, match=rf"best\.json {message}|best\.json .*{message}"):
            Card.read(tmp_path / "best.json")

    def test_a_card_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no card .*best\.json"):
            Card.read(tmp_path / "best.json")

    def test_a_card_that_cannot_be_read(self, tmp_path):
        (tmp_path / "best.json").mkdir()
        with pytest.raises(InputError, match=r"best\.json could not be read: Is a directory; expected the card of"):
            Card.read(tmp_path / "best.json")

    def test_unknown_keys_are_named(self, tmp_path):
        (tmp_path / "new.json").write_text(json.dumps(a_card().to_json() | {"colour": "red", "smell": "none"}))
        with pytest.raises(InputError, match=r"new\.json .*unknown: colour, smell; its keys are method, architecture"):
            Card.read(tmp_path / "new.json")

    @pytest.mark.parametrize(
        ("field", "value", "expected"),
        [
            ("method", 3, "text"),
            ("architecture", ["width"], "an object of options"),
            ("data", "DAVIS", "a list of texts"),
            ("data", [1], "a list of texts"),
            ("recipe", {"sha256": "12"}, 'an object of texts with a "name"'),
            ("recipe", "frtm.yaml", 'an object of texts with a "name"'),
            ("scores", {"dev J&F": "80.1"}, "an object of numbers"),
            ("scores", {"dev J&F": True}, "an object of numbers"),
            ("date", "21.11.2026", "a date, YYYY-MM-DD"),
            ("date", "2026-11-31", "a date, YYYY-MM-DD"),
            ("sha256", "12ab", "64 hexadecimal digits"),
            ("bytes", "12", "a number of bytes"),
            ("bytes", -1, "a number of bytes"),
        ],
    )
    def test_a_field_of_another_kind_is_named(self, field, value, expected):
        with pytest.raises(InputError, match=f"^{field} of a card must be {expected}, got "):
            Card.from_json(a_card().to_json() | {field: value})


class TestFit:
    def test_the_same_options_fit(self):
        card = a_card(architecture=ARCHITECTURE)
        assert card.misfits({**ARCHITECTURE, "strides": (4, 8)}) == {}  # a tuple is a list in JSON
        assert not card.serves_in_part(ARCHITECTURE)

    def test_fewer_options_fit_in_part(self):
        card = a_card(architecture=ARCHITECTURE)
        part = {"backbone": "resnet18", "target_stride": 16}
        assert card.misfits(part) == {}
        assert card.serves_in_part(part)

    def test_what_differs_is_named_with_both_values(self):
        found = a_card(architecture=ARCHITECTURE).misfits({**ARCHITECTURE, "width": 64, "channels": 8})
        assert found == {"width": (32, 64), "channels": (None, 8)}


class TestLines:
    def test_summary(self):
        assert a_card(bytes=6_712_345).summary() == {
            "method": "frtm-lite",
            "size": "6.7 MB",
            "scores": "dev J&F 80.1, dev J 81.0",
            "trained on": "Walks, 12 sequences (A. Walker, CC BY 4.0); Runs, 3 sequences (B. Runner, CC0)",
            "licence": "CC BY 4.0",
        }
        assert a_card(scores={}).summary()["scores"] == "none"

    def test_details_say_everything(self):
        card = a_card(architecture=ARCHITECTURE, notes="Trained in a day.", sha256="0" * 64, bytes=12)
        details = card.details()
        assert details.items() >= card.summary().items()
        assert details["options"] == "backbone=resnet18, target_stride=16, strides=4,8, width=32"
        assert details["recipe"] == f"recipes/frtm-lite.yaml\nsha256 {'ab' * 32}"
        assert (details["commit"], details["date"], details["bytes"]) == ("0123abc", "2026-11-21", "12")
        assert (details["SHA-256"], details["notes"]) == ("0" * 64, "Trained in a day.")
        assert "notes" not in a_card().details()
        written_out = a_card(recipe={"name": "mine", "text": "seed: 0\nsteps: 9\n"})
        assert written_out.details()["recipe"] == "mine\nseed: 0\nsteps: 9"

    @pytest.mark.parametrize(("value", "text"), [((4, 8), "4,8"), ([16], "16"), (True, "true"), ("x", "x"), (3, "3")])
    def test_options_are_written_as_they_are_typed(self, value, text):
        assert as_typed(value) == text
