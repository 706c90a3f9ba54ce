"""How good the first mask is after a box, and after 1, 3 and 5 clicks that are simulated from the annotation.

    python benchmarks/first_mask.py --data DATA --on dev
    python benchmarks/first_mask.py --data DATA --on varied --every 3

A click is put where it helps most: into the middle of the largest part that is missing, or that is too much (the pixel
that is farthest from what is right). The box is the annotation's own. Prints J in percent, object by object, and the
mean of each variant.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from onemask.data.davis import DavisDataset
from onemask.data.youtube_vos import YouTubeVosDataset
from onemask.evaluation.measures import region_similarity
from onemask.first_mask import Selection
from onemask.video.images import read_image

VARIANTS = {
    "GrabCut": {"proposals": False, "refine": False},
    "GrabCut, method": {"proposals": False, "refine": True},
    "proposal, GrabCut": {"proposals": True, "refine": False},
    "proposal, GrabCut, method": {"proposals": True, "refine": True},
}
CLICKS = (1, 3, 5)
COLUMNS = ["box", *(f"{count} click{'s' if count > 1 else ''}" for count in CLICKS), "box and a click"]
LEAST_AREA = 200  # pixels; smaller objects are left out


def cases(data: Path, dataset: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, first annotated frame (H, W, 3) and mask (H, W) of every object."""
    if dataset == "dev":
        for sequence in DavisDataset(data / "davis-2016", 2016, "dev"):
            annotation = sequence.annotation(0)
            assert annotation is not None
            yield sequence.name, read_image(sequence.frames[0]), annotation > 0
        return
    for sequence in YouTubeVosDataset(data / dataset):
        index = sequence.annotated[0]
        annotation = sequence.annotation(index)
        assert annotation is not None
        for object_id in np.unique(annotation[annotation > 0]):
            if (annotation == object_id).sum() >= LEAST_AREA:
                yield f"{sequence.name} {object_id}", read_image(sequence.frames[index]), annotation == object_id


def next_click(mask: np.ndarray, truth: np.ndarray) -> tuple[int, int, bool]:
    """The middle of the largest error."""
    best, click = -1.0, (0, 0, True)
    for positive, error in ((True, truth & ~mask), (False, mask & ~truth)):
        depth = cv2.distanceTransform(np.pad(error.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if depth[y, x] > best:
            best, click = float(depth[y, x]), (int(x), int(y), positive)
    return click


def scores(selection: Selection, truth: np.ndarray) -> list[float]:
    """J for each of `COLUMNS`."""
    ys, xs = np.nonzero(truth)
    box = int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1
    boxed = selection.mask(box=box)
    found = [region_similarity(boxed, truth)]
    clicks: list[tuple[int, int, bool]] = []
    mask = np.zeros_like(truth)
    for count in range(1, max(CLICKS) + 1):
        clicks.append(next_click(mask, truth))
        mask = selection.mask(clicks=clicks)
        if count in CLICKS:
            found.append(region_similarity(mask, truth))
    corrected = selection.mask(box=box, clicks=[next_click(boxed, truth)])
    return [*found, region_similarity(corrected, truth)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--on", choices=["dev", "varied"], default="dev")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th object")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, list[list[float]]] = {name: [] for name in options.variants}
    seconds = dict.fromkeys(options.variants, 0.0)
    print("; ".join(["object", "variant", *COLUMNS]))
    for name, frame, truth in list(cases(options.data, options.on))[:: options.every]:
        for variant in options.variants:
            began = time.process_time()
            row = scores(Selection(frame, **VARIANTS[variant]), truth)
            seconds[variant] += time.process_time() - began
            table[variant].append(row)
            print("; ".join([name, variant, *(f"{100 * j:.1f}" for j in row)]), flush=True)
    for variant, rows in table.items():
        means = "; ".join(f"{100 * j:.1f}" for j in np.mean(rows, 0))
        print(f"mean of {len(rows)}; {variant}; {means}; {seconds[variant] / len(rows) / 7:.2f} s of CPU a mask")


if __name__ == "__main__":
    main()
