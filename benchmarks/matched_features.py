"""How well features tell an object's cells from all others: average precision, from its first annotated frame alone.

    python benchmarks/matched_features.py DATA "fusion-fast" "fusion-fast keys=false" videomatch-lite pmvos-lite

Of each cell of a later frame, the best cosine with the object's cells of the annotated frame less that with its
background's is a score, without a threshold, a memory or a last mask: it is judged by how far up the object's cells
are in the order of it. Means over the pairs of a video, then over videos: `dev`, every 12th frame, and every second
video of `varied`, up to six annotated frames. Weights are those that ship; NAME=VALUE sets an option, and where these
weights do not fit it the method is built without any, on ImageNet's features, and a line says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import Tensor

import onemask
from onemask.errors import InputError
from onemask.methods import configuration
from onemask.methods.fusion.clues import cells_of_classes
from onemask.methods.method import Method

SHORT_SIDE = 480
STRIDE = 32  # that widths are rounded to
ANNOTATED = 6  # frames of a video of `varied`, at most
EVERY = 12  # frames of `dev`
SURELY = (0.05, 0.5)  # shares of a cell up to which it is background, and above which it is the object's

Pair = tuple[Path, Path]  # a frame and its annotation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with davis-2016/ and varied/")
    parser.add_argument("variants", nargs="+", metavar='"METHOD NAME=VALUE ..."')
    arguments = parser.parse_args()
    for variant in arguments.variants:
        method = built(variant)
        for kind, videos in (("dev", dev(arguments.data)), ("varied", varied(arguments.data))):
            found = [precision for precision in (of_video(method, pairs) for pairs in videos) if precision is not None]
            print(f"{variant}: {kind} {100 * np.mean(found):.1f} (of {len(found)} videos)", flush=True)


def built(variant: str) -> Method:
    """The method of a line like `fusion-fast keys=false`."""
    name, *settings = variant.split()
    options = {key: yaml.safe_load(value) for key, value in (setting.split("=", 1) for setting in settings)}
    try:
        return onemask.load(name, **options)
    except InputError as refused:
        print(f"{variant}: untrained, on ImageNet's features ({refused})", file=sys.stderr, flush=True)
        return configuration(name, options).build().eval()


def dev(data: Path) -> Iterator[list[Pair]]:
    root = data / "davis-2016"
    for name in (root / "ImageSets/2016/dev.txt").read_text().split():
        frames = sorted((root / "JPEGImages/480p" / name).glob("*.jpg"))[::EVERY]
        yield [(frame, root / "Annotations/480p" / name / f"{frame.stem}.png") for frame in frames]


def varied(data: Path) -> Iterator[list[Pair]]:
    for folder in sorted((data / "varied/Annotations").iterdir())[::2]:
        first, *later = sorted(folder.glob("*.png"))
        some = [first, *later[1 :: max(1, (len(later) + 1) // (ANNOTATED - 1))]]
        yield [(data / "varied/JPEGImages" / folder.name / f"{path.stem}.jpg", path) for path in some]


@torch.inference_mode()
def of_video(method: Method, pairs: list[Pair]) -> float | None:
    """Mean of all objects of the first frame in all others; None where none is seen again."""
    (features, masks), *others = ((features_of(method, frame), masks_of(truth)) for frame, truth in pairs)
    template, found = features.flatten(1), []
    for later, its_masks in others:
        cosines = later.flatten(1).T @ template
        for number, mask in masks.items():
            if number not in its_masks:
                continue
            grid = (features.shape[1], features.shape[2])
            background, own = cells_of_classes(resized(mask, grid), grid)[0].flatten(1) > 0
            scores = cosines[:, own].amax(1) - cosines[:, background].amax(1)
            share = F.interpolate(resized(its_masks[number], grid), grid, mode="area").flatten()
            on, off = share > SURELY[1], share < SURELY[0]
            if on.any():
                found.append(average_precision(scores[on | off].numpy(), on[on | off].numpy()))
    return float(np.mean(found)) if found else None


def features_of(method: Method, path: Path) -> Tensor:
    """What the method matches in a frame, of unit length: (C, h, w)."""
    frame = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    height, width = frame.shape[-2:]
    size = (SHORT_SIDE, round(width * SHORT_SIDE / height / STRIDE) * STRIDE)
    frame = F.interpolate(frame, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    features = method.encode(frame)
    matched = features.matched if hasattr(features, "matched") else features.matching
    if matched.ndim == 3:  # of PMVOS, whose cells are in a row
        matched = matched.unflatten(2, (size[0] // method.stride, size[1] // method.stride))
    return F.normalize(matched[0].float(), dim=0)


def masks_of(path: Path) -> dict[int, Tensor]:
    """Each object's mask (1, 1, H, W), by its number; of DAVIS 2016 the one object is white."""
    labels = np.array(Image.open(path))
    numbers = [int(number) for number in np.unique(labels) if number not in (0, 255)] or [255]
    return {number: torch.from_numpy(labels == number).float()[None, None] for number in numbers}


def resized(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask at eight pixels to a cell."""
    return F.interpolate(mask, (8 * grid[0], 8 * grid[1]), mode="nearest")


def average_precision(scores: np.ndarray, of_object: np.ndarray) -> float:
    """Mean precision over the ranks of the object's cells."""
    ranked = of_object[np.argsort(-scores, kind="stable")]
    return float((ranked.cumsum() / np.arange(1, len(ranked) + 1))[ranked].mean())


if __name__ == "__main__":
    main()
