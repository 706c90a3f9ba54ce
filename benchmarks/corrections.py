"""What corrections are worth: J&F after 1, 3 and 5 frames are corrected, and which frames to correct.

A video is segmented from its first mask. Then frames are corrected, by their annotation, that are chosen in one of
three ways: by `onemask review`, evenly spaced, or as the worst of all (which nobody knows who has no annotation), and
it is segmented again. J&F is the mean over all frames but the first, corrected ones among them as they come out.

    python benchmarks/corrections.py --data DATA --sequences dog-agility,flamingo,scooter-gray --out FOLDER [--size 240]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from onemask import keep_freed_memory
from onemask.data.davis import DavisDataset
from onemask.evaluation.measures import region_and_contour
from onemask.exports.result import Result
from onemask.reviewing import review
from onemask.running import run
from onemask.settings import Settings
from onemask.video.images import ImageSequence
from onemask.video.masks import read_label_map

COUNTS = (1, 3, 5)
APART = 5  # frames between two that are corrected, at least


def scores(folder: Path, truth: dict[int, np.ndarray]) -> dict[int, float]:
    """J&F of each annotated frame but the first."""
    paths = sorted((folder / "masks").glob("*.png"))
    return {
        index: float(np.mean(region_and_contour(read_label_map(paths[index]) > 0, mask)))
        for index, mask in truth.items()
        if index
    }


def worst(by_frame: dict[int, float], count: int) -> list[int]:
    """The frames with the lowest scores, apart."""
    chosen: list[int] = []
    for index in sorted(by_frame, key=lambda index: by_frame[index]):
        if len(chosen) < count and all(abs(index - other) >= APART for other in chosen):
            chosen.append(index)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sequences", required=True, help="of dev, A,B")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--size", type=int, default=240)
    options = parser.parse_args()
    keep_freed_memory()
    settings = Settings(method=options.method, short_side=options.size, device="cpu")
    for name in options.sequences.split(","):
        (sequence,) = DavisDataset(options.data / "davis-2016", 2016, "dev").select([name])
        video = ImageSequence(list(sequence.frames), name)
        truth = {index: np.asarray(sequence.annotation(index)) > 0 for index in range(len(sequence.frames))}

        def segmented(corrected: list[int], name=name, video=video, truth=truth) -> Path:
            where = options.out / name / ("-".join(map(str, sorted(corrected))) or "none")
            given = {index: truth[index].astype(np.uint8) for index in (0, *corrected)}
            run(video, given, where, settings, save=["masks"], resume=True)
            return where

        first = segmented([])
        by_frame = scores(first, truth)
        before = float(np.mean(list(by_frame.values())))
        print(json.dumps({"sequence": name, "chosen": "none", "frames": [], "JF": round(100 * before, 1)}), flush=True)
        doubtful = [entry.frame for entry in review(Result.open(first), limit=max(COUNTS), apart=APART) if entry.frame]
        last = len(truth) - 1
        for count in COUNTS:
            evenly = [round((part + 1) * last / (count + 1)) for part in range(count)]
            for how, frames in (
                ("review", doubtful[:count]),
                ("evenly", evenly),
                ("worst", worst(by_frame, count)),
            ):
                if len(frames) < count:
                    continue  # fewer frames are in doubt
                mean = float(np.mean(list(scores(segmented(frames), truth).values())))
                line = {"sequence": name, "chosen": how, "frames": frames, "JF": round(100 * mean, 1)}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
