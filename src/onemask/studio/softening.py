"""Preview of soft edges for the page: alpha of a frame's objects, made with the code of the exports."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import cv2
import numpy as np

from ..exports.matte import alpha_of, matting
from ..video.frames import Video
from .frames import Steps

KEPT = 64  # mattes to cache, as PNG


class MatteStore:
    """Mattes of a video's frames, computed on demand and cached. Thread-safe."""

    def __init__(self, video: Video):
        self._steps = Steps(video)
        self._computing = threading.Lock()
        self._kept: OrderedDict[tuple[int, str, bytes], bytes] = OrderedDict()

    def matte(self, index: int, mask: np.ndarray, edges: str) -> bytes:
        """Soften the edge of a mask, guided by the frame under it.

        Args:
            index: frame number.
            mask: (H, W) bool, at the frame's size.
            edges: how to soften, a key of `onemask.exports.matte.MATTES`.

        Returns:
            Alpha as 8-bit grey PNG.

        Raises:
            InputError: there are no such edges, or no such frame.
        """
        soften = matting(edges)
        key = index, edges, hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()
        with self._computing:  # one at a time: all frames come from one decoder
            if key not in self._kept:
                alpha = np.rint(255 * alpha_of(mask, self._steps.frame(index).image, soften)).astype(np.uint8)
                self._kept[key] = cv2.imencode(".png", alpha, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]
