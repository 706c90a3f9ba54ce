"""A finished run as its exports see it: label maps in files, read one at a time, and the video that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import read_json
from ..video.frames import Frame, Video
from ..video.images import ImageSequence, natural_key
from ..video.label_maps import object_ids, read_label_map_and_confidence
from ..video.reader import open_video
from ..video.threads import prefetch

RECORD, MASKS = "run.json", "masks"


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """The label map of a frame."""

    index: int
    name: str
    """Name for files about this frame, without a suffix."""
    label_map: np.ndarray
    """(H, W) uint8 or uint16."""
    confidence: Mapping[int, float]
    """Object -> the mean probability in [0, 1] that its pixels are its own; empty where the run did not write it."""

    def masks(self, objects: Sequence[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the id and the mask (H, W) bool of every object in this frame. objects: only these."""
        for object_id in object_ids(self.label_map):
            if objects is None or object_id in objects:
                yield object_id, self.label_map == object_id


class Result:
    """The label maps of all frames of a video, in order.

    Args:
        paths: a PNG for each frame, as `write_mask` writes them.
        video: whose label maps they are; None: it is not at hand, and formats that need its pictures are refused.
        name: of the video, for files that name it.
    """

    def __init__(self, paths: Sequence[Path], video: Video | None, name: str):
        if not paths:
            raise InputError(f"{name} has no label maps; give one for each frame, at least one")
        self.paths, self.name = list(paths), name
        self._video = video

    @classmethod
    def open(cls, path: str | Path, video: str | Path | None = None) -> Result:
        """Open the folder of a finished `onemask run`, or a folder of label maps.

        Args:
            path: the folder.
            video: the video, where the run's record does not lead to it, or there is none.

        Raises:
            InputError: there are no label maps, or the video cannot be read.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; expected the result of a finished run, or a folder of label maps")
        record = folder / RECORD
        masks = folder / MASKS if (folder / MASKS).is_dir() else folder
        paths = sorted(masks.glob("*.png"), key=natural_key)
        if not paths or (masks == folder and record.exists()):
            raise InputError(
                f"{folder} holds no label maps; expected the result of a finished run that saved its masks, or a "
                "folder of label maps as PNG"
            )
        source = str(video) if video is not None else _source(record)
        name = Path(source).stem if source else folder.name
        opened = open_video(source) if video is not None or (source and Path(source).exists()) else None
        if opened is not None and opened.info.frames not in (None, len(paths)):
            raise InputError(
                f"{source} has {opened.info.frames} frames, but {masks} holds {len(paths)} label maps; name the video "
                "that they belong to with --video"
            )
        return cls(paths, opened, name)

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

    @property
    def video(self) -> Video:
        """The video. Raises InputError where it is not at hand."""
        if self._video is None:
            raise InputError(
                f"the video of {self.name} is not known, or not where the run found it; say where it is, with --video"
            )
        return self._video

    @property
    def has_video(self) -> bool:
        """Whether the video is at hand."""
        return self._video is not None

    def frames(self) -> Iterator[KeptFrame]:
        """Read the label maps, one after another."""
        for index, path in enumerate(self.paths):
            yield self.frame(index, path.stem)

    def frame(self, index: int, name: str | None = None) -> KeptFrame:
        """Read one label map. Raises InputError where it is missing, damaged, or of another size than the first."""
        path = self.paths[index]
        label_map, confidence = self._read(index)
        if index and label_map.shape != self.size:
            came, first = ("x".join(map(str, size)) for size in (label_map.shape, self.size))
            raise InputError(
                f"{path} is {came}, but the first label map is {first} (height x width); give those of one video"
            )
        return KeptFrame(index, name or path.stem, label_map, confidence)

    def _read(self, index: int) -> tuple[np.ndarray, dict[int, float]]:
        label_map, confidence = read_label_map_and_confidence(self.paths[index])
        if label_map.ndim != 2:
            raise InputError(f"{self.paths[index]} is a picture in colours; expected a label map, indexed or grey")
        return label_map, confidence

    def pictures(self) -> Iterator[tuple[KeptFrame, Frame]]:
        """Read the label maps with the video's frames."""
        with closing(prefetch(self.video.frames())) as frames:
            for labelled, frame in zip(self.frames(), frames, strict=False):
                if frame.image.shape[:2] != labelled.label_map.shape:
                    raise InputError(
                        f"{self.video.source} has frames of another size than the label maps; name the video that they "
                        "belong to with --video"
                    )
                yield labelled, frame

    def picture_name(self, index: int) -> str:
        """The file name of a frame's picture: the image's own, or that of a JPEG named as its label map."""
        if isinstance(self._video, ImageSequence):
            return self._video.paths[index].name
        return f"{self.paths[index].stem}.jpg"


def _source(record: Path) -> str:
    """The video that a run's record names; empty where there is none."""
    if not record.exists():
        return ""
    try:
        return str(read_json(record, "")["asked"]["input"]["source"])
    except (InputError, KeyError, TypeError):
        return ""
