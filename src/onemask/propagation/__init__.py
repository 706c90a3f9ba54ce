"""A whole video through a session, forward and backward; `way_back` keeps what the backward pass finds."""

from ..video.labelled import LabelledFrame
from .propagation import Annotation, LabelMaps, Propagation, label_maps_of, propagate, propagate_back
from .way_back import Found, LabelMapFile, WayBack

__all__ = [
    "Annotation",
    "Found",
    "LabelMapFile",
    "LabelMaps",
    "LabelledFrame",
    "Propagation",
    "WayBack",
    "label_maps_of",
    "propagate",
    "propagate_back",
]
