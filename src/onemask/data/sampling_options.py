"""Options of clips that are sampled from videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..errors import InputError
from ..methods.options import Count, NotNegative, Positive, Range, Share, check_values


@dataclass(frozen=True)
class SamplingConfig:
    """How clips are sampled from videos; random values are drawn once per clip and hold for all its frames."""

    flip: Share = 0.5
    """Probability of a horizontal flip."""
    scale: tuple[Positive, Positive] = (0.5, 1.5)
    """Smallest and largest scale, log-uniform; 1: the whole frame just fits into the clip."""
    rotation: Annotated[float, Range(0, 90, "[)")] = 5.0
    """Largest angle in either direction, degrees."""
    shear: Annotated[float, Range(0, 90, "[)")] = 5.0
    """Largest angle in either direction, degrees."""
    drift: NotNegative = 0.01
    """Standard deviation of the crop's movement from one frame to the next, in clip sides."""
    colour: NotNegative = 1.0
    """Strength of the colour jitter; 0: colours stay as they are."""
    reverse: Share = 0.5
    """Probability that frames in order run backwards in time."""
    minimum_pixels: Count = 100
    """Smallest size of every object in the reference, after the crop."""
    kept: Share = 0.75
    """Smallest share of the anchor that the crop leaves in the reference."""
    by_object: bool = False
    """Draw the objects of all videos equally often; false: videos, and an object of each."""
    minimum_frames: Count = 1
    """Annotated frames of a video; shorter videos are left out."""

    def __post_init__(self):
        """Refuse invalid values."""
        check_values(self)
        low, high = self.scale
        if low > high:
            raise InputError(f"scale must be two positive numbers, the smaller first, got {low} and {high}")
