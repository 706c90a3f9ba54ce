"""A quick look at methods: J on every third frame of `dev` and on every third video of `varied`.

    python benchmarks/quick_look.py DATA frtm-lite fusion fusion-fast

It takes a few minutes a method where whole evaluations take half an hour, and tells large differences from none. Frames
are three times as far apart as they were recorded, so `dev` is harder here than in the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import onemask

EVERY = 3
SHORT_SIDES = {"dev": 480, "varied": 360}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with davis-2016/ and varied/")
    parser.add_argument("methods", nargs="+")
    arguments = parser.parse_args()
    for name in arguments.methods:
        method = onemask.load(name)
        for kind, videos in (("dev", dev(arguments.data)), ("varied", varied(arguments.data))):
            scores = {}
            for frames, folder in videos:
                session = onemask.Session(method, short_side=SHORT_SIDES[kind])
                scores[frames[0].parent.name] = judged(session, frames, folder)
                print(f"{name} {kind} {frames[0].parent.name} {100 * scores[frames[0].parent.name]:.1f}", flush=True)
            print(f"{name} {kind} {100 * np.mean(list(scores.values())):.1f}", flush=True)


def dev(data: Path) -> Iterator[tuple[list[Path], Path]]:
    """Every third frame of each video, and the folder of its annotations."""
    root = data / "davis-2016"
    for name in (root / "ImageSets/2016/dev.txt").read_text().split():
        yield sorted((root / "JPEGImages/480p" / name).glob("*.jpg"))[::EVERY], root / "Annotations/480p" / name


def varied(data: Path) -> Iterator[tuple[list[Path], Path]]:
    """All frames of every third video, and the folder of its annotations."""
    for folder in sorted((data / "varied/JPEGImages").iterdir())[::EVERY]:
        yield sorted(folder.glob("*.jpg")), data / "varied/Annotations" / folder.name


def labels_in(annotation: Path) -> np.ndarray:
    """A label map; in DAVIS 2016's, the one object is white."""
    labels = np.array(Image.open(annotation))
    return labels // 255 if set(np.unique(labels)) <= {0, 255} else labels


def judged(session: onemask.Session, frames: list[Path], annotations: Path) -> float:
    """Mean J over objects, each over the annotated frames behind the one in which it first appears."""
    found: dict[int, list[float]] = {}
    for path in frames:
        frame, annotation = np.array(Image.open(path).convert("RGB")), annotations / f"{path.stem}.png"
        truth = labels_in(annotation) if annotation.exists() else None
        new = [] if truth is None else [int(i) for i in np.unique(truth) if i not in (0, 255, *found)]
        if truth is not None and new:
            labels = session.annotate(frame, np.where(np.isin(truth, new), truth, 0).astype(np.uint8))
        else:
            labels = session.step(frame)
        if truth is not None:
            for object_id, scores in found.items():
                one, other = labels == object_id, truth == object_id
                union = np.count_nonzero(one | other)
                scores.append(np.count_nonzero(one & other) / union if union else 1.0)
        found.update((object_id, []) for object_id in new)
    return float(np.mean([np.mean(scores) for scores in found.values() if scores]))


if __name__ == "__main__":
    main()
