"""How accurate methods are, by more than one mean.

    python benchmarks/accuracy.py DATA --out out/accuracy --variant frtm-lite --variant fusion [--perturbed MADE]

DATA holds davis-2016/ (its split dev) and varied/ (YouTube-VOS layout); MADE is what `onemask perturb` wrote. Each
method is run over each set, unless that is finished in --out already, and five tables are printed as Markdown:

- by set: J&F with its 95 % interval over videos, and the mean of the worst quarter of the videos;
- errors: J, F, false positives and negatives as shares of the object's area, and the decay of J, over both sets;
- the same errors set by set, with their medians;
- sizes: J of objects, by the share of the frame that they cover where they are first annotated;
- differences from the first method, video by video; one whose interval holds 0 is none.

--worst N writes a contact sheet of the N worst videos of each method into OUT/worst, to be looked at.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from onemask.data.perturbed import SPLITS
from onemask.data.sequence import VideoSequence
from onemask.evaluation.compare import Variant
from onemask.evaluation.evaluate import Evaluation, evaluate
from onemask.evaluation.measures import scored
from onemask.evaluation.protocols import protocol
from onemask.evaluation.score import ObjectScore
from onemask.evaluation.summary import Estimate, by_video, difference, error_shares, estimate, worst_quarter
from onemask.evaluation.youtube_vos import judged
from onemask.settings import Settings
from onemask.video.masks import read_label_map

SIZES = (0.0, 0.005, 0.02, 0.05, 0.1, 1.0)  # shares of the frame: borders of the classes of objects


@dataclass(frozen=True)
class Set:
    """Videos, and the rules by which they are judged."""

    name: str
    root: Path
    protocol: str
    split: str

    def evaluated(self, variant: Variant, out: Path) -> Evaluation:
        """Run what is not there yet, and score."""
        return evaluate(
            self.root,
            out / self.name / variant.folder,
            variant.settings,
            protocol=self.protocol,
            split=self.split,
            resume=True,
        )

    def sizes(self) -> dict[tuple[str, int], float]:
        """Of each object, by video and id, the share of the frame that it covers where it is first annotated."""
        found: dict[tuple[str, int], float] = {}
        for sequence in protocol(self.protocol).open(self.root, self.split, None):
            for index in sequence.annotated:
                truth = sequence.annotation(index)
                for i in () if truth is None else np.unique(truth).tolist():
                    found.setdefault((sequence.name, i), float((truth == i).mean()))
        return found

    def errors(self, variant: Variant, out: Path) -> Iterator[tuple[str, tuple[float, float]]]:
        """Of each video the false positives and negatives, means over its judged frames and objects."""
        predictions = out / self.name / variant.folder / "predictions"
        for sequence in protocol(self.protocol).open(self.root, self.split, None):
            shares = [
                error_shares(read_label_map(predictions / sequence.name / f"{name}.png") == i, truth == i)
                for name, truth, objects in _judged(sequence, sparse=self.protocol == "youtube-vos")
                for i in objects
                if (truth == i).any()
            ]
            yield sequence.name, tuple(np.mean(shares, 0).tolist())


@dataclass(frozen=True)
class Measured:
    """What a method reached on one set."""

    rows: tuple[ObjectScore, ...]
    errors: dict[str, tuple[float, float]]
    seconds: float  # a frame


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", action="append", required=True, help="'[LABEL:] METHOD [NAME=VALUE ...]'")
    parser.add_argument("--perturbed", type=Path, metavar="MADE", help="what `onemask perturb` wrote")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="contact sheets of the N worst videos")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    chosen = (
        Set("dev", options.data / "davis-2016", "davis2016", "dev"),
        Set("varied", options.data / "varied", "youtube-vos", "val"),
    )
    made = [Set(split, options.perturbed, "davis2017", split) for split in SPLITS] if options.perturbed else []
    variants = [Variant.parse(text, Settings(device=options.device)) for text in options.variant]
    results = {c.label: {s.name: _measured(s, c, options.out) for s in (*chosen, *made)} for c in variants}
    both = [s.name for s in chosen]
    print(by_set(results, [[name] for name in both] + [both] + [[s.name] for s in made]))
    print(errors(results, both))
    print(errors_by_set(results, [s.name for s in (*chosen, *made)]))
    print(by_size(results, {c.name: c.sizes() for c in chosen}))
    if len(variants) > 1:
        print(differences(results, both))
    for variant in variants if options.worst else ():
        _copy_worst(variant, results[variant.label], both, options.out, options.worst)


def _measured(videos: Set, variant: Variant, out: Path) -> Measured:
    evaluation = videos.evaluated(variant, out)
    return Measured(evaluation.scores.rows, dict(videos.errors(variant, out)), evaluation.seconds_per_frame)


def _judged(sequence: VideoSequence, *, sparse: bool) -> Iterator[tuple[str, np.ndarray, tuple[int, ...]]]:
    """Name, label map and objects of each judged frame."""
    if sparse:
        yield from ((sequence.frames[index].stem, truth, objects) for index, truth, objects in judged(sequence))
        return
    for index in scored(list(sequence.annotated)):
        truth = sequence.annotation(index)
        assert truth is not None
        yield sequence.frames[index].stem, truth, tuple(i for i in np.unique(truth).tolist() if i not in (0, 255))


# Tables ---------------------------------------------------------------------------------------------------------------

Results = dict[str, dict[str, Measured]]  # method -> set


def _videos(measured: dict[str, Measured], sets: list[str], measure: str = "J&F-Mean") -> dict[str, float]:
    """(set, video) -> percent."""
    return {
        f"{name} {video}": 100 * value
        for name in sets
        for video, value in by_video(measured[name].rows, measure).items()
    }


def by_set(results: Results, groups: list[list[str]]) -> str:
    """J&F with its interval, and the worst quarter."""
    titles = [" + ".join(group) for group in groups]
    lines = ["| method | " + " | ".join(f"{title} | worst quarter" for title in titles) + " |"]
    lines.append("|---|" + "---:|" * (2 * len(groups)))
    for label, measured in results.items():
        cells = []
        for group in groups:
            values = list(_videos(measured, group).values())
            cells += [_shown(estimate(values)), f"{worst_quarter(values):.1f}"]
        lines.append(f"| `{label}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def errors(results: Results, sets: list[str]) -> str:
    """J, F, errors and decay over all videos, and the time of a frame."""
    lines = ["| method | J | F | false positives | false negatives | decay of J | ms a frame |", "|---|" + "---:|" * 6]
    for label, measured in results.items():
        figures = [np.mean(list(_videos(measured, sets, name).values())) for name in ("J-Mean", "F-Mean")]
        wrong = 100 * np.mean([shares for name in sets for shares in measured[name].errors.values()], 0)
        decay = np.mean(list(_videos(measured, sets, "J-Decay").values()))
        speed = 1000 * np.mean([measured[name].seconds for name in sets])
        cells = [f"{value:.1f}" for value in (*figures, *wrong, decay)] + [f"{speed:.0f}"]
        lines.append(f"| `{label}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def errors_by_set(results: Results, sets: list[str]) -> str:
    """Errors in each set: means over videos, which small objects decide, and medians."""
    titles = [f"false {kind}, {name}" for name in sets for kind in ("positives", "negatives")]
    lines = ["| mean (median) over videos, % | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for label, measured in results.items():
        cells = []
        for name in sets:
            of_videos = 100 * np.array(list(measured[name].errors.values()))
            pairs = zip(of_videos.mean(0), np.median(of_videos, 0), strict=True)
            cells += [f"{mean:.1f} ({median:.1f})" for mean, median in pairs]
        lines.append(f"| `{label}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_size(results: Results, sizes: dict[str, dict[tuple[str, int], float]]) -> str:
    """J of objects of one size, means over objects."""
    bounds = list(pairwise(SIZES))
    titles = [f"{100 * low:g} to {100 * high:g} %" for low, high in bounds]
    lines = ["| J by size at first | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for label, measured in results.items():
        scores = [
            (sizes[name][row.sequence, row.object_id], 100 * row.J.mean)
            for name in sizes
            for row in measured[name].rows
        ]
        of_size = [[score for size, score in scores if low < size <= high] for low, high in bounds]
        cells = [f"{np.mean(part):.1f} ({len(part)})" if part else "-" for part in of_size]
        lines.append(f"| `{label}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences(results: Results, sets: list[str]) -> str:
    """J&F of each method minus that of the first, video by video."""
    first, *others = results
    lines = [f"| J&F minus that of `{first}` | mean | videos better | difference |", "|---|---:|---:|---|"]
    for label in others:
        one, other = _videos(results[label], sets), _videos(results[first], sets)
        found, better = difference(one, other), sum(one[video] > other[video] for video in one)
        verdict = ("better" if found.mean > 0 else "worse") if found.excludes_zero else "none that is certain"
        lines.append(f"| `{label}` | {_shown(found)} | {better} of {len(one)} | {verdict} |")
    return "\n".join(lines) + "\n"


def _shown(value: Estimate) -> str:
    return f"{value.mean:.1f} ({value.low:.1f} to {value.high:.1f})"


def _copy_worst(variant: Variant, measured: dict[str, Measured], sets: list[str], out: Path, count: int) -> None:
    values = _videos(measured, sets)
    for place, video in enumerate(sorted(values, key=lambda name: values[name])[:count]):
        name, sequence = video.split(" ", 1)
        folder = out / "worst" / variant.folder
        folder.mkdir(parents=True, exist_ok=True)
        sheet = out / name / variant.folder / "sheets" / f"{sequence}.png"
        shutil.copy(sheet, folder / f"{place:02}-{values[video]:.0f}-{sequence}.png")


if __name__ == "__main__":
    main()
