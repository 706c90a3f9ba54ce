"""JumpCut: 22 sequences in five groups (ANIMAL, HUMAN, STATIC, SNAPCUT, FAST), one object each.

    ROOT/GROUP/SEQUENCE/images/*.jpg    frames, in the order of their numbers
    ROOT/GROUP/SEQUENCE/labels/*.png    masks of all frames or of some, with the names or numbers of their frames

Groups may be left out, and folders may have other names or another order: see `grouped`.

Fan et al., JumpCut: Non-Successive Mask Transfer and Interpolation for Video Cutout, SIGGRAPH Asia 2015.
"""

from __future__ import annotations

from .grouped import FRAMES, MASKS, GroupedDataset


class JumpCutDataset(GroupedDataset):
    """The sequences of JumpCut, named GROUP/SEQUENCE."""

    layout = (
        f"[GROUP/]SEQUENCE/images/*.jpg and [GROUP/]SEQUENCE/labels/*.png, with GROUP such as ANIMAL (the folder of "
        f"frames is called {', '.join(FRAMES)}, or is the sequence's own; that of masks {', '.join(MASKS)})"
    )
