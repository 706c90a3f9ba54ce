"""Sources of training clips, as configured in recipes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..files import fingerprint, read_json
from ..methods.options import NotNegative, with_options
from ..video.images import IMAGE_SUFFIXES
from .clip import ClipSource
from .davis import DavisDataset, listed_names
from .folders import FolderDataset
from .mixture import Mixture
from .sampling import VideoClips
from .sampling_options import SamplingConfig
from .youtube_vos import YouTubeVosDataset, names_in, split_lists

KINDS = ("davis2016", "davis2017", "youtube-vos", "folders", "stills")
_LOOKED_INTO = 64  # pictures per folder, or a few more, whose contents are part of the fingerprint
DAVIS_YEARS = {"davis2016": 2016, "davis2017": 2017}


@dataclass
class SourceConfig:
    """One source of a mixture."""

    newer: ClassVar[Mapping[str, Any]] = {"share_each": False}

    kind: str = "davis2017"
    """davis2016, davis2017, youtube-vos, folders or stills."""
    root: str = ""
    """The dataset's folder, relative to the base folder (`--data`) or absolute."""
    split: str = "train"
    """Split of davis and youtube-vos."""
    share: NotNegative = 1.0
    """Share of the clips, relative to the shares of the other sources."""
    cutouts: str = ""
    """With stills: a folder of cut-out pictures that move over them; empty: none."""
    turntable: str = ""
    """With stills: a folder of things seen from many sides, see `data.turntable`; empty: none."""
    resolution: str = "480p"
    """With davis: the folder below JPEGImages and Annotations."""
    one_object: bool = False
    """With folders: everything annotated is one object, as it always is with davis2016."""
    options: dict[str, Any] = field(default_factory=dict)
    """Values of `SamplingConfig`, or of `SyntheticConfig` with stills."""
    share_each: bool = False
    """Take `share` for each picture, video or (with `by_object`) object of the source; false: for all of it."""


def open_source(config: SourceConfig, base: Path, held_out: int = 0) -> ClipSource:
    """Open the pictures or videos that a configuration names, and check the names and headers of their files.

    base: the folder that roots are relative to. held_out: every n-th still is left out; 0: none.
    Raises InputError for an unknown kind, an option of another kind, or a missing folder, and, with a list of them, for
    problems with the files.
    """
    _require_consistent(config)
    root = _existing(base / config.root, config)
    if config.kind == "stills":
        return _open_stills(config, root, base, held_out)
    sampling = with_options(SamplingConfig(), config.options)
    if config.kind in DAVIS_YEARS:
        davis = DavisDataset(root, DAVIS_YEARS[config.kind], config.split, config.resolution)
        davis.check_files()
        return VideoClips(davis.sequences, sampling)
    if config.kind == "youtube-vos":
        return VideoClips(YouTubeVosDataset(root, config.split).sequences, sampling)
    return VideoClips(FolderDataset(root, one_object=config.one_object).sequences, sampling)


def open_mixture(configs: Sequence[SourceConfig], seed: int, base: Path, held_out: int = 0) -> Mixture:
    """Open several sources, which are mixed by their shares. Raises InputError as `open_source` does."""
    sources = [open_source(config, base, held_out) for config in configs]
    return Mixture(
        [
            (source, config.share * (len(source) if config.share_each else 1))
            for source, config in zip(sources, configs, strict=True)
        ],
        seed,
    )


def recorded_values(source: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a `SourceConfig` for a record that is compared later: newer options only where they have an effect.

    A cache or training begun before such an option existed then still fits a recipe that does not use it.
    """
    newer = SourceConfig.newer
    return {name: value for name, value in source.items() if name not in newer or value != newer[name]}


def data_fingerprint(configs: Sequence[SourceConfig], base: Path) -> str:
    """Hashes, "PICTURES-LISTS", of the data of configured sources.

    PICTURES: names and sizes of all pictures below the sources' folders, and the contents of about 64 in each folder.
    LISTS: what the files say that decide which videos and objects belong to a split, however their lines end. Raises
    InputError for a folder or a list that cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    named = (folder for config in configs for folder in (config.root, config.cutouts, config.turntable) if folder)
    for name in dict.fromkeys(named):
        folder = base / name
        pictures = sorted(
            Path(parent, file)
            for parent, _, files in os.walk(folder, followlinks=True)
            for file in files
            if Path(file).suffix.lower() in IMAGE_SUFFIXES
        )
        every = max(1, len(pictures) // _LOOKED_INTO)
        for number, path in enumerate(pictures):
            known = fingerprint(path) if number % every == 0 else path.stat().st_size
            digest.update(f"{path.relative_to(folder)} {known}\n".encode("utf-8", "surrogateescape"))
    lists = hashlib.blake2b(digest_size=8)
    for config in {(config.kind, config.root, config.split): config for config in configs}.values():
        if listed := _listed(config, base / config.root):
            lists.update(f"{json.dumps(listed)}\n".encode())
    return f"{digest.hexdigest()}-{lists.hexdigest()}"


def _listed(config: SourceConfig, root: Path) -> list[Any]:
    """The contents of the lists that decide what a source holds, as read; nothing where all there is belongs to it."""
    if config.kind in DAVIS_YEARS:
        return [listed_names(root, DAVIS_YEARS[config.kind], config.split)]
    if config.kind == "youtube-vos":
        meta, *own_list = split_lists(root, config.split)
        return [read_json(meta, "unpack the dataset again"), *map(names_in, own_list)]
    return []


def _open_stills(config: SourceConfig, root: Path, base: Path, held_out: int) -> ClipSource:
    # Imported here, since training on videos alone does not need this code.
    from .stills import Cutouts, StillImages
    from .synthetic import StillClips
    from .synthetic_options import SyntheticConfig
    from .turntable import Turntable

    cutouts = Cutouts(_existing(base / config.cutouts, config)) if config.cutouts else None
    turntable = Turntable(_existing(base / config.turntable, config)) if config.turntable else None
    options = with_options(SyntheticConfig(), config.options)
    if options.turning and turntable is None:
        raise InputError(
            f"turning is {options.turning:g}, but no turntable is given; give its folder, or leave turning out"
        )
    stills = StillImages(root).without(held_out) if held_out else StillImages(root)
    stills.refuse_black_and_white()
    return StillClips(stills, cutouts, options, turntable)


def _require_consistent(config: SourceConfig) -> None:
    if config.kind not in KINDS:
        raise InputError(f"kind of a source must be one of {', '.join(KINDS)}, got {config.kind!r}")
    if not config.root:
        raise InputError(f"a source of kind {config.kind} needs a root, the folder of its data")
    if config.cutouts and config.kind != "stills":
        raise InputError(f"cutouts move over stills, but this source is {config.kind}; leave them out")
    if config.turntable and config.kind != "stills":
        raise InputError(f"a turntable's things move over stills, but this source is {config.kind}; leave it out")
    if config.one_object and config.kind != "folders":
        raise InputError(f"one_object is an option of folders, but this source is {config.kind}; leave it out")
    if not config.share >= 0:
        raise InputError(f"share of a source must be 0 or more, got {config.share}")


def _existing(folder: Path, config: SourceConfig) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, but a source of kind {config.kind} was expected there")
    return folder
