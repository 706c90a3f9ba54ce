"""Faults that the tests must notice: each is put into a copy of the code, and the tests that should fail are run.

    python benchmarks/mutations.py                    all of them
    python benchmarks/mutations.py --results FILE     goes on where it was interrupted
    python benchmarks/mutations.py propagation events only those whose file or name contains one of the words

For each fault it says `noticed` and by which test, `MISSED`, `UNDECIDED` where the tests took longer than --minutes, or
`stale`: the line is no longer there, and the fault wants to be written anew. The exit code is 1 unless all are noticed.
The working tree is not touched: the faulty copy lies in a temporary folder that stands first in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "onemask"
UNDECIDED = "UNDECIDED: the tests took too long"


@dataclass(frozen=True)
class Fault:
    """A text in a file that is replaced by another one."""

    name: str
    file: str  # below src/onemask
    old: str  # stands once in the file
    new: str
    tests: str  # what pytest is to run, words apart


FAULTS = (
    # Those that the tests missed when this list was begun
    Fault(
        "where both ways meet the way back wins", "propagation/propagation.py",
        "np.where(ahead > 0, ahead, back)", "np.where(back > 0, back, ahead)",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "the moving average is never updated", "training/train.py",
        "self.average.update_parameters(self.network)", "pass",
        "tests/training/test_train.py",
    ),
    Fault(
        "a later stage sees the clips of the first again", "training/train.py",
        "first=seen", "first=0",
        "tests/training/test_train.py",
    ),
    Fault(
        "seeds repeat in each stage", "training/train.py",
        "[self.recipe.seed, self.reached.steps,", "[self.recipe.seed, self.reached.step,",
        "tests/training/test_train.py",
    ),
    Fault(
        "kept features are one frame late", "training/unroll.py",
        "place = time - (self.frames.shape[1] - known)", "place = max(0, time - 1)",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "kept features are one frame early", "training/unroll.py",
        "place = time - (self.frames.shape[1] - known)", "place = min(time, self.frames.shape[1] - 2)",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "pictures keep the source's start time, sound does not", "video/writer.py",
        "else time - self._shift", "else time",
        "tests/video/test_writer.py",
    ),
    Fault(
        "the oldest checkpoint is gone on from", "jobs/run_folder.py",
        "key=lambda path: int(path.stem), reverse=True", "key=lambda path: int(path.stem)",
        "tests/jobs/test_run.py",
    ),
    Fault(
        "packets outside of the edit list count as frames", "video/timeline.py",
        "if packet.is_discard:", "if False:",
        "tests/video/test_reader.py",
    ),
    Fault(
        "pictures before the first key frame count as frames", "video/timeline.py",
        "sorted(stamp for stamp in pts if keys and stamp >= keys[0])", "sorted(pts)",
        "tests/video/test_reader.py",
    ),
    Fault(
        "a label on background is swapped", "evaluation/events.py",
        "    for other in objects:\n        covered", "    for other in (0, *objects):\n        covered",
        "tests/evaluation/test_events.py",
    ),
    Fault(
        "least_visible grows with the side", "data/synthetic.py",
        "(min(label_map.shape) / NOMINAL_SIDE) ** 2)", "(min(label_map.shape) / NOMINAL_SIDE))",
        "tests/data/test_synthetic.py",
    ),
    Fault(
        "only one EXIF orientation turns the size", "data/sequence.py",
        "(_EXIF_ORIENTATION, 1) >= 5", "(_EXIF_ORIENTATION, 1) == 6",
        "tests/data",
    ),
    Fault(
        "the previous frame's keys take the first frame's place", "methods/dmn_aoa/model.py",
        "torch.stack([memory.reference_keys[:, FIRST], there], 1)",
        "torch.stack([memory.reference_keys[:, PREVIOUS], there], 1)",
        "tests/methods/dmn_aoa/test_dmn_aoa.py",
    ),
    Fault(
        "a query is a frame too young", "methods/dmn_aoa/model.py",
        "read(seen, memory.age + 1, memory.keys", "read(seen, memory.age, memory.keys",
        "tests/methods/dmn_aoa/test_dmn_aoa.py",
    ),
    Fault(
        "the short-term template has the clue of its own frame", "methods/ttvos/model.py",
        "self._short_clue(heatmaps, next_known)", "self._short_clue(heatmaps, known)",
        "tests/methods/ttvos/test_ttvos.py",
    ),
    Fault(
        "four in five copies are mirrored", "blocks/first_frame.py",
        "rng.random() < 0.2", "rng.random() >= 0.2",
        "tests/blocks/test_first_frame.py",
    ),
    Fault(
        "copies are turned by 4.5 degrees", "blocks/first_frame.py",
        "rng.uniform(-45, 45)", "rng.uniform(-4.5, 4.5)",
        "tests/blocks/test_first_frame.py",
    ),
    Fault(
        "nine pixels are a target", "methods/frtm/gauss_newton.py",
        "minimum_pixels - 0.5", "minimum_pixels - 1.5",
        "tests/methods/frtm/test_gauss_newton.py",
    ),
    Fault(
        "ten pixels are no target", "methods/frtm/gauss_newton.py",
        "minimum_pixels - 0.5", "minimum_pixels + 0.5",
        "tests/methods/frtm/test_gauss_newton.py",
    ),
    Fault(
        "whitening ignores the samples' weights", "methods/frtm/gauss_newton.py",
        "(samples.quadratic.sum(2) * samples.weights[:, :, None, None])", "samples.quadratic.sum(2)",
        "tests/methods/frtm/test_gauss_newton.py",
    ),
    # A second round
    Fault(
        "the largest 16-bit id is refused", "labels.py",
        "not 1 <= i <= LARGEST_ID",
        "not 1 <= i < LARGEST_ID",
        "tests/test_labels.py",
    ),
    Fault(
        "id 255 goes into 8 bits", "labels.py",
        "dtype = np.uint8 if max(self.ids, default=0) < 255",
        "dtype = np.uint8 if max(self.ids, default=0) <= 255",
        "tests/test_labels.py",
    ),
    Fault(
        "odds are not kept finite", "labels.py",
        "p = probabilities.float().clamp(EPSILON, 1 - EPSILON)\n    without",
        "p = probabilities.float()\n    without",
        "tests/test_labels.py",
    ),
    Fault(
        "background of one object is the object", "labels.py",
        "none_of_them = without if len(without) == 1 else",
        "none_of_them = p if len(without) == 1 else",
        "tests/test_labels.py",
    ),
    Fault(
        "background is the sum and not the product", "labels.py",
        "_sum_by_frame(without.log(), frame_of_row, frames).exp()",
        "_sum_by_frame(without, frame_of_row, frames)",
        "tests/test_labels.py",
    ),
    Fault(
        "every row has the odds of the first frame", "labels.py",
        "total if frame_of_row is None else total[frame_of_row]",
        "total if frame_of_row is None else total[:1]",
        "tests/test_labels.py",
    ),
    Fault(
        "an even pixel goes to the object", "labels.py",
        "(p > best).to",
        "(p >= best).to",
        "tests/test_labels.py",
    ),
    Fault(
        "later rows are compared with background alone", "labels.py",
        "best = torch.maximum(best, p)",
        "pass",
        "tests/test_labels.py",
    ),
    Fault(
        "corners are aligned", "labels.py",
        "align_corners=False",
        "align_corners=True",
        "tests/test_labels.py tests/session/test_session.py",
    ),
    Fault(
        "rows without: the ids and not the others", "labels.py",
        "if object_id not in left_out",
        "if object_id in left_out",
        "tests/test_labels.py",
    ),
    Fault(
        "sizes are enlarged, too", "geometry.py",
        "scale = max(magnify * min(most, 1.0), min(most, least_side / min(own), MOST_ENLARGED))",
        "scale = short_side / min(own)",
        "tests/session/test_session.py",
    ),
    Fault(
        "the long side is shrunk to the size", "geometry.py",
        "short_side / min(own)",
        "short_side / max(own)",
        "tests/session/test_session.py",
    ),
    Fault(
        "padding is black", "geometry.py",
        "kind = cv2.BORDER_REPLICATE if",
        "kind = cv2.BORDER_CONSTANT if",
        "tests/session/test_session.py",
    ),
    Fault(
        "masks are padded with 0", "geometry.py",
        "mode=\"replicate\"",
        "mode=\"constant\"",
        "tests/session/test_session.py",
    ),
    Fault(
        "the box is a pixel too narrow", "session/presence.py",
        "ceil(right * across)",
        "floor((right - 1) * across)",
        "tests/session/test_session.py",
    ),
    Fault(
        "areas are those of the working size", "session/presence.py",
        "round(count * down * across)",
        "round(count)",
        "tests/session/test_session.py",
    ),
    Fault(
        "confidence is not over the object's own pixels", "session/presence.py",
        "cv2.mean(own[top:bottom, left:right], within)",
        "cv2.mean(own[top:bottom, left:right])",
        "tests/session/test_presence.py",
    ),
    Fault(
        "what is out of sight is learned", "session/session.py",
        "annotated.select(annotated.rows_without(hidden))",
        "annotated",
        "tests/session/test_session.py",
    ),
    Fault(
        "others are not followed when one is annotated", "session/session.py",
        "memory_of_others, probabilities = self._beside(masks, others, encoded.features, number)",
        "memory_of_others, probabilities = rows_of(self._memory, self._objects, others.ids), (masks, 1 - masks)",
        "tests/session/test_session.py",
    ),
    Fault(
        "forgetting keeps the memory's rows", "session/session.py",
        "self._memory, self._objects = rows_of(self._memory, self._objects, others.ids), others",
        "self._memory, self._objects = self._memory if others.ids else None, others",
        "tests/session/test_session.py",
    ),
    Fault(
        "step does not update", "session/session.py",
        "self._memory = self._follower.update(memory, features, prediction, masks, number)",
        "self._follower.update(memory, features, prediction, masks, number)",
        "tests/session/test_session.py",
    ),
    Fault(
        "annotated labels do not cover the others'", "session/session.py",
        "labels[known] = like(labels, label_map[known])",
        "labels[known & (labels == 0)] = like(labels, label_map[known & (labels == 0)])",
        "tests/session/test_session.py",
    ),
    Fault(
        "the way back begins a frame early", "propagation/propagation.py",
        "self._backward(last + 1 - len(earlier))",
        "self._backward(last - len(earlier))",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "only what is seen last is followed back", "propagation/propagation.py",
        "first.setdefault(object_id, index)",
        "first[object_id] = index",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "void is an object", "propagation/propagation.py",
        "return labels if void is None else np.where",
        "return labels if True else np.where",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "a frame beyond the end is taken", "session/annotation.py",
        "index >= info.frames)",
        "index > info.frames)",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "a batch is given one frame late", "propagation/propagation.py",
        "if len(batch) == size:",
        "if len(batch) > size:",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "the way back's stack is a queue", "propagation/way_back.py",
        "position = self._entries.pop()",
        "position = self._entries.pop(0)",
        "tests/propagation/test_propagation.py",
    ),
    Fault(
        "a checkpoint is named after the frame done", "jobs/running.py",
        "done = labelled.index + 1",
        "done = labelled.index",
        "tests/jobs/test_run.py",
    ),
    Fault(
        "a full disk writes a checkpoint", "jobs/running.py",
        "and not isinstance(error, OutputError)",
        "",
        "tests/jobs/test_run.py",
    ),
    Fault(
        "a resumed run counts all frames as done now", "jobs/running.py",
        "done - propagation.start)",
        "done)",
        "tests/jobs/test_run.py",
    ),
    Fault(
        "annotations of other frames are the same input", "jobs/running.py",
        "f\"{index}:{content_of",
        "f\"0:{content_of",
        "tests/jobs/test_run.py",
    ),
    Fault(
        "a short absence is a return", "evaluation/events.py",
        "index - last_seen > OUT_OF_SIGHT",
        "index - last_seen >= OUT_OF_SIGHT",
        "tests/evaluation/test_events.py",
    ),
    Fault(
        "found is measured without the union", "evaluation/events.py",
        "if object_id in (predicted, annotated))",
        "if object_id == annotated)",
        "tests/evaluation/test_events.py",
    ),
    Fault(
        "half of another object is not enough", "evaluation/events.py",
        "covered >= MISTAKEN * area",
        "covered > MISTAKEN * area",
        "tests/evaluation/test_events.py",
    ),
    Fault(
        "as many pixels of the other as of its own are a swap", "evaluation/events.py",
        "and covered > own",
        "and covered >= own",
        "tests/evaluation/test_events.py",
    ),
    Fault(
        "a lost label ends a swap", "evaluation/events.py",
        "            continue\n        before, swapped",
        "            swapped = False\n            continue\n        before, swapped",
        "tests/evaluation/test_events.py",
    ),
    Fault(
        "the stated rate is taken for variable ones", "video/timeline.py",
        "abs(measured / stated - 1) < _RATE_TOLERANCE",
        "abs(measured / stated - 1) < 9",
        "tests/video/test_reader.py",
    ),
    Fault(
        "the key frame after is taken", "video/timeline.py",
        "bisect_right(self.keys, pts) - 1)",
        "bisect_right(self.keys, pts))",
        "tests/video/test_reader.py",
    ),
    Fault(
        "frames that are never shown are counted", "video/timeline.py",
        "exact &= stream.codec_context.name not in _HIDDEN_FRAMES",
        "pass",
        "tests/video/test_reader.py",
    ),
    Fault(
        "what a file lacks is not noticed", "video/timeline.py",
        "missing = broken or lacking > 0 or",
        "missing = broken or",
        "tests/video/test_reader.py",
    ),
    Fault(
        "all frames have one number", "session/session.py",
        "self._frame += 1",
        "self._frame += 0",
        "tests/session/test_session.py",
    ),
    Fault(
        "a truncated Matroska file is whole", "video/timeline.py",
        "< start + 4 + width + size",
        "< start + 4 + width",
        "tests/video/test_reader.py",
    ),
    Fault(
        "void is background", "training/unroll.py",
        "(labels != VOID).float()",
        "torch.ones_like(labels).float()",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "all rows see the first clip", "training/unroll.py",
        "self.labels[self.frame_of_row, time]",
        "self.labels[self.frame_of_row * 0, time]",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "losses are sums over frames", "training/unroll.py",
        "value / len(times)",
        "value",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "the memory is written into", "training/unroll.py",
        "self.method.update(memory.clone(),",
        "self.method.update(memory,",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "a method stays in evaluation", "training/unroll.py",
        "module.training = training",
        "pass",
        "tests/training/test_unroll.py tests/training/test_cache.py",
    ),
    Fault(
        "void counts in cross entropy", "training/losses.py",
        "_mean(cross_entropy_by_pixel(segmented), segmented.known_of_clip)",
        "cross_entropy_by_pixel(segmented).flatten(1).mean(1)",
        "tests/training/test_losses.py",
    ),
    Fault(
        "the easiest pixels are learned", "training/losses.py",
        "descending=True",
        "descending=False",
        "tests/training/test_losses.py",
    ),
    Fault(
        "void counts in the Jaccard index", "training/losses.py",
        "p, m = segmented.probabilities * segmented.known,",
        "p, m = segmented.probabilities,",
        "tests/training/test_losses.py",
    ),
    Fault(
        "an absent object costs nothing", "training/losses.py",
        "torch.where(gone, union / (union + some),",
        "torch.where(gone, 0 * union,",
        "tests/training/test_losses.py",
    ),
    Fault(
        "clips count by their objects", "training/losses.py",
        "return sums / rows.view",
        "return sums / rows.max() + 0 * rows.view",
        "tests/training/test_losses.py",
    ),
    Fault(
        "half of 255 is no foreground", "video/masks.py",
        "values >= threshold",
        "values > threshold",
        "tests/video/test_masks.py",
    ),
    Fault(
        "a 16-bit map has 255 for void", "video/masks.py",
        "return 255 if values.max() <= 255 else 65535",
        "return 255",
        "tests/video/test_masks.py",
    ),
    Fault(
        "void is an id", "video/masks.py",
        "ids = tuple(i for i in present if i != found)",
        "ids = present",
        "tests/video/test_masks.py",
    ),
    Fault(
        "the palette's red and blue are exchanged", "video/label_maps.py",
        "(3 * k + np.arange(3))",
        "(3 * k + np.arange(3)[::-1])",
        "tests/video/test_masks.py",
    ),
    Fault(
        "soft edges are no reason", "video/softness.py",
        ">= SOFT_SHARE * along_edges",
        ">= 9 * along_edges",
        "tests/video/test_masks.py",
    ),
    Fault(
        "the target is one frame early", "evaluation/protocols.py",
        "tuple(key + DISTANCE for key",
        "tuple(key + DISTANCE - 1 for key",
        "tests/evaluation/test_protocols.py",
    ),
    Fault(
        "the given frame is judged, too", "evaluation/protocols.py",
        "return self._annotated(sequence)[1:]",
        "return self._annotated(sequence)",
        "tests/evaluation/test_protocols.py",
    ),
    Fault(
        "frames between are seen by all", "evaluation/protocols.py",
        "step = 1 if self.between else DISTANCE",
        "step = 1",
        "tests/evaluation/test_protocols.py",
    ),
    Fault(
        "a video's last frame is never reached", "evaluation/protocols.py",
        "if key + DISTANCE < len(sequence)]",
        "if key + DISTANCE + 1 < len(sequence)]",
        "tests/evaluation/test_protocols.py",
    ),
    Fault(
        "recall counts 0.5", "evaluation/measures.py",
        "np.mean(series > 0.5)",
        "np.mean(series >= 0.5)",
        "tests/evaluation/test_measures.py",
    ),
    Fault(
        "the error is over the union", "evaluation/measures.py",
        "wrong = np.count_nonzero(predicted ^ annotated)",
        "wrong = np.count_nonzero(predicted | annotated)",
        "tests/evaluation/test_measures.py",
    ),
    Fault(
        "odd columns are padded black", "video/writer.py",
        "mode=\"edge\")",
        "mode=\"constant\")",
        "tests/video/test_writer.py",
    ),
    Fault(
        "copied sound comes a second early", "video/audio.py",
        "ticks = round(self._shift / packet.time_base)",
        "ticks = round((self._shift + 1) / packet.time_base)",
        "tests/video/test_writer.py",
    ),
    Fault(
        "two pictures may have one time", "video/writer.py",
        "stamp <= self._last",
        "stamp < self._last",
        "tests/video/test_writer.py",
    ),
    Fault(
        "the pixel aspect is lost", "video/writer.py",
        "context.sample_aspect_ratio = self._like.pixel_aspect",
        "pass",
        "tests/video/test_writer.py",
    ),
)  # fmt: skip


def faulty(fault: Fault, folder: Path) -> bool:
    """Make a copy of the package with the fault; False where its line is not there once."""
    text = (SOURCE / fault.file).read_text()
    if text.count(fault.old) != 1:
        return False
    for path in SOURCE.rglob("*"):
        copy = folder / "onemask" / path.relative_to(SOURCE)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.suffix == ".py":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        elif path.suffix != ".pyc":  # weights and the sample clip, which are large
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path)
    (folder / "onemask" / fault.file).write_text(text.replace(fault.old, fault.new))
    return True


def noticed_by(fault: Fault, folder: Path, minutes: float, only: str) -> str | None:
    """The first test that fails, or what else is told of the faulty package; None where all pass."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", *fault.tests.split()]
    command += ["-k", only] if only else []
    try:
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return UNDECIDED
    if ended.returncode == 0:
        return None
    if ended.returncode > 2:  # no tests, or wrongly called
        sys.exit(f"{fault.name}: pytest could not run {fault.tests}\n{ended.stdout}{ended.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py\S*)", ended.stdout, re.MULTILINE)
    return failed[1] if failed else ended.stdout.strip().splitlines()[-1]


