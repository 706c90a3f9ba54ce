"""A mask from marks in one frame: `selection` makes it, and `marks` has the clicks and scribbles."""

from .selection import Marks, Selection, first_mask, label_maps_of_marks

__all__ = ["Marks", "Selection", "first_mask", "label_maps_of_marks"]
