"""What one correction is worth: J&F after the worst frame is corrected, chosen by `onemask review` or by annotation.

A video is segmented from its first mask. Then one frame gets its annotation, and it is segmented again. The frame
is what `onemask review` doubts most, or the worst of all, which nobody knows who has no annotation. Each line has J&F
in percent, the mean over objects of the mean over their annotated frames after the first: of all these frames, and
of those that neither choice corrects (`others`), so that a corrected frame's own gain is left out.

    python benchmarks/corrections.py --data DATA --on dev --out FOLDER [--short-side 240] [--method ttvos-lite]
    python benchmarks/corrections.py --on dev --out FOLDER --table
    python benchmarks/corrections.py --data DATA --on dev --out FOLDER --behind [--before FOLDER]

The same command goes on where it was stopped. `--behind` measures what was segmented once more, in the frames behind
each corrected one alone: J&F of all objects; J&F of those that were corrected, where they are in sight; and the share
of pixels with a wrong label. A label of one stray pixel takes J&F from 100 to 0 where its object is out of sight; the
other two do not. `--before`: the same of another FOLDER, made by other code, beside it, and the differences.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from onemask import keep_freed_memory
from onemask.data.sequence import VideoSequence
from onemask.evaluation.measures import region_and_contour
from onemask.evaluation.protocols import first_annotations, protocol
from onemask.evaluation.summary import estimate
from onemask.exports.result import Result
from onemask.jobs.reviewing import review
from onemask.jobs.running import run
from onemask.settings import Settings
from onemask.video.images import ImageSequence
from onemask.video.masks import read_label_map

SETS = {"dev": ("davis-2016", "davis2016", "dev"), "varied": ("varied", "youtube-vos", "val")}
CHOICES = ("none", "review", "worst")


def annotation(sequence: VideoSequence, index: int) -> np.ndarray:
    """The label map of an annotated frame, with the objects that the dataset lists."""
    labels = sequence.annotation(index)
    assert labels is not None
    return labels if sequence.objects is None else np.where(np.isin(labels, sequence.objects), labels, 0)


def scores(folder: Path, sequence: VideoSequence) -> dict[int, dict[int, float]]:
    """Object -> frame -> J&F, of all annotated frames after the object's first."""
    paths = sorted((folder / "masks").glob("*.png"))
    found: dict[int, dict[int, float]] = {}
    for index in sequence.annotated:
        truth, predicted = annotation(sequence, index), read_label_map(paths[index])
        for object_id in found:
            measures = region_and_contour(predicted == object_id, truth == object_id)
            found[object_id][index] = 100 * float(np.mean(measures))
        for object_id in np.unique(truth[truth > 0]).tolist():
            found.setdefault(object_id, {})
    return found


def mean(by_object: dict[int, dict[int, float]], without: tuple[int, ...] = ()) -> float:
    """The mean over objects of the mean over frames."""
    each = [[score for index, score in frames.items() if index not in without] for frames in by_object.values()]
    return float(np.mean([np.mean(frames) for frames in each if frames]))


def worst(by_object: dict[int, dict[int, float]]) -> int:
    """The frame with the lowest mean over its objects."""
    frames = sorted({index for frames in by_object.values() for index in frames})
    return min(frames, key=lambda i: np.mean([frames[i] for frames in by_object.values() if i in frames]))


def most_doubted(folder: Path, frames: list[int]) -> int | None:
    """Of `frames` the one nearest to what review doubts most; None where it doubts nothing."""
    doubted = [entry.frame for entry in review(Result.open(folder), limit=3) if entry.frame >= frames[0]]
    return min(frames, key=lambda index: abs(index - doubted[0])) if doubted else None


def measured(sequence: VideoSequence, out: Path, settings: Settings) -> dict[str, dict]:
    """What comes of each choice in a video."""
    video = ImageSequence(list(sequence.frames), sequence.name)

    def segmented(corrected: int | None) -> Path:
        where = out / sequence.name / ("none" if corrected is None else str(corrected))
        given = first_annotations(sequence)
        if corrected is not None:
            given = {**given, corrected: annotation(sequence, corrected)}
        run(video, given, where, settings, save=["masks"], direction="forward", resume=True)
        return where

    before = scores(segmented(None), sequence)
    frames = sorted({index for frames in before.values() for index in frames})
    chosen = {"none": None, "review": most_doubted(segmented(None), frames), "worst": worst(before)}
    corrected = tuple(index for index in chosen.values() if index is not None)
    after = {how: before if index is None else scores(segmented(index), sequence) for how, index in chosen.items()}
    return {
        how: {"frame": chosen[how], "JF": round(mean(by_object), 2), "others": round(mean(by_object, corrected), 2)}
        for how, by_object in after.items()
    }


