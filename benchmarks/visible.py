"""How often `Session.visible` is right: every frame of the occlusions that `onemask perturb` stages.

    python benchmarks/visible.py DAVIS --split dev --out visible.jsonl --method ttvos-lite --size 240

Writes a line a frame, and prints a table as Markdown: of the frames with the object in sight, and of those without, in
how many `visible` says so, at several thresholds of confidence. Videos that --out has already are not run again.
Results: benchmarks/perturbed.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onemask
from onemask.data.davis import DavisDataset
from onemask.data.perturbed import LEAST_FRAMES, occluded

THRESHOLDS = (0.5, 0.7, 0.8, 0.9)


def main() -> None:
    """Run what is left, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DAVIS")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", action="append", required=True)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    videos = [video for video in DavisDataset(options.root, 2016, options.split) if len(video) >= LEAST_FRAMES]
    for name in options.method:
        method = onemask.load(name)
        for video in videos:
            if any((line["method"], line["video"]) == (name, video.name) for line in lines):
                continue
            session = onemask.Session(method, short_side=options.size, device=options.device, runtime="torch")
            made = [{"method": name, "video": video.name, **line} for line in followed(session, occluded(video))]
            lines += made
            with options.out.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in made)
    print_table(lines)


def followed(session: onemask.Session, frames: Any) -> list[dict[str, Any]]:
    """What a session says of the object in each frame after the first, beside the truth."""
    said = []
    for index, (picture, label_map) in enumerate(frames):
        if index == 0:
            session.annotate(picture, label_map)
            continue
        session.step(picture)
        truth = int(label_map.sum())
        said.append({"truth": truth, "area": session.area(1), "confidence": session.confidence(1)})
    return said


def is_visible(line: dict[str, Any], threshold: float) -> bool:
    """As `Session.visible` has it at 0.5."""
    return bool(line["area"] > 0 and line["confidence"] >= threshold)


def print_table(lines: list[dict[str, Any]]) -> None:
    """A row a method and threshold."""
    print("| method | confidence from | in sight: visible | out of sight: not visible |\n|---|---:|---:|---:|")
    for method in dict.fromkeys(line["method"] for line in lines):
        own = [line for line in lines if line["method"] == method]
        seen, gone = ([line for line in own if (line["truth"] > 0) == there] for there in (True, False))
        for threshold in THRESHOLDS:
            found = [
                sum(line["area"] > 0 and line["confidence"] >= threshold for line in part) for part in (seen, gone)
            ]
            right = f"{found[0]} of {len(seen)} | {len(gone) - found[1]} of {len(gone)}"
            print(f"| `{method}` | {threshold} | {right} |")


if __name__ == "__main__":
    main()
