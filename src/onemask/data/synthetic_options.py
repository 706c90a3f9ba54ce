"""Options of clips that are made from still pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..errors import InputError
from ..methods.options import Count, NotNegative, Positive, Range, Share, Whole, check_values


@dataclass(frozen=True)
class SyntheticConfig:
    """Contents of synthetic clips and how much they vary. Lengths are in short sides of the frame, times in paths."""

    whole: Share = 0.3
    """Probability that the picture stays whole and the object only moves mildly in it."""
    elsewhere: Share = 0.3
    """Probability that the objects are pasted over another picture; otherwise over their own."""
    largest_hole: Share = 0.35
    """Largest share of their picture that objects leave empty; otherwise they go elsewhere."""
    further_object: Share = 0.7
    """Probability of a foreign object if the picture has fewer objects than were asked for."""
    distractors: tuple[NotNegative, ...] = (0.4, 0.4, 0.2)
    """Probabilities of 0, 1, 2, ... foreign things as background; they sum to 1."""
    occluder: Share = 0.35
    """Probability that something passes in front of an object."""
    hides: Share = 0.0
    """Probability that an object is out of sight for some frames and comes back; from 4 frames on."""
    covers: Share = 0.0
    """Probability that something covers a part of an object in the reference, and then leaves it."""
    twin: Share = 0.0
    """Probability of a copy of the first object as background; for clips of neighbouring frames."""
    rival: Share = 0.0
    """Probability that a twin is an object too, if there may be more objects."""
    turning: Share = 0.0
    """Probability that the object is a thing on a turntable, if there is one."""
    turns: NotNegative = 1.0
    """Largest number of rotations of a thing on a turntable per path, in either direction."""
    cutout: Share = 0.25
    """Probability that a foreign thing is one of the cut-outs, if there are any."""
    texture: Share = 0.25
    """Probability that a distractor or occluder is a random-shaped piece of a picture."""
    mirror: Share = 0.5
    """Probability that a picture is mirrored."""
    texture_prefixes: tuple[str, ...] = ("bsds-",)
    """Name prefixes of pictures whose regions may be textures."""
    texture_as_object: Share = 0.1
    """Probability that a region of such a picture is used as an object anyway."""

    smallest: Annotated[float, Range(0, 1, "(]")] = 0.05
    """Smallest share of the reference that the first object covers."""
    largest: Annotated[float, Range(0, 1, "(]")] = 0.7
    """Largest share of the reference that the first object covers; most are near 0.15."""
    enlargement: Positive = 2.2
    """Largest magnification of a picture's pixels."""
    least_pixels: Count = 150
    """Smallest object that is used, in pixels of its picture."""
    least_share: Share = 0.003
    """Smallest object that is used, as a share of its picture."""
    least_visible: Count = 100
    """Visible pixels of each object in the reference, for a short side of 240."""

    shift: NotNegative = 0.22
    """Amplitude of an object's path across and down."""
    turn: NotNegative = 16.0
    """Amplitude of an object's rotation, degrees."""
    zoom: NotNegative = 0.18
    """Amplitude of an object's scale, natural logarithm."""
    shear: NotNegative = 0.08
    """Amplitude of an object's shear, and of its stretching."""
    bend: NotNegative = 0.025
    """Amplitude of an object's bending, relative to its size."""
    camera: NotNegative = 0.35
    """Amplitude of the camera's path, relative to an object's."""
    mild: NotNegative = 0.35
    """Amplitude of an object's path in a whole picture, relative to its usual one."""

    frames_a_path: Count = 40
    """Frames of a video that make a path."""
    exposure: NotNegative = 0.03
    """Longest exposure, in paths, over which motion blurs."""
    blurred: Share = 0.4
    """Probability that a clip has motion blur."""
    colours: NotNegative = 1.0
    """Strength of the colour jitter."""
    degraded: Share = 1.0
    """Probability that a clip goes through `degrade`, which leaves a third unchanged."""
    attempts: Whole = 8
    """Attempts to make every object visible in the reference, before falling back to a simple clip."""

    def __post_init__(self):
        """Refuse invalid values."""
        check_values(self)
        if abs(sum(self.distractors) - 1) > 1e-6:
            raise InputError(f"distractors must be probabilities that sum to 1, got {self.distractors}")
        if self.smallest > self.largest:
            raise InputError(f"smallest must not be above largest, got {self.smallest:g} and {self.largest:g}")