def behind(folder: Path, sequence: VideoSequence, corrected: int) -> tuple[float, float | None, float]:
    """Behind the corrected frame: J&F of all objects, and of corrected ones in sight, and percent of wrong pixels."""
    by_object = scores(folder, sequence)
    truths = {index: annotation(sequence, index) for index in sequence.annotated if index > corrected}
    known = {i for index, given in first_annotations(sequence).items() if index < corrected for i in np.unique(given)}
    again = known & set(np.unique(annotation(sequence, corrected)))
    frames_before = tuple(index for index in sequence.annotated if index <= corrected)
    in_sight = {
        i: {index: score for index, score in frames.items() if index in truths and (truths[index] == i).any()}
        for i, frames in by_object.items()
        if i in again
    }
    paths = sorted((folder / "masks").glob("*.png"))
    wrong = [100 * float(np.mean(read_label_map(paths[index]) != truth)) for index, truth in truths.items()]
    seen = mean(in_sight) if any(in_sight.values()) else None
    return mean(by_object, frames_before), seen, float(np.mean(wrong))


def table_behind(sequences: list[VideoSequence], folders: dict[str, Path]) -> str:
    """What `behind` measures, of each corrected frame, and the differences with intervals over videos."""
    rows: list[str] = []
    by_video: dict[str, list[dict[str, tuple[float, float | None, float]]]] = {}
    for sequence in sequences:
        made = [{path.name for path in (folder / sequence.name).glob("*")} for folder in folders.values()]
        for corrected in sorted(int(name) for name in set.intersection(*made) if name.isdigit()):
            if corrected == max(sequence.annotated):
                continue
            places = {"none": next(iter(folders.values())) / sequence.name / "none"}
            places |= {how: folder / sequence.name / str(corrected) for how, folder in folders.items()}
            found = {how: behind(place, sequence, corrected) for how, place in places.items()}
            by_video.setdefault(sequence.name, []).append(found)
            cells = [" / ".join("-" if v is None else f"{v:.1f}" for v in values) for values in found.values()]
            rows.append(f"| {sequence.name} | {corrected} | {' | '.join(cells)} |")
    names = ["none", *folders]
    head = [f"| sequence | corrected | {' | '.join(names)} |", f"|---|---:|{'---:|' * len(names)}"]
    for place, what in enumerate(("J&F", "J&F of corrected objects in sight", "wrong pixels")):
        videos = {
            name: {how: float(np.mean([found[how][place] or 0.0 for found in every])) for how in names}
            for name, every in by_video.items()
            if all(found[how][place] is not None for found in every for how in names)
        }
        means = ", ".join(f"{how} {np.mean([v[how] for v in videos.values()]):.2f}" for how in names)
        rows.append(f"{what}, mean of {len(videos)} videos: {means}")
        for late, how in enumerate(names[1:], 1):
            for before in names[:late]:
                gain = estimate([v[how] - v[before] for v in videos.values()])
                rows.append(f"  {how} - {before}: {gain.mean:+.2f} (95 %: {gain.low:+.2f} to {gain.high:+.2f})")
    return "\n".join(head + rows)


def table(lines: list[dict]) -> str:
    """The lines as a table in Markdown, and their means with intervals of the gains."""
    rows = [
        "| sequence | none | review's frame | then | worst frame | then | others: none | review | worst |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for line in lines:
        none, by_review, by_worst = (line[how] for how in CHOICES)
        rows.append(
            f"| {line['sequence']} | {none['JF']:.1f} | {'-' if by_review['frame'] is None else by_review['frame']} "
            f"| {by_review['JF']:.1f} | {by_worst['frame']} | {by_worst['JF']:.1f} "
            f"| {none['others']:.1f} | {by_review['others']:.1f} | {by_worst['others']:.1f} |"
        )
    means = {key: [np.mean([line[how][key] for line in lines]) for how in CHOICES] for key in ("JF", "others")}
    (a, b, c), (d, e, f) = means["JF"], means["others"]
    rows.append(f"| **mean of {len(lines)}** | {a:.1f} | | {b:.1f} | | {c:.1f} | {d:.1f} | {e:.1f} | {f:.1f} |")
    for how in CHOICES[1:]:
        for key in ("JF", "others"):
            gain = estimate([line[how][key] - line["none"][key] for line in lines])
            rows.append(f"gain by {how}, {key}: {gain.mean:+.1f} (95 %: {gain.low:+.1f} to {gain.high:+.1f})")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with davis-2016 and varied")
    parser.add_argument("--on", choices=list(SETS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--short-side", type=int, default=240)
    parser.add_argument("--table", action="store_true", help="print the table of what was measured")
    parser.add_argument("--behind", action="store_true", help="print what came of the frames behind corrected ones")
    parser.add_argument("--before", type=Path, help="the folder of a measurement with other code, for --behind")
    options = parser.parse_args()
    record = options.out / f"{options.on}.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    if options.table:
        print(table(lines))
        return
    if options.data is None:
        parser.error("--data is needed to measure")
    folder, rules, split = SETS[options.on]
    sequences = protocol(rules).open(options.data / folder, split, None)
    if options.behind:
        folders = {"before": options.before} if options.before else {}
        folders = {how: out / options.on for how, out in (folders | {"corrected": options.out}).items()}
        print(table_behind(list(sequences), folders))
        return
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(method=options.method, short_side=options.short_side, device="cpu", runtime="torch")
    for sequence in sequences:
        if sequence.name in [line["sequence"] for line in lines]:
            continue
        line = {"sequence": sequence.name, **measured(sequence, options.out / options.on, settings)}
        with record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
