"""The card of a file of weights: the options it fits, its origin, and its scores."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Card:
    """Metadata of a file of weights. As JSON it has a key for each field; only `notes` may be left out.

    Raises InputError if a field does not match its comment.
    """

    method: str  # the name of the method when it was trained
    architecture: dict[str, Any]  # the options that the weights depend on, see methods.Configuration
    data: list[str]  # training data, each with its attribution
    recipe: dict[str, str]  # "name", and the "text" or the "sha256" of the recipe
    commit: str  # commit of the training code
    date: str  # date of the training, YYYY-MM-DD
    scores: dict[str, float]  # measure -> score in percent
    licence: str
    notes: str = ""
    sha256: str = ""  # SHA-256 of the file, 64 hexadecimal digits; this and the next are filled in by store.save
    bytes: int = 0  # size of the file

    def __post_init__(self):
        """Reject invalid fields."""
        for field in fields(self):
            if problem := _problem(field.name, getattr(self, field.name)):
                raise InputError(f"{field.name} of a card must be {problem}, got {getattr(self, field.name)!r}")

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read a card from a JSON file. Raises InputError, naming the file, if it is not a card."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"there is no card {path}; weights that are found by name need one beside them") from error
        except OSError as error:
            raise InputError(
                f"{path} could not be read: {error.strerror}; expected the card of a file of weights"
            ) from error
        except ValueError as error:  # not JSON, or not text
            raise InputError(f"{path} should be the card of a file of weights, but is not JSON: {error}") from error
        try:
            return cls.from_json(value)
        except InputError as error:
            raise InputError(f"{path} is not a card that this version of onemask can read: {error}") from error

    @classmethod
    def from_json(cls, value: Any) -> Card:
        """Make a card from decoded JSON. Raises InputError for keys that are missing, unknown, or of the wrong type."""
        if not isinstance(value, dict):
            raise InputError(f"an object was expected, got {type(value).__name__}")
        known = [field.name for field in fields(cls)]
        if unknown := [key for key in value if key not in known]:
            raise InputError(f"unknown: {', '.join(unknown)}; its keys are {', '.join(known)}")
        if missing := [key for key in known if key not in value and key != "notes"]:
            raise InputError(f"missing: {', '.join(missing)}")
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """All fields by name, as `from_json` reads them."""
        return asdict(self)

    def misfits(self, architecture: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Options of a method that the weights do not fit: {name: (theirs, the method's)}; theirs: None if missing.

        A method may lack options that the weights have: it then uses only some of them, see `serves_in_part`.
        """
        asked = json.loads(json.dumps(architecture))  # tuples are lists in a card
        both = {name: (self.architecture.get(name), value) for name, value in asked.items()}
        return {name: (theirs, value) for name, (theirs, value) in both.items() if theirs != value}

    def serves_in_part(self, architecture: Mapping[str, Any]) -> bool:
        """Whether a method that fits these weights leaves some of them unused."""
        return self.architecture.keys() > architecture.keys()

    def summary(self) -> dict[str, str]:
        """The most important entries, by caption."""
        return {
            "method": self.method,
            "size": f"{self.bytes / 1e6:.1f} MB",
            "scores": ", ".join(f"{measure} {score:.1f}" for measure, score in self.scores.items()) or "none",
            "trained on": "; ".join(self.data),
            "licence": self.licence,
        }

    def details(self) -> dict[str, str]:
        """All entries, by caption; the recipe and the notes may have several lines."""
        options = ", ".join(f"{name}={as_typed(value)}" for name, value in self.architecture.items())
        others = {key: text for key, text in self.recipe.items() if key not in ("name", "text")}
        recipe = [self.recipe["name"], *(f"{key} {text}" for key, text in others.items())]
        recipe += self.recipe.get("text", "").splitlines()
        more = {
            "options": options,
            "recipe": "\n".join(recipe),
            "commit": self.commit,
            "date": self.date,
            "bytes": str(self.bytes),
            "SHA-256": self.sha256,
        }
        return self.summary() | more | ({"notes": self.notes} if self.notes else {})


def as_typed(value: Any) -> str:
    """Format an option's value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _problem(name: str, value: Any) -> str | None:
    """The requirement that a field violates; None if it is valid."""
    if name == "architecture":
        return None if isinstance(value, dict) else "an object of options"
    if name == "data":
        strings = isinstance(value, list) and all(isinstance(line, str) for line in value)
        return None if strings else "a list of texts"
    if name == "recipe":
        strings = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        return None if strings and "name" in value else 'an object of texts with a "name"'
    if name == "scores":
        numbers = isinstance(value, dict) and all(
            isinstance(score, (int, float)) and not isinstance(score, bool) for score in value.values()
        )
        return None if numbers else "an object of numbers"
    if name == "bytes":
        return None if isinstance(value, int) and value >= 0 else "a number of bytes"
    if not isinstance(value, str):
        return "text"
    if name == "sha256" and not re.fullmatch("([0-9a-f]{64})?", value):
        return "64 hexadecimal digits"
    if name == "date" and not _is_date(value):
        return "a date, YYYY-MM-DD"
    return None


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
