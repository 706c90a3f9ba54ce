"""A finished run as exports see it: label map files, read one at a time, and the video that they belong to."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import read_json
from ..video.frames import Frame, Video
from ..video.images import ImageSequence
from ..video.label_map_files import in_frame_order, label_map_files
from ..video.label_maps import object_ids, read_label_map_and_confidence
from ..video.labelled import KeptFrame
from ..video.reader import open_video
from ..video.threads import prefetch

RECORD, MASKS = "run.json", "masks"
NAMES = "names"  # key of the record: frame names, in order


class Result:
    """The label maps of all frames of a video, in order.

    Args:
        paths: one PNG per frame, as written by `write_mask`.
        video: the video that the label maps belong to; None if not available: formats that need its pictures are
            refused then.
        name: name of the video, for formats that store it.
    """

    def __init__(self, paths: Sequence[Path], video: Video | None, name: str):
        if not paths:
            raise InputError(f"{name} has no label maps; give one for each frame, at least one")
        self.paths, self.name = list(paths), name
        self._video = video

    @classmethod
    def open(cls, path: str | Path, video: str | Path | Video | None = None) -> Result:
        """Open the folder of a finished `onemask run`, or a folder of label maps.

        Args:
            path: the folder.
            video: the video, needed if there is no record of the run or it does not lead to the video.

        Raises:
            InputError: there are no label maps, or the video cannot be read or has another number of frames.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder; expected the result of a finished run, or a folder of label maps"
            )
        record = folder / RECORD
        masks = folder / MASKS if (folder / MASKS).is_dir() else folder
        paths = list(masks.glob("*.png"))
        if not paths or (masks == folder and record.exists()):
            raise InputError(
                f"{folder} holds no label maps; expected the result of a finished run that saved its masks, or a "
                "folder of label maps as PNG"
            )
        known = _known(record)
        source = _source(known) if video is None else video.source if isinstance(video, Video) else str(video)
        name = Path(source).stem if source else folder.name
        opened = _opened(source, paths) if video is None else open_video(video)
        if opened is not None and opened.info.frames not in (None, len(paths)):
            raise InputError(
                f"{source} has {opened.info.frames} frames, but {masks} holds {len(paths)} label maps; give the video "
                "they belong to with --video"
            )
        names = _names(known)
        if not names and opened is not None:
            names = [opened.name(index) for index in range(len(paths))]
        return cls(in_frame_order(paths, names), opened, name)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the label maps."""
        height, width = self._read(0)[0].shape
        return height, width

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids of all objects, sorted. Reads every label map."""
        found: set[int] = set()
        for frame in self.frames():
            found.update(object_ids(frame.label_map))
        return tuple(sorted(found))

    def chosen(self, objects: Sequence[int] | None) -> tuple[int, ...]:
        """The ids to export, sorted: the given ones, as `exporting.check_result` passed them; None: all."""
        return self.ids if objects is None else tuple(sorted(set(objects)))

    @property
    def video(self) -> Video:
        """The video. Raises InputError if it is not available."""
        if self._video is None:
            raise InputError(
                f"the video of {self.name} is not known, or not where the run found it; give it with --video"
            )
        return self._video

    @property
    def has_video(self) -> bool:
        """Whether the video is available."""
        return self._video is not None

    def frames(self) -> Iterator[KeptFrame]:
        """Read the label maps, one after another."""
        for index in range(len(self)):
            yield self.frame(index)

    def frame(self, index: int) -> KeptFrame:
        """Read one label map. Raises InputError if it is missing, damaged, or differs in size from the first."""
        path = self.paths[index]
        label_map, confidence = self._read(index)
        if index and label_map.shape != self.size:
            came, first = ("x".join(map(str, size)) for size in (label_map.shape, self.size))
            raise InputError(
                f"{path} is {came}, but the first label map is {first} (height x width); give those of one video"
            )
        return KeptFrame(index, path.stem, label_map, confidence)

    def _read(self, index: int) -> tuple[np.ndarray, dict[int, float]]:
        label_map, confidence = read_label_map_and_confidence(self.paths[index])
        if label_map.ndim != 2:
            raise InputError(f"{self.paths[index]} is a colour picture; expected a label map, indexed or grey")
        return label_map, confidence

    def pictures(self) -> Iterator[tuple[KeptFrame, Frame]]:
        """Read the label maps together with the video's frames."""
        with closing(prefetch(self.video.frames())) as frames:
            for labelled, frame in zip(self.frames(), frames, strict=False):
                if frame.image.shape[:2] != labelled.label_map.shape:
                    raise InputError(
                        f"{self.video.source} has frames of another size than the label maps; give the video they "
                        "belong to with --video"
                    )
                yield labelled, frame

    def picture_name(self, index: int) -> str:
        """Return the file name of a frame's picture: the image's own, or that of a JPEG named after its label map."""
        if isinstance(self._video, ImageSequence):
            return self._video.paths[index].name
        return f"{self.paths[index].stem}.jpg"


def _known(record: Path) -> dict[str, Any]:
    """Read the record of a run; empty if there is none or it cannot be read."""
    if not record.exists():
        return {}
    try:
        return dict(read_json(record, ""))
    except (InputError, TypeError, ValueError):
        return {}


def _source(known: Mapping[str, Any]) -> str:
    """Return the video that a run's record names; empty if it names none."""
    try:
        return str(known["asked"]["input"]["source"])
    except (KeyError, TypeError):
        return ""


def _names(known: Mapping[str, Any]) -> list[str]:
    """Return the frame names in order from a run's record; empty if it has none."""
    names = known.get(NAMES)
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _opened(source: str, paths: Sequence[Path]) -> Video | None:
    """Open the video that a run's record names; None if it is not available. paths: the label maps."""
    if source and Path(source).exists():
        return open_video(source)
    if not glob.has_magic(source):
        return None
    with suppress(InputError):
        matched = open_video(source)
        # A glob pattern is relative to where the run was started, and may match other pictures here.
        if matched.info.frames == len(paths) and set(label_map_files(matched, len(paths))) == {p.name for p in paths}:
            return matched
    return None
