"""Videos as folders of pictures.

    ROOT/frames/VIDEO/*.jpg, *.png    frames, in the order of their names
    ROOT/masks/VIDEO/*.png            label maps, each named like its frame; some frames may have none

Masks are palette or grey PNGs whose values are ids, the same id for the same object in all masks of a video. 255 is
void, except in a video whose masks are black and white, where it is foreground.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .sequence import (
    SequenceDataset,
    VideoSequence,
    file_problems,
    find_frames,
    find_masks,
    mask_problems,
    refuse_problems,
)


class FolderDataset(SequenceDataset):
    """The videos in a folder, checked when the dataset is opened."""

    def __init__(self, root: str | Path, *, one_object: bool = False) -> None:
        """Look up the files of all videos. one_object: everything annotated is object 1, whatever its value or colour.

        Raises one InputError that names videos without frames or masks, masks without a frame, masks that are not
        label maps (three per video are read) and masks whose size differs from their frame's (from headers).
        """
        self.root = Path(root)
        names, masked = _folders_in(self.root / "frames"), _folders_in(self.root / "masks")
        problems = [f"masks/{name} has no frames/{name}" for name in masked if name not in names]
        self.sequences = tuple(self._find(name, one_object) for name in names)
        for sequence in self.sequences:
            problems += file_problems(sequence) + mask_problems(sequence, for_training=True)
        refuse_problems(
            f"{self.root}: frames and masks do not fit each other", problems, "A mask is a PNG, called like its frame"
        )

    def _find(self, name: str, one_object: bool) -> VideoSequence:
        frames = find_frames(self.root / "frames" / name)
        masks = find_masks(self.root / "masks" / name)
        return VideoSequence(name, frames, tuple(masks.get(frame.stem) for frame in frames), one_object)


def _folders_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; expected frames/VIDEO/*.jpg and masks/VIDEO/*.png in {folder.parent}"
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise InputError(f"{folder} contains no folder; expected one for each video, {folder.name}/VIDEO")
    return names
