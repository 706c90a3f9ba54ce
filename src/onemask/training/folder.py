"""The output folder of a training run, and the cards of its weights."""

from __future__ import annotations

import io
import logging
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..data.sources import SourceConfig, recorded_values
from ..errors import InputError, Interrupted, OutputError
from ..files import read_json, remove, remove_if_empty, write_bytes, write_json
from ..jobs.results import ResultFolder
from ..methods import trainable
from ..methods.options import newer_options
from ..weights.card import Card
from ..weights.store import card_path, save
from .recipe import Recipe, read_recipe
from .recipe_file import by_todays_keys, to_yaml

log = logging.getLogger(__name__)

RENAMED = {"place": "reached", "method": "network"}  # old key of a checkpoint -> present key
# Defaults of options that have changed since records named only the options that recipes set.
CHANGED: dict[str, dict[str, Any]] = {
    "pmvos-lite": {"background": "product", "padding": "edge"},
    "ttvos-lite": {"background": "product", "returns": True},
}
# Options that may change when training is resumed.
NOT_OF_RESULT = ("workers", "checkpoint_every", "picture_every", "attribution", "licence", "note")


class TrainingFolder:
    """The output folder of a training run; `train` lists its contents."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"  # with all values
        self.checkpoint = self.path / "checkpoint.pt"  # the state from which training continues
        self.earlier_checkpoint = self.path / "checkpoint.earlier.pt"  # the previous one, in case that is damaged
        weights = [self.weights(name) for name in ("best", "last")]
        checkpoints = [self.checkpoint, self.earlier_checkpoint]
        files = [self.recipe, *checkpoints, self.path / "history.jsonl", *weights, *map(card_path, weights)]
        self._files = [path.name for path in files]
        self.results = ResultFolder(
            self.path,
            "a training",
            (*self._files, "log"),
            _of_earlier_versions,
            reused=("cache",),
            holds_work=self._holds_work,
        )
        self._data = self.results.own / "data.json"

    def weights(self, name: str) -> Path:
        """A file of weights, "best" or "last"."""
        return self.path / f"{name}.safetensors"

    def check(self, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
        """Refuse a folder that holds something else, as `ResultFolder.check` does."""
        if resume and not self.results.recorded and self.recipe.exists() and self._holds_work():
            self._take_over()
        self.results.check(_decisive(recipe), overwrite=overwrite, resume=resume)

    def refuse_other_data(self, data: str) -> None:
        """Raise InputError if the fingerprint of the training data differs from that of the data at the start."""
        if not self.results.begun or not self._data.exists():
            return
        pictures = data.partition("-")[0]
        begun = read_json(self._data, "pass --overwrite to start over")
        if begun not in (data, pictures):  # earlier versions recorded the pictures alone
            what = "lists of videos" if str(begun).partition("-")[0] == pictures else "pictures"
            raise InputError(
                f"the {what} of the training data have changed since {self.path} was started; restore them, or "
                "start over in another folder or with --overwrite"
            )

    @contextmanager
    def opened(self, recipe: Recipe, data: str, *, overwrite: bool, resume: bool) -> Iterator[None]:
        """Hold the folder for the block. Unless an earlier run is resumed, its files are removed.

        A block that is refused before its first step leaves nothing behind but the cache.
        data: fingerprint of the training data.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]  # innermost first
        try:
            with self.results.opened(_decisive(recipe), overwrite=overwrite, resume=resume):
                write_json(self._data, data, durable=True)
                self.results.adopt(*self._files)
                self.note_log()
                with self.results.writing(self.recipe.name) as path:
                    write_bytes(path, to_yaml(recipe).encode())
                try:
                    yield
                except Interrupted:
                    raise
                except Exception:
                    if not self._holds_work():
                        self._withdraw()
                    raise
        finally:
            for folder in (self.results.own, *made):  # only now: the lock is in the first
                remove_if_empty(folder)

    def _holds_work(self) -> bool:
        """Whether there is anything of a training that has taken a step."""
        made = (self.path / name for name in self._files if name != self.recipe.name)
        return any(path.exists() for path in made) or any(self.path.glob("log/events.*"))

    def _withdraw(self) -> None:
        """Remove the recipe and the records of a training that never took a step."""
        with suppress(OutputError):  # the error that ended the training says more
            self.results.remove(self.recipe.name)
            remove(self._data)
            self.results.forget()

    def note_log(self) -> None:
        """Add TensorBoard's files, whose names it chooses itself, to the manifest."""
        self.results.adopt(*(f"log/{path.name}" for path in self.path.glob("log/events.*")))

    def _take_over(self) -> None:
        """Make a run of a version without manifests resumable."""
        asked = _decisive(read_recipe(self.recipe))
        with self.results.held():
            self.results.adopt(*self._files)
            self.note_log()
            self.results.ask(asked)

    def save(self, name: str, trained: nn.Module, recipe: Recipe, scores: dict[str, float], commit: str) -> None:
        """Write weights with their card."""
        sources = [_described(source) for stage in recipe.stages for source in stage.data]
        card = Card(
            method=recipe.method,
            architecture=dict(trainable(recipe.method, recipe.options).architecture),
            data=recipe.attribution or list(dict.fromkeys(sources)),
            recipe={"name": self.path.resolve().name, "text": to_yaml(recipe)},
            commit=commit,
            date=date.today().isoformat(),
            scores=scores,
            licence=recipe.licence or "see the data's own terms",
            notes=recipe.note,
        )
        save(trained, self.weights(name), card)

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write a checkpoint atomically, and keep the previous one beside it.

        Raises:
            OutputError: the disk is full or the folder not writable. Earlier checkpoints are unchanged.
        """
        content = io.BytesIO()  # if torch wrote to the file itself, a full disk would raise an error of torch's own
        torch.save(state, content)
        write_bytes(self.checkpoint, content.getbuffer(), earlier=self.earlier_checkpoint)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The newest intact checkpoint, on the CPU; None if none was written.

        Raises:
            InputError: there are checkpoints, but none can be read.
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
                log.warning("%s; training continues from the one before, %s", failure, path)
            return state
        if failure is not None:
            raise InputError(f"{failure}; start over with --overwrite, or in another folder") from failure
        return None


def _checkpoint_in(path: Path) -> dict[str, Any]:
    """Load a checkpoint, a zip archive written by torch, after checking the CRC-32 of its parts."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise InputError(f"{path} is damaged ({damaged})")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise InputError(f"{path} is not a training checkpoint, it holds {type(state).__name__}")
    except InputError:
        raise
    except Exception as error:  # torch raises errors of many types
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read ({reason})") from error
    return {RENAMED.get(str(name), str(name)): value for name, value in state.items()}


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """All values that affect the result, with every option of the method, as its defaults may change.

    Lists of tables become tables by index, so that each difference has a name.
    """
    values = asdict(recipe)
    values["options"] = _configured(trainable(recipe.method, recipe.options))
    for stage in values["stages"]:
        stage["data"] = [recorded_values(source) for source in stage["data"]]
    return {name: _by_place(value) for name, value in values.items() if name not in NOT_OF_RESULT}


