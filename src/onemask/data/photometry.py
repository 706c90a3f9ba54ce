"""Photometric augmentation: light, lens, sensor and compression. Nothing moves, so labels stay valid.

`jitter_colours` changes the look of a clip as a whole, `degrade` its quality. Both treat the frames of a clip alike,
with a small drift from frame to frame, as one camera would. All frames are uint8 RGB, (T, H, W, 3); lengths in pixels
are meant for frames whose short side is `NOMINAL_SIDE`, and scaled for others.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

NOMINAL_SIDE = 240  # short side of a frame, pixels, for which lengths in this file are meant
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


# Colours --------------------------------------------------------------------------------------------------------------


def jitter_colours(frames: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Change brightness, contrast, saturation, hue, gamma and white balance, the same for the clip; rarely to grey.

    frames (T, H, W, 3) uint8 RGB -> a new array of the same shape. strength: 0 changes nothing, 1 is meant for
    training: brightness and contrast by up to about a quarter, hue by up to 18 degrees, saturation 0.5 to 1.35. In
    addition, brightness and white balance drift by about 2% per frame.
    """
    if strength == 0:
        return frames.copy()
    mixing = _colour_matrix(rng, strength)
    gamma = np.exp(strength * rng.uniform(-0.3, 0.3))
    contrast = np.exp(strength * rng.uniform(-0.25, 0.2))
    gain = np.exp(strength * rng.uniform(-0.3, 0.15))  # less upwards, since overexposed detail is lost
    middle = frames[:, ::8, ::8].mean() / 255
    balance = np.exp(strength * rng.normal(0.0, 0.03, (1, 3)))
    drift = np.exp(strength * (rng.normal(0.0, 0.02, (len(frames), 1)) + rng.normal(0.0, 0.007, (len(frames), 3))))

    levels = (np.linspace(0.0, 1.0, 256) ** gamma)[:, None]
    levels = (levels - middle**gamma) * contrast + middle**gamma
    changed = np.empty_like(frames)
    for t, frame in enumerate(frames):
        table = (255 * gain * balance * drift[t] * levels + 0.5).clip(0, 255).astype(np.uint8)
        cv2.LUT(cv2.transform(frame, mixing), table[None], dst=changed[t])
    return changed


