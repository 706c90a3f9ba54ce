"""Speed and exactness of the measures J and F, against their definition on whole frames.

The whole-frame version does what the official DAVIS code does, step by step: the boundary of each mask from
its shifted copies, `cv2.dilate` of the whole frame with a disk, sums of the products. Predictions are made
from the annotations of other frames, moved and eroded, so that they are as wrong as those of a mediocre
method.

    python benchmarks/measures.py DAVIS [--split dev] [--repeats 3]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onemask.evaluation.measures import region_and_contour

Mask = NDArray[np.bool_]
Measure = Callable[[Mask, Mask], tuple[float, float]]

FRAMES_APART = 5


def whole_frame(prediction: Mask, annotation: Mask) -> tuple[float, float]:
    """J and F by their definition, on whole frames."""
    union = np.sum(prediction | annotation)
    region = 1.0 if union == 0 else float(np.sum(prediction & annotation) / union)

    radius = math.ceil(0.008 * np.linalg.norm(annotation.shape))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (y**2 + x**2 <= radius**2).astype(np.uint8)
    found, sought = boundary(prediction), boundary(annotation)
    near_found = cv2.dilate(found.astype(np.uint8), disk)
    near_sought = cv2.dilate(sought.astype(np.uint8), disk)
    all_found, all_sought = np.sum(found), np.sum(sought)
    if all_found == 0 or all_sought == 0:
        return region, float(all_found == all_sought)
    precision = float(np.sum(found * near_sought) / all_found)
    recall = float(np.sum(sought * near_found) / all_sought)
    return region, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> Mask:
    """Pixels that differ from their east, south or south-east neighbour; beyond the frame nothing differs."""
    east, south, south_east = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    east[:, :-1] = mask[:, 1:]
    south[:-1, :] = mask[1:, :]
    south_east[:-1, :-1] = mask[1:, 1:]
    edges = mask ^ east | mask ^ south | mask ^ south_east
    edges[-1, :] = mask[-1, :] ^ east[-1, :]
    edges[:, -1] = mask[:, -1] ^ south[:, -1]
    edges[-1, -1] = False
    return edges


def pairs(davis: Path, sequence: str) -> Iterator[tuple[Mask, Mask]]:
    """Prediction and annotation of every frame of a sequence."""
    paths = sorted((davis / "Annotations" / "480p" / sequence).glob("*.png"))
    annotations = [np.asarray(Image.open(path)) > 0 for path in paths]
    for index, annotation in enumerate(annotations):
        other = annotations[(index + FRAMES_APART) % len(annotations)]
        moved = np.roll(other, (index % 7 - 3, index % 5 - 2), axis=(0, 1))
        yield cv2.erode(moved.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, annotation


def run(measure: Measure, masks: list[tuple[Mask, Mask]]) -> tuple[float, NDArray[np.float64]]:
    """Seconds that a measure takes for all masks, and its values (frames, 2)."""
    start = time.perf_counter()
    values = [measure(prediction, annotation) for prediction, annotation in masks]
    return time.perf_counter() - start, np.array(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("davis", type=Path, help="root of DAVIS: the folder of ImageSets and Annotations")
    parser.add_argument("--split", default="dev", help="list of sequences in ImageSets/2016 (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the fastest counts (%(default)s)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)

    print("| sequence | frames | whole frame, ms | onemask, ms | ratio | J | F | largest difference |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    totals: list[tuple[int, float, float, NDArray[np.float64], float]] = []
    for sequence in (arguments.davis / "ImageSets" / "2016" / f"{arguments.split}.txt").read_text().split():
        masks = list(pairs(arguments.davis, sequence))
        plain = [run(whole_frame, masks) for _ in range(arguments.repeats)]
        ours = [run(region_and_contour, masks) for _ in range(arguments.repeats)]
        difference = float(np.abs(plain[0][1] - ours[0][1]).max())
        total = (
            len(masks),
            min(plain, key=lambda r: r[0])[0],
            min(ours, key=lambda r: r[0])[0],
            ours[0][1].sum(0),
        )
        totals.append((*total, difference))
        print(row(sequence, *totals[-1]))
    frames, plain_seconds, our_seconds, sums, differences = zip(*totals, strict=True)
    print(row("all", sum(frames), sum(plain_seconds), sum(our_seconds), np.sum(sums, 0), max(differences)))


def row(name: str, frames: int, plain: float, ours: float, sums: NDArray[np.float64], difference: float) -> str:
    """A line of the table."""
    region, contour = sums / frames
    return (
        f"| {name} | {frames} | {1000 * plain / frames:.3f} | {1000 * ours / frames:.3f} "
        f"| {plain / ours:.1f} | {region:.3f} | {contour:.3f} | {difference:.0e} |"
    )


if __name__ == "__main__":
    main()
