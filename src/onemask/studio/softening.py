"""Soft edges for the page to look at: alpha of a frame's objects, by the code that exports use."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import cv2
import numpy as np

from ..exports.matte import alpha_of, matting
from ..video.frames import Video
from .frames import Steps

KEPT = 64  # mattes, as PNG


class MatteStore:
    """Mattes of a video's frames, computed when they are asked for; may be asked from any thread."""

    def __init__(self, video: Video):
        self._steps = Steps(video)
        self._computing = threading.Lock()
        self._kept: OrderedDict[tuple[int, str, bytes], bytes] = OrderedDict()

    def matte(self, index: int, mask: np.ndarray, edges: str) -> bytes:
        """Soften the edge of a mask by the frame under it.

        Args:
            index: of the frame.
            mask: (H, W) bool, of the frame's size.
            edges: how, of `onemask.exports.matte.MATTES`.

        Returns:
            Alpha as grey PNG of 8 bits.

        Raises:
            InputError: there are no such edges, or no such frame.
        """
        soften = matting(edges)
        key = index, edges, hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()
        with self._computing:  # one at a time: the frames come from one decoder, and the page wants the last alone
            if key not in self._kept:
                alpha = np.rint(255 * alpha_of(mask, self._steps.frame(index).image, soften)).astype(np.uint8)
                self._kept[key] = cv2.imencode(".png", alpha, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]
