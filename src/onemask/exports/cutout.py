"""Video of the cut-out objects, with alpha and the source's timing: ProRes 4444 and VP9."""

from __future__ import annotations

import cv2
import numpy as np

from ..video.writer import DEFAULT_FPS, PRORES_4444, VP9_ALPHA, Codec, VideoWriter
from .matte import alpha_of, matting
from .result import Result
from .target import ExportOptions, Target


def write_prores(result: Result, target: Target, options: ExportOptions) -> None:
    """Write a MOV for video editors: 10-bit ProRes 4444 with straight alpha."""
    _write(result, target, options, PRORES_4444)


def write_webm(result: Result, target: Target, options: ExportOptions) -> None:
    """Write a WebM for browsers: VP9 with straight alpha."""
    _write(result, target, options, VP9_ALPHA)


def _write(result: Result, target: Target, options: ExportOptions, codec: Codec) -> None:
    soften, video = matting(options.matte), result.video
    height, width = result.size
    with (
        target("") as path,
        VideoWriter(path, width, height, video.info.fps or DEFAULT_FPS, like=video, codec=codec) as writer,
    ):
        for labelled, frame in result.pictures():
            alpha = np.rint(255 * alpha_of(labelled.only(options.objects) > 0, frame.image, soften)).astype(np.uint8)
            writer.write(cv2.merge([*cv2.split(frame.image), alpha]), frame.time)
