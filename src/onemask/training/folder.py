"""The folder that a training writes, and the cards of its weights."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import zipfile
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..data.sources import SourceConfig
from ..errors import InputError
from ..files import refuse_existing, write_bytes, written_whole
from ..methods import configuration
from ..methods.method import Method
from ..settings import differences
from ..weights.card import Card
from ..weights.store import card_path, save
from .recipe import Recipe, read_recipe, to_yaml

log = logging.getLogger(__name__)

# What a resumed training may change.
NOT_OF_RESULT = ("workers", "checkpoint_every", "picture_every", "attribution", "licence", "note")


@dataclass(frozen=True)
class RunFolder:
    """The output of a training; `train` says what is in it."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The state from which training continues."""
        return self.path / "checkpoint.pt"

    @property
    def earlier_checkpoint(self) -> Path:
        """The last but one, in case the last is damaged."""
        return self.path / "checkpoint.earlier.pt"

    @property
    def recipe(self) -> Path:
        """The recipe, with every value."""
        return self.path / "recipe.yaml"

    def weights(self, name: str) -> Path:
        """A file of weights, "best" or "last"."""
        return self.path / f"{name}.safetensors"

    def refuse(self, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
        """Refuse what holds something else. Raises InputError where there is nothing to go on with, or OutputError."""
        if not resume:
            refuse_existing(self.path, overwrite)
            return
        if not self.recipe.exists():
            raise InputError(f"{self.path} holds no training to go on with; leave out --resume to begin one")
        if different := differences(_decisive(read_recipe(self.recipe)), _decisive(recipe)):
            raise InputError(
                f"{self.path} holds a training that was started with {', '.join(different)}; give the values of "
                f"{self.recipe}, or choose another folder"
            )

    def begin(self, recipe: Recipe, *, resume: bool) -> None:
        """Write the recipe down; where it is not gone on with, remove what an earlier training left."""
        if not resume:
            weights = [self.weights(name) for name in ("best", "last")]
            stale = [
                self.checkpoint,
                self.earlier_checkpoint,
                self.path / "history.jsonl",
                *weights,
                *map(card_path, weights),
            ]
            for path in (*stale, *self.path.glob("log/events.*")):
                path.unlink(missing_ok=True)
        write_bytes(self.recipe, to_yaml(recipe).encode())

    def save(self, name: str, method: Method, recipe: Recipe, scores: dict[str, float], commit: str) -> None:
        """Write weights with their card."""
        sources = [_described(source) for stage in recipe.stages for source in stage.data]
        card = Card(
            method=recipe.method,
            architecture=dict(configuration(recipe.method, recipe.options).architecture),
            data=recipe.attribution or list(dict.fromkeys(sources)),
            recipe={"name": self.path.resolve().name, "text": to_yaml(recipe)},
            commit=commit,
            date=date.today().isoformat(),
            scores=scores,
            licence=recipe.licence or "see the data's own terms",
            notes=recipe.note,
        )
        save(method, self.weights(name), card)

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write it whole or not at all; the one before is kept beside it.

        Raises:
            OutputError: the disk is full, or the folder refuses. Earlier checkpoints are as they were.
        """
        content = io.BytesIO()  # writing to a file itself, torch ends a full disk with an error of its own
        torch.save(state, content)
        with written_whole(self.checkpoint) as temporary:
            temporary.write_bytes(content.getbuffer())
            if self.checkpoint.exists():
                os.replace(self.checkpoint, self.earlier_checkpoint)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, on the CPU; None where none was written.

        Raises:
            InputError: there is one, but none that can be read.
        """
        failure: InputError | None = None
        for path in (self.checkpoint, self.earlier_checkpoint):
            if not path.exists():
                continue
            try:
                state = _checkpoint_in(path)
            except InputError as error:
                failure = failure or error
                continue
            if failure is not None:
                log.warning("%s; training goes on from the one before, %s", failure, path)
            return state
        if failure is not None:
            raise InputError(f"{failure}; begin anew with --overwrite, or in another folder") from failure
        return None


def _checkpoint_in(path: Path) -> dict[str, Any]:
    """Load a checkpoint, a zip archive by torch, whose parts have a CRC-32 that is checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise InputError(f"{path} is damaged ({damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise InputError(f"{path} is no checkpoint of a training, it holds {type(state).__name__}")
    except InputError:
        raise
    except Exception as error:  # torch raises whatever its parts do
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read ({reason})") from error
    return state


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """Every value that decides the result, lists of tables by their places so that differences are named one by one."""
    return {name: _by_place(value) for name, value in asdict(recipe).items() if name not in NOT_OF_RESULT}


def _by_place(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _by_place(inner) for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return {str(place): _by_place(inner) for place, inner in enumerate(value)}
    return value


def _described(source: SourceConfig) -> str:
    """A source as a card names it."""
    split = "" if source.kind in ("folders", "stills") else f" {source.split}"
    return f"{source.kind} {source.root}{split}{f' with {source.cutouts}' if source.cutouts else ''}"


def commit() -> str:
    """The commit of the code that runs, "-dirty" with changes, where it is a checkout; otherwise the version."""
    folder = Path(__file__).parent
    try:
        # Inside of another project's checkout (as a virtual environment often is) git would name that one's commit.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(folder, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
