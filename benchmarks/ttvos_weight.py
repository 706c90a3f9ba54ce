"""How much of each frame TTVOS takes into its template, against the object's share of the frame (the paper's figure 9).

    python benchmarks/ttvos_weight.py DATA --out out/ttvos-weight.png [--method ttvos-lite] [--weights FILE]

DATA holds davis-2016/, whose split dev is segmented from each first mask. A point is a frame: x, the object's share of
the frame's area; y, the weight w_t of equation 4. Below stand both, frame by frame, of the video whose object shrinks
the most, and of the one whose object grows the most. Printed are the mean weight by fifths of the points, and the rank
correlation. Needs the extra `plot`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

import onemask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=480, help="short side to work at in pixels; 0: the frames' own")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    method = onemask.load(options.method, weights=options.weights)
    root = options.data / "davis-2016"
    short_side = options.size or None
    by_video = {
        name: weights_in(
            onemask.Session(method, short_side=short_side),
            root / "JPEGImages/480p" / name,
            root / "Annotations/480p" / name,
        )
        for name in tqdm((root / "ImageSets/2016/dev.txt").read_text().split())
    }
    share, weight = np.concatenate(list(by_video.values())).T
    for part in np.array_split(np.argsort(share), 5):
        print(f"share {100 * share[part].min():5.2f} to {100 * share[part].max():5.2f} %: w {weight[part].mean():.2g}")
    ranks = [values.argsort().argsort() for values in (share, weight)]
    print(f"rank correlation {np.corrcoef(*ranks)[0, 1]:.2f}, of {len(share)} frames")
    draw(by_video, options.out)


def weights_in(session: onemask.Session, frames: Path, annotations: Path) -> np.ndarray:
    """The object's share of the frame and w_t, of every frame behind the first: (n, 2)."""
    first, *later = sorted(frames.glob("*.jpg"))
    session.annotate(picture(first), np.array(Image.open(annotations / f"{first.stem}.png")) > 0)
    points = []
    for path in later:
        labels = session.step(picture(path), explain=True)
        points.append(((labels == 1).mean(), session.diagnostics[1]["update weight"]))
    return np.array(points)


def picture(path: Path) -> np.ndarray:
    """RGB pixels."""
    return np.array(Image.open(path).convert("RGB"))


def draw(by_video: dict[str, np.ndarray], out: Path) -> None:
    """Write the chart: (a) all frames; (b) and (c) those of the videos whose object shrinks, and grows, the most."""
    figure = Figure(figsize=(7, 8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2)
    axes = figure.add_subplot(grid[0, :])
    for name, points in by_video.items():
        axes.plot(100 * points[:, 0], points[:, 1], ".", markersize=4, label=name)
    axes.set(xlabel="object, percent of the frame", ylabel="weight of the frame in the template, $w_t$", title="(a)")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    growth = {name: np.polyfit(np.arange(len(points)), points[:, 0], 1)[0] for name, points in by_video.items()}
    for place, (letter, name) in enumerate(
        zip("bc", sorted(growth, key=lambda n: growth[n])[:: len(growth) - 1], strict=True)
    ):
        left = figure.add_subplot(grid[1, place])
        right = left.twinx()
        left.plot(100 * by_video[name][:, 0], color="C0", label="object, percent of the frame")
        right.plot(by_video[name][:, 1], color="C1", label="$w_t$")
        left.set_xlabel("frame")
        left.set_title(f"({letter}) {name}", loc="left")  # on the right stands the power of ten
        left.tick_params(axis="y", colors="C0")
        right.tick_params(axis="y", colors="C1")
        left.legend(handles=[*left.lines, *right.lines], fontsize=8)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
