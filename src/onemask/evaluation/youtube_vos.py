"""YouTube-VOS: scores of objects that are annotated in some frames, means by class, and the file to submit.

An object is judged in all annotated frames after its first, even where it is absent; where neither prediction nor
annotation has it, both measures are 1. Videos that are annotated only where objects begin are not judged. J and F of an
object are means over its frames. G is the mean of J and F of the classes in the training set (seen) and J and F of the
others (unseen), each a mean over objects. Xu et al., YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark,
2018.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sequence import VideoSequence
from ..data.youtube_vos import YouTubeVosDataset
from ..errors import InputError
from ..files import written_whole
from ..video.label_maps import read_label_map
from .measures import region_and_contour
from .scores import FIGURES, ObjectScore, Scores, aligned, percent

# fmt: off
SEEN = frozenset((
    "airplane", "ape", "bear", "bike", "bird", "boat", "bucket", "bus", "camel", "cat", "cow", "crocodile", "deer",
    "dog", "dolphin", "duck", "eagle", "earless_seal", "elephant", "fish", "fox", "frisbee", "frog", "giant_panda",
    "giraffe", "hand", "hat", "hedgehog", "horse", "knife", "leopard", "lion", "lizard", "monkey", "motorbike",
    "mouse", "others", "owl", "paddle", "parachute", "parrot", "penguin", "person", "plant", "rabbit", "raccoon",
    "sedan", "shark", "sheep", "sign", "skateboard", "snail", "snake", "snowboard", "squirrel", "surfboard",
    "tennis_racket", "tiger", "toilet", "train", "truck", "turtle", "umbrella", "whale", "zebra",
))
# fmt: on
"""The 65 categories of the training set, the same in 2018 and 2019."""


@dataclass(frozen=True)
class YouTubeVosScores(Scores):
    """Scores by object. If there are objects of seen and of unseen classes, the global figures begin with G.

    G and its parts come before the means over all objects, which otherwise (only one of both kinds, or other classes)
    stand alone. Without rows there is nothing to judge, as in the releases, whose later annotations are not public.
    """

    seen: Mapping[tuple[str, int], bool] = field(default_factory=dict)  # (sequence, object) -> of a class in SEEN

    @property
    def figures(self) -> dict[str, float]:
        """G, then J and F of seen and of unseen classes, if there are both, and the means over all objects."""
        if not self.rows:
            return {}
        if len(set(self.seen.values())) < 2:
            return super().figures
        parts = {
            f"{measure}-{name}": float(np.mean([row.figures[f"{measure}-Mean"] for row in rows]))
            for name, rows in self._groups().items()
            for measure in ("J", "F")
        }
        return {"G": float(np.mean(list(parts.values()))), **parts, **super().figures}

    def table(self) -> str:
        """A line for each object, the mean of all, and G with its parts if there are seen and unseen classes."""
        if not self.rows:
            return "nothing to judge: no object is annotated after its first frame (submit the predictions)"
        lines: list[tuple[str, ...]] = [("sequence", "object", *FIGURES)]
        lines += [(row.sequence, str(row.object_id), *percent(row.figures)) for row in self.rows]
        lines += [("global", "", *percent(super().figures))]
        own = {name: value for name, value in self.figures.items() if name not in FIGURES}
        classes = ["  ".join(f"{name} {text}" for name, text in zip(own, percent(own), strict=True))] if own else []
        return "\n".join([aligned(lines), *classes])

    def to_json(self) -> dict[str, Any]:
        """All scores, for `json.dump`; each row says whether its class is seen."""
        written = super().to_json()
        for row in written["rows"]:
            row["seen"] = self.seen[row["sequence"], row["object"]]
        return written

    def _groups(self) -> dict[str, list[ObjectScore]]:
        groups: dict[str, list[ObjectScore]] = {"Seen": [], "Unseen": []}
        for row in self.rows:
            groups["Seen" if self.seen[row.sequence, row.object_id] else "Unseen"].append(row)
        return groups


def score_videos(dataset: YouTubeVosDataset, predictions: Path) -> YouTubeVosScores:
    """Score predictions/VIDEO/FRAME.png.

    Raises InputError for a label map that is missing, cannot be read, or has another size than its annotation.
    """
    rows = [row for sequence in dataset for row in _rows(sequence, predictions / sequence.name)]
    seen = {(row.sequence, row.object_id): dataset.categories[row.sequence].get(row.object_id) in SEEN for row in rows}
    return YouTubeVosScores(tuple(rows), seen=seen)


def judged(sequence: VideoSequence) -> Iterator[tuple[int, np.ndarray, tuple[int, ...]]]:
    """Yield the judged frames of a video: index, label map (H, W), and the objects judged, known from earlier frames.

    Ids that meta.json does not list are left out, as if they were background. A video whose label maps each show
    objects that are new, and no others, only says where these begin, as in the releases without public annotations:
    nothing in it is judged.
    """
    known: set[int] = set()
    held: list[tuple[int, np.ndarray, tuple[int, ...]]] = []  # until a label map also tells of earlier objects
    only_given = True
    for index in sequence.annotated:
        label_map = sequence.annotation(index)
        assert label_map is not None
        shown = set(np.unique(label_map).tolist()) & set(sequence.objects or ())
        if known:
            held.append((index, label_map, tuple(sorted(known))))
            only_given = only_given and bool(shown) and shown.isdisjoint(known)
        if not only_given:
            yield from held
            held.clear()
        known |= shown


def _rows(sequence: VideoSequence, predictions: Path) -> Iterator[ObjectScore]:
    values: dict[int, list[tuple[str, float, float]]] = {}
    for index, annotation, objects in judged(sequence):
        name = sequence.frames[index].stem
        prediction = read_label_map(predictions / f"{name}.png")
        if prediction.shape != annotation.shape:
            raise InputError(
                f"{predictions / name}.png is {'x'.join(map(str, prediction.shape))}, but its annotation "
                f"{'x'.join(map(str, annotation.shape))} (height x width); predict at the annotation's size"
            )
        for object_id in objects:
            measured = region_and_contour(prediction == object_id, annotation == object_id)
            values.setdefault(object_id, []).append((name, *measured))
    for object_id, series in sorted(values.items()):
        names, region, contour = zip(*series, strict=True)
        yield ObjectScore(sequence.name, object_id, names, region, contour)


def write_submission(dataset: YouTubeVosDataset, predictions: Path, path: str | Path) -> int:
    """Write the file that the benchmark's server takes: a ZIP of Annotations/VIDEO/FRAME.png.

    It has the frames of each video that meta.json lists, or all frames if only annotated ones are listed; frames before
    the first annotation are empty label maps. Only one file at a time is in memory.

    Args:
        dataset: all videos of a split; the server refuses less.
        predictions: folder with VIDEO/FRAME.png for each of them.
        path: the file; replaced once it is complete.

    Returns:
        The number of label maps in it.

    Raises:
        InputError: a label map is missing.
        OutputError: the file cannot be written.
    """
    count = 0
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        for sequence in dataset:
            for name in dataset.submitted(sequence):
                label_map = predictions / sequence.name / f"{name}.png"
                if not label_map.is_file():
                    raise InputError(f"{label_map} is missing, but meta.json lists this frame; evaluate this video")
                # A fixed date, so that the same label maps make the same file.
                entry = zipfile.ZipInfo(f"Annotations/{sequence.name}/{name}.png")
                entry.external_attr = 0o644 << 16
                file.writestr(entry, label_map.read_bytes())
                count += 1
    return count