def _of_earlier_versions(asked: dict[str, Any]) -> dict[str, Any]:
    """Settings that a run began with, under today's keys; options added since have the value that applied then."""
    today = {"held_out": 0, **by_todays_keys(asked)}
    with suppress(InputError):  # the method belongs to a package that is not installed
        method, given = str(today.get("method")), today.get("options") or {}
        every, newer = _configured(trainable(method)), newer_options(trainable(method))
        recorded_all = every.keys() - newer.keys() <= given.keys()
        today["options"] = (newer if recorded_all else every | CHANGED.get(method, {})) | given
    return today


def _configured(chosen: Any) -> dict[str, Any]:
    """Every option of what is trained; none if it is no dataclass."""
    return asdict(chosen) if is_dataclass(chosen) and not isinstance(chosen, type) else {}


def _by_place(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _by_place(inner) for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return {str(place): _by_place(inner) for place, inner in enumerate(value)}
    return value


def _described(source: SourceConfig) -> str:
    """Name of a source for the card."""
    split = "" if source.kind in ("folders", "stills") else f" {source.split}"
    pasted = " and ".join(folder for folder in (source.cutouts, source.turntable) if folder)
    return f"{source.kind} {source.root}{split}{f' with {pasted}' if pasted else ''}"


def commit() -> str:
    """The commit of the running code if it is a checkout, "-dirty" if it has changes; otherwise the version."""
    folder = Path(__file__).parent
    try:
        # Inside another project's checkout (where virtual environments often are) git would report that commit.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(folder, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
