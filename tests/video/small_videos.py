"""Small videos for the tests of this folder, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Four flat patches: top left, top right, bottom left, bottom right.
PATCHES = np.array([[220, 40, 40], [30, 160, 60], [40, 60, 210], [235, 235, 180]], np.uint8)
BT709, BT601, BT2020 = 1, 5, 9
LIMITED, FULL = 1, 2


def patches(width: int = 96, height: int = 64) -> np.ndarray:
    image = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    image[:top, :left], image[:top, left:] = PATCHES[0], PATCHES[1]
    image[top:, :left], image[top:, left:] = PATCHES[2], PATCHES[3]
    return image


def patch_colours(image: np.ndarray) -> np.ndarray:
    """Colours in the middle of the four patches, (4, 3)."""
    height, width = image.shape[:2]
    return np.array([image[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)])


def numbered(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Pictures that tell their number, for `number_of`: eight columns, one for each bit."""
    bits = (np.arange(count)[:, None] >> np.arange(8)) & 1
    columns = np.repeat(bits * 200 + 20, width // 8, axis=1).astype(np.uint8)
    return [np.broadcast_to(row[None, :, None], (height, width, 3)).copy() for row in columns]


def number_of(image: np.ndarray) -> int:
    width = image.shape[1]
    middle = image[image.shape[0] // 2, width // 16 :: width // 8, 1]
    return int(((middle > 120) << np.arange(8)).sum())


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    stamps: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 24),
    matrix: int | None = None,
    levels: int | None = None,
    transfer: int | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    options: dict[str, str] | None = None,
    sound: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=24, options=options or {"crf": "8"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = time_base
        if matrix is not None:
            context.colorspace = matrix
        if levels is not None:
            context.color_range = levels
        if transfer is not None:
            context.color_trc = transfer
        if rotation is not None:
            stream.set_display_rotation(*rotation)
        voice = container.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pixels, dst_colorspace=matrix, dst_color_range=levels, interpolation=0x2 | 0x40000
            )
            frame.pts, frame.time_base = (stamps[number] if stamps else number), time_base
            container.mux(stream.encode(frame))
        if voice is not None:
            write_tone(container, voice, seconds=len(images) / 24)
            container.mux(voice.encode(None))
        container.mux(stream.encode(None))
    return path


def write_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 44100), 1024):
        wave = 8000 * np.sin(2 * np.pi * 440 / 44100 * np.arange(start, start + 1024))
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
        container.mux(stream.encode(frame))


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        write_tone(container, stream, seconds=0.5)
        container.mux(stream.encode(None))
    return path


def noise(count: int, width: int = 160, height: int = 96) -> list[np.ndarray]:
    """Pictures that compress badly, so that each frame has many bytes to damage."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def hide(path: Path, *, left: int, right: int, top: int, bottom: int) -> Path:
    """Let the container of a video by `write_video` (H.264, levels and transfer given) ask players to cut its sides."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".mkv":  # PixelCrop in place of the colours
        sides = zip((0x54CC, 0x54DD, 0x54BB, 0x54AA), (left, right, top, bottom), strict=True)
        crop = b"".join(name.to_bytes(2, "big") + bytes([0x81, side]) for name, side in sides)
        at = data.index(b"\x54\xb2\x81\x04\x55\xb0\x8c")  # DisplayUnit, and Colour of 12 bytes
        data[at : at + 19] = crop + b"\xec\x81\0"  # Void
    else:  # a clean aperture at the end of the sample entry
        index = data.rindex(b"moov")  # the last box, so that no sample moves
        entry = data.index(b"avc1", index)
        width, height = (int.from_bytes(data[entry + at : entry + at + 2], "big") for at in (28, 30))
        numbers = (width - left - right, 1, height - top - bottom, 1, left - right, 2, top - bottom, 2)
        end = entry - 4 + int.from_bytes(data[entry - 4 : entry], "big")
        data[end:end] = b"\0\0\0\x28clap" + b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
        for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
            at = data.index(name, index) - 4
            data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 40).to_bytes(4, "big")
    path.write_bytes(data)
    return path
