"""Conversion of a decoded picture to the upright 8-bit RGB image that a player would show."""

from __future__ import annotations

from typing import Any

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter

from ..errors import InputError
from .cropping import Crop

# Codes of ISO/IEC 23091-2 (H.273), which FFmpeg's AVCOL_* constants and the streams themselves use.
_RGB, _BT709, _UNSPECIFIED, _FCC, _BT470BG, _SMPTE170M, _SMPTE240M, _BT2020 = 0, 1, 2, 4, 5, 6, 7, 9
_LIMITED, _FULL = 1, 2
_PQ, _HLG = 16, 18

# H.273 code of the matrix -> swscale's code of its coefficients (SWS_CS_*)
_SWSCALE_MATRIX = {_BT709: 1, _FCC: 4, _BT470BG: 5, _SMPTE170M: 5, _SMPTE240M: 7, _BT2020: 9}
_BT709_FROM_HEIGHT = 720  # players assume BT.709 from this height on if a stream does not say

# BILINEAR | FULL_CHR_H_INT | ACCURATE_RND: chroma interpolated, sums rounded; truncation would darken by 1 or 2
_PRECISE = 0x2 | 0x2000 | 0x40000


class RgbConverter:
    """Converts the frames of one stream; reuses swscale's tables between frames. crop: the container's crop."""

    def __init__(self, crop: Crop | None = None) -> None:
        self._reformatter = VideoReformatter()
        self._crop = crop

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """The (H, W, 3) uint8 RGB image, cropped as the container specifies, then rotated and mirrored by the display
        matrix."""
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=matrix_of(frame),
            src_color_range=range_of(frame),
            dst_color_range=_FULL,
            interpolation=_PRECISE,
        )
        image = rgb.to_ndarray() if self._crop is None else self._crop(rgb.to_ndarray())
        return np.ascontiguousarray(upright(image, display_matrix(frame)))


def matrix_of(frame: VideoFrame) -> int:
    """swscale's code of the frame's YCbCr matrix; the one that players assume if the stream does not say."""
    code = int(frame.colorspace)
    if code in _SWSCALE_MATRIX:
        return _SWSCALE_MATRIX[code]
    if code in (_RGB, _UNSPECIFIED):
        return _SWSCALE_MATRIX[_BT709 if frame.height >= _BT709_FROM_HEIGHT else _BT470BG]
    raise InputError(
        f"the video's colours use matrix {code} of H.273, which is not supported; convert it to BT.709: ffmpeg -i "
        "INPUT -vf zscale=m=bt709 OUTPUT.mp4"
    )


def range_of(frame: VideoFrame) -> int:
    """Code of the frame's range: limited (16..235) unless the stream says full, or is RGB."""
    if frame.color_range in (_LIMITED, _FULL):
        return int(frame.color_range)
    full = frame.format.is_rgb or frame.format.name.startswith(("yuvj", "gray", "pal"))
    return _FULL if full else _LIMITED


def refuse_hdr(transfer: int, source: str) -> None:
    """Raise InputError for PQ and HLG, whose values represent light beyond the range of 8-bit RGB."""
    if transfer not in (_PQ, _HLG):
        return
    name = {_PQ: "PQ (SMPTE ST 2084)", _HLG: "HLG (ARIB STD-B67)"}[transfer]
    raise InputError(
        f"{source} is HDR video with {name} transfer; expected standard dynamic range. Convert it first: "
        "ffmpeg -i INPUT -vf zscale=t=linear:npl=100,tonemap=hable,"
        "zscale=p=bt709:t=bt709:m=bt709:r=tv,format=yuv420p OUTPUT.mp4"
    )


def display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The 3x3 matrix that the file specifies for display, in 16.16 fixed point; None if it has none."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32).reshape(3, 3)


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotate by a multiple of 90 degrees and mirror, as the display matrix specifies (a view, not a copy).

    The matrix maps (x, y) to (ax + cy, bx + dy), with rows (a, b, .) and (c, d, .); angles that are not multiples of
    90 degrees, which no camera writes, are rounded to the nearest.
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
