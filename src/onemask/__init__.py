"""onemask: give the mask of an object in one frame of a video, get its mask in every frame."""

from __future__ import annotations

__version__ = "0.1.0"