def _known(results: Path | None) -> set[str]:
    """The faults, as "file: name", that a file of results has a line for."""
    lines = results.read_text().splitlines() if results and results.exists() else []
    return {": ".join(line.split(": ")[:2]) for line in lines}


def main() -> int:
    """Run the faults that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults whose file or name contains one of them")
    parser.add_argument("--minutes", type=float, default=5, help="for the tests of one fault")
    parser.add_argument(
        "--only", default="", metavar="EXPRESSION", help="of the tests, those that pytest -k would take"
    )
    parser.add_argument("--results", type=Path, help="a file for a line a fault; those that have one are not run again")
    parser.add_argument("--list", action="store_true", help="name the faults, and say which are stale")
    arguments = parser.parse_args()
    words = arguments.words or [""]
    chosen = [fault for fault in FAULTS if any(word in f"{fault.file} {fault.name}" for word in words)]
    known = _known(arguments.results)
    wrong = 0
    for fault in chosen:
        if f"{fault.file}: {fault.name}" in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            if not faulty(fault, Path(folder)):
                result = "stale"
            elif arguments.list:
                result = ""
            else:
                test = noticed_by(fault, Path(folder), arguments.minutes, arguments.only)
                result = "MISSED" if test is None else test if test == UNDECIDED else f"noticed: {test}"
        wrong += result in ("stale", "MISSED", UNDECIDED)
        print(f"{fault.file}: {fault.name}: {result}", flush=True)
        if arguments.results and not arguments.list:
            with arguments.results.open("a") as file:
                file.write(f"{fault.file}: {fault.name}: {result}\n")
    print(f"{len(chosen)} faults, {wrong} missed, undecided or stale")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