def _colour_matrix(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Matrix (3, 3) that rotates hue and scales saturation in YIQ, where both are linear: one product per pixel."""
    angle = strength * np.deg2rad(rng.uniform(-18, 18))
    saturation = max(0.0, 1 + strength * rng.uniform(-0.5, 0.35))
    if rng.random() < 0.03 * strength:
        saturation = 0.0
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return (_FROM_YIQ @ chroma @ _TO_YIQ).astype(np.float32)


# Blur -----------------------------------------------------------------------------------------------------------------


def blur_along(image: np.ndarray, motion: tuple[float, float]) -> np.ndarray:
    """Blur an image evenly along a straight motion during the exposure, centred on the original position.

    image (H, W) or (H, W, C), any channels. motion: (x, y) in pixels from the opening to the closing of the shutter;
    below one pixel nothing is done. Border pixels are replicated.
    """
    length = float(np.hypot(*motion))
    if length < 1:
        return image.copy()
    steps = int(np.ceil(length))
    side = 2 * (steps // 2 + 1) + 1
    kernel = np.zeros((side, side), np.float32)
    along = np.linspace(-0.5, 0.5, 4 * steps + 1)
    for x, y in zip(side // 2 + along * motion[0], side // 2 + along * motion[1], strict=True):
        column, row = int(x), int(y)
        right, down = x - column, y - row
        kernel[row : row + 2, column : column + 2] += np.outer([1 - down, down], [1 - right, right])
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def motion_blur(image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Apply motion blur in a random direction: of the camera, or only of the object under `mask`.

    image (H, W, 3) uint8; mask (H, W) bool or None. With a mask, the object smears over its surroundings, and the rest
    stays sharp; the mask stays valid as the object's place in the middle of the exposure.
    """
    motion = _random_motion(image.shape[:2], rng)
    if mask is None:
        return blur_along(image, motion)
    cover = mask.astype(np.float32)
    smeared = blur_along(image * cover[..., None], motion)
    cover = blur_along(cover, motion)[..., None]
    object_colour = smeared / np.maximum(cover, 1e-3)
    return (object_colour * cover + image * (1 - cover) + 0.5).clip(0, 255).astype(np.uint8)


def defocus(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Defocus a clip by a Gaussian with a sigma of 0.5 to 2 pixels, which varies by a tenth from frame to frame.

    frames (T, H, W, 3) uint8 -> the same shape.
    """
    sigma = rng.uniform(0.5, 2.0) * _size_factor(frames.shape[1:3])
    sigmas = sigma * np.exp(rng.normal(0.0, 0.1, len(frames)))
    return np.stack([cv2.GaussianBlur(frame, (0, 0), max(s, 0.2)) for frame, s in zip(frames, sigmas, strict=True)])


def lose_resolution(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reduce the resolution of a clip: shrink it 1.2 to 2.5 times, and scale it up again.

    frames (T, H, W, 3) uint8 -> the same shape.
    """
    height, width = frames.shape[1:3]
    factor = rng.uniform(1.2, 2.5)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    enlarging = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack([cv2.resize(frame, (width, height), interpolation=enlarging) for frame in small])


def shake(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur as a shaken camera does: about half of a clip's frames, each in a direction of its own.

    frames (T, H, W, 3) uint8 -> the same shape.
    """
    hit = rng.random(len(frames)) < 0.5
    return np.stack([motion_blur(frame, None, rng) if hit[t] else frame for t, frame in enumerate(frames)])


# Noise ----------------------------------------------------------------------------------------------------------------


def sensor_noise(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add sensor noise, different in every frame: grain in brightness and, weaker, in colour; stronger in bright areas.

    frames (T, H, W, 3) uint8 -> the same shape. The standard deviation is 1 to 8 grey levels in middle grey.
    """
    level = np.exp(rng.uniform(np.log(1.0), np.log(8.0)))
    amplitude = (level * np.sqrt((np.arange(256) + 32) / 160)).astype(np.float32)  # photons arrive as a Poisson process
    gaussian = _gaussian_table()
    noisy = np.empty_like(frames)
    for t, frame in enumerate(frames):
        height, width = frame.shape[:2]
        draws = np.frombuffer(rng.bytes(height * width * 4), np.uint8).reshape(height, width, 4)
        grain = cv2.LUT(draws, gaussian)
        grain = cv2.transform(grain, _GRAIN_MIXING)
        np.rint(frame + cv2.LUT(frame, amplitude) * grain, out=grain)
        noisy[t] = grain.clip(0, 255)
    return noisy


_GRAIN_MIXING = np.array(
    [[0.5, 0, 0, 0.866], [0, 0.5, 0, 0.866], [0, 0, 0.5, 0.866]], np.float32
)  # colours, brightness


def _gaussian_table() -> np.ndarray:
    """Table (1, 256) float32 that turns uniform bytes into normal values, ten times faster than drawing these."""
    places = (np.arange(256) + 0.5) / 256
    grid = np.linspace(-4, 4, 8001)
    density = np.exp(-(grid**2) / 2)
    cumulative = np.cumsum(density) / density.sum()
    values = np.interp(places, cumulative, grid)
    return (values / values.std())[None].astype(np.float32)


def jpeg_noise(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress a clip as JPEG at one quality between 20 and 80.

    frames (T, H, W, 3) uint8 RGB -> the same shape.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 81))]
    compressed = np.empty_like(frames)
    for t, frame in enumerate(frames):
        _, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
        compressed[t] = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    return compressed


# Everything together --------------------------------------------------------------------------------------------------

# In the order of a camera (light, sensor, file), each with its probability; usually one or two apply.
_DEGRADATIONS: tuple[tuple[float, Any], ...] = (
    (0.15, shake),
    (0.15, defocus),
    (0.15, lose_resolution),
    (0.25, sensor_noise),
    (0.30, jpeg_noise),
)


def degrade(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lower the quality of a clip by a random choice of shake, defocus, lost resolution, sensor noise and JPEG.

    frames (T, H, W, 3) uint8 RGB -> a new array of the same shape. About a third of all clips stay as they are.
    """
    chosen = [change for probability, change in _DEGRADATIONS if rng.random() < probability]
    if not chosen:
        return frames.copy()
    for change in chosen:
        frames = change(frames, rng)
    return frames


def _random_motion(size: tuple[int, int], rng: np.random.Generator) -> tuple[float, float]:
    length = rng.uniform(2.0, 10.0) * _size_factor(size)
    angle = rng.uniform(0, np.pi)
    return length * np.cos(angle), length * np.sin(angle)


def _size_factor(size: tuple[int, ...]) -> float:
    return min(size) / NOMINAL_SIDE
