"""VideoMatch's table 5 and figure 5, on DAVIS 2016's sequences of `dev`: J and the time of a frame, row by row.

    python benchmarks/videomatch_parts.py DATA table5
    python benchmarks/videomatch_parts.py DATA k --out out/figure-5a.png
    python benchmarks/videomatch_parts.py DATA finetune --method videomatch --weights FILE --out out/figure-5b.png

DATA holds davis-2016/. Rows of table 5 stand one on top of the other; `k` is from 1 to 100, `finetune` from 0 to 200
steps, whose time counts among that of the frames, as in the paper. Both are drawn with --out, which needs the extra
`plot`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import onemask
from onemask.evaluation.measures import region_similarity

NONE = {"outlier_removal": False, "background_update": False, "foreground_update": False}
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "table5": {
        "none": NONE,
        "outlier removal": NONE | {"outlier_removal": True},
        "and background update": NONE | {"outlier_removal": True, "background_update": True},
        "and foreground update": dict.fromkeys(NONE, True),
    },
    "k": {str(k): {"k": k} for k in (1, 2, 5, 10, 20, 35, 50, 75, 100)},
    "finetune": {str(steps): {"finetune": steps} for steps in (0, 10, 25, 50, 100, 200)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("part", choices=ROWS)
    parser.add_argument("--method", default="videomatch-lite")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=480, help="short side to work at in pixels; 0: the frames' own")
    parser.add_argument("--videos", help="of dev, separated by commas; all, if not given")
    parser.add_argument("--out", type=Path, help="chart of k or finetune")
    options = parser.parse_args()
    if options.out and options.part == "table5":
        parser.error("table5 is no chart; leave --out out")
    root, points = options.data / "davis-2016", []
    videos = options.videos.split(",") if options.videos else (root / "ImageSets/2016/dev.txt").read_text().split()
    print(f"| {options.part} | {' | '.join(videos)} | J | seconds a frame |")
    print("|---|" + "---:|" * (len(videos) + 2))
    for name, changed in ROWS[options.part].items():
        method = onemask.load(options.method, weights=options.weights, reach=0.0, **changed)
        found = [followed(onemask.Session(method, short_side=options.size or None), root, video) for video in videos]
        scores, seconds, frames = zip(*found, strict=True)
        points.append((float(name) if options.part == "k" else sum(seconds) / sum(frames), 100 * np.mean(scores)))
        each = " | ".join(f"{100 * score:.1f}" for score in scores)
        print(f"| {name} | {each} | {points[-1][1]:.1f} | {sum(seconds) / sum(frames):.2f} |", flush=True)
    if options.out:
        draw(points, {"k": "K", "finetune": "seconds a frame"}[options.part], options.out)


def followed(session: onemask.Session, root: Path, video: str) -> tuple[float, float, int]:
    """A video segmented from its first mask: mean J but of the first and last frame, seconds, frames."""
    frames = sorted((root / "JPEGImages/480p" / video).glob("*.jpg"))
    spent, scores = 0.0, []
    for number, path in enumerate(frames):
        frame = np.array(Image.open(path).convert("RGB"))
        truth = np.array(Image.open(root / "Annotations/480p" / video / f"{path.stem}.png")) > 0
        began = time.perf_counter()
        labels = session.step(frame) if number else session.annotate(frame, truth)
        spent += time.perf_counter() - began
        if 0 < number < len(frames) - 1:
            scores.append(region_similarity(labels > 0, truth))
    return float(np.mean(scores)), spent, len(frames)


def draw(points: list[tuple[float, float]], along: str, out: Path) -> None:
    """Write the chart of J over K, or over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.set(xlabel=along, ylabel="J", xscale="log")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
