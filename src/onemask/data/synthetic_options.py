"""Options of clips that are made of still pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..errors import InputError
from ..methods.options import Count, NotNegative, Positive, Range, Share, Whole, check_values


@dataclass(frozen=True)
class SyntheticConfig:
    """Contents of synthetic clips and how much they vary. Lengths are in short sides of the frame, times in paths."""

    whole: Share = 0.3  # probability that the picture stays whole and the object only moves mildly in it
    elsewhere: Share = 0.3  # probability that the objects are pasted over another picture; otherwise over their own
    largest_hole: Share = 0.35  # share of its own picture that an object leaves empty; larger ones go elsewhere
    further_object: Share = 0.7  # probability of a foreign object where the picture has fewer than were asked for
    distractors: tuple[NotNegative, ...] = (
        0.4,
        0.4,
        0.2,
    )  # probabilities of 0, 1, 2.. foreign things that are background
    occluder: Share = 0.35  # probability that something passes in front of an object
    hides: Share = 0.0  # probability that an object is out of sight for some frames and comes back; from 4 frames on
    covers: Share = 0.0  # probability that in the reference something lies over a part of an object, and then leaves it
    twin: Share = 0.0  # probability of a copy of the first object as background; for clips of neighbouring frames
    rival: Share = 0.0  # probability that a twin is an object too, where more are asked for
    turning: Share = 0.0  # probability that the object is a thing on a turntable, if there is one
    turns: NotNegative = 1.0  # of such a thing in a path, at most, either way
    cutout: Share = 0.25  # probability that a foreign thing is one of the cut-outs, if there are any
    texture: Share = 0.25  # probability that a distractor or occluder is a piece of a picture in no thing's shape
    mirror: Share = 0.5  # probability that a picture is mirrored
    texture_prefixes: tuple[str, ...] = ("bsds-",)  # pictures whose regions are not always things
    texture_as_object: Share = 0.1  # probability that such a region is taken for an object all the same

    smallest: Annotated[float, Range(0, 1, "(]")] = (
        0.05  # share of the frame that the first object is to cover in the reference, from
    )
    largest: Annotated[float, Range(0, 1, "(]")] = 0.7  # ... to; mostly near 0.15
    enlargement: Positive = 2.2  # at most, of a picture's pixels
    least_pixels: Count = 150  # in a picture, of an object that is taken
    least_share: Share = 0.003  # of its picture, of an object that is taken
    least_visible: Count = 100  # pixels of each object in the reference, in a frame of 240 pixels

    shift: NotNegative = 0.22  # amplitude of an object's path across and down
    turn: NotNegative = 16.0  # amplitude of its rotation, degrees
    zoom: NotNegative = 0.18  # amplitude of its scale, natural logarithm
    shear: NotNegative = 0.08  # amplitude of its shear, and of its stretching
    bend: NotNegative = 0.025  # amplitude of its bending, in sizes of the object
    camera: NotNegative = 0.35  # the camera's path, as a share of an object's
    mild: NotNegative = 0.35  # an object's path in a whole picture, as a share of what it is otherwise

    frames_a_path: Count = 40  # neighbouring frames of a video are this part of a path apart
    exposure: NotNegative = 0.03  # longest, in paths: what moves is smeared along its way
    blurred: Share = 0.4  # probability that a clip is exposed so long that one sees it
    colours: NotNegative = 1.0  # strength of the jitter of colours
    degraded: Share = 1.0  # probability that a clip goes through `degrade`, which leaves a third as they are
    attempts: Whole = 8  # to place everything so that it is seen in the reference, before something simple is taken

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if abs(sum(self.distractors) - 1) > 1e-6:
            raise InputError(f"distractors are probabilities that sum to 1, got {self.distractors}")
