"""YouTube-Objects with the masks of Jain and Grauman: ten classes, 126 shots with a mask for every tenth frame.

    ROOT/CLASS/data/VIDEO/shots/SHOT/images/frame0001.jpg    frames; or in SHOT itself, as in YouTube-Objects
    ROOT/CLASS/data/VIDEO/shots/SHOT/labels/00001.jpg        masks, black and white, JPEG or PNG

A shot is a video of its own here, named CLASS/VIDEO/SHOT. `data` and `shots` may be left out, and the folders of frames
and masks may have other names or another order: see `grouped`. Frames may be larger than their masks.

Prest et al., Learning Object Class Detectors from Weakly Annotated Video, CVPR 2012; Jain and Grauman, Supervoxel-
Consistent Foreground Propagation in Video, ECCV 2014.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .grouped import FRAMES, MASKS, GroupedDataset, group_of

CLASSES = ("aeroplane", "bird", "boat", "car", "cat", "cow", "dog", "horse", "motorbike", "train")


class YouTubeObjectsDataset(GroupedDataset):
    """The shots of YouTube-Objects that have masks, named CLASS/VIDEO/SHOT."""

    layout = (
        f"CLASS/data/VIDEO/shots/SHOT/images/frame0001.jpg and .../SHOT/labels/00001.jpg, with CLASS one of "
        f"{', '.join(CLASSES)} (the folder of frames is called {', '.join(FRAMES)}, or is the shot's own; that of "
        f"masks {', '.join(MASKS)}; data and shots may be left out)"
    )
    unnamed = frozenset({"data", "shots"})

    def __init__(self, root: str | Path) -> None:
        """Look for the masks of all shots. Raises InputError as in `grouped`, and for a folder that is not a class."""
        super().__init__(root)
        if odd := [sequence.name for sequence in self.sequences if group_of(sequence.name) not in CLASSES]:
            raise InputError(f"{self.root}: {odd[0]} does not belong to any of the ten classes; expected {self.layout}")
