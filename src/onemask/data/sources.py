"""Sources of training clips, as values of a configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..methods.options import NotNegative, with_options
from .clip import ClipSource
from .davis import DavisDataset
from .folders import FolderDataset
from .mixture import Mixture
from .sampling import SamplingConfig, VideoClips
from .youtube_vos import YouTubeVosDataset

KINDS = ("davis2016", "davis2017", "youtube-vos", "folders", "stills")
_YEARS = {"davis2016": 2016, "davis2017": 2017}


@dataclass
class SourceConfig:
    """One source of a mixture."""

    kind: str = "davis2017"  # davis2016, davis2017, youtube-vos, folders or stills
    root: str = ""  # the dataset's folder, from the base folder unless it is absolute
    split: str = "train"  # of davis and youtube-vos; folders and stills have none
    share: NotNegative = 1.0  # of the clips, in proportion to the other sources' shares
    cutouts: str = ""  # folder of cut-out pictures that move over stills; empty: none. Only of stills
    resolution: str = "480p"  # folder below JPEGImages and Annotations. Only of davis
    one_object: bool = False  # everything annotated is one object. Only of folders; davis2016 has it so anyway
    options: dict[str, Any] = field(default_factory=dict)  # of sampling.SamplingConfig; of stills SyntheticConfig


def open_source(config: SourceConfig, base: Path) -> ClipSource:
    """Open the pictures or videos that a configuration names, and check their files as far as headers tell.

    base: the folder from which relative roots are meant. Raises InputError for a kind that there is not, an option of
    another kind, a folder that is missing, and with a list of what is wrong in it.
    """
    _require_consistent(config)
    root = _existing(base / config.root, config)
    if config.kind == "stills":
        return _open_stills(config, root, base)
    sampling = with_options(SamplingConfig(), config.options)
    if config.kind in _YEARS:
        davis = DavisDataset(root, _YEARS[config.kind], config.split, config.resolution)
        davis.check_files()
        return VideoClips(davis.sequences, sampling)
    if config.kind == "youtube-vos":
        return VideoClips(YouTubeVosDataset(root, config.split).sequences, sampling)
    return VideoClips(FolderDataset(root, one_object=config.one_object).sequences, sampling)


def open_mixture(configs: Sequence[SourceConfig], seed: int, base: Path) -> Mixture:
    """Open several sources, which are mixed by their shares. Raises InputError as `open_source` does."""
    return Mixture([(open_source(config, base), config.share) for config in configs], seed)


def _open_stills(config: SourceConfig, root: Path, base: Path) -> ClipSource:
    # Warping stills takes more code than cutting videos; who trains on videos alone need not load it.
    from .stills import Cutouts, StillImages
    from .synthetic import StillClips, SyntheticConfig

    cutouts = Cutouts(_existing(base / config.cutouts, config)) if config.cutouts else None
    return StillClips(StillImages(root), cutouts, with_options(SyntheticConfig(), config.options))


def _require_consistent(config: SourceConfig) -> None:
    if config.kind not in KINDS:
        raise InputError(f"kind of a source is {', '.join(KINDS)}, got {config.kind!r}")
    if not config.root:
        raise InputError(f"a source of kind {config.kind} needs a root, the folder of its data")
    if config.cutouts and config.kind != "stills":
        raise InputError(f"cutouts move over stills, but this source is {config.kind}; leave them out")
    if config.one_object and config.kind != "folders":
        raise InputError(f"one_object is an option of folders, but this source is {config.kind}; leave it out")
    if not config.share >= 0:
        raise InputError(f"share of a source is 0 or more, got {config.share}")


def _existing(folder: Path, config: SourceConfig) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder, but a source of kind {config.kind} is said to be there")
    return folder
