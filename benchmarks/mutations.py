"""Faults that the tests must notice: each is put into a copy of the code, and the tests that should fail are run.

    python benchmarks/mutations.py                    all of them
    python benchmarks/mutations.py propagation events only those whose file or name contains one of the words

For each fault it says `noticed` and by which test, `MISSED`, or `stale`: the line is no longer there, and the fault
wants to be written anew. The exit code is 1 if one is missed or stale. The working tree is not touched: the faulty
copy lies in a temporary folder that stands first in PYTHONPATH.
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


@dataclass(frozen=True)
class Fault:
    """A text in a file that is replaced by another one."""

    name: str
    file: str  # below src/onemask
    old: str  # stands once in the file
    new: str
    tests: str  # what pytest is to run, words apart


FAULTS = (
    # The eighteen that the tests missed when this list was begun
    Fault(
        "where both ways meet the way back wins", "propagation.py",
        "np.where(forward > 0, forward, backward)", "np.where(backward > 0, backward, forward)",
        "tests/test_propagation.py",
    ),
    Fault(
        "the moving average is never updated", "training/train.py",
        "self.average.update_parameters(self.method)", "pass",
        "tests/training/test_train.py",
    ),
    Fault(
        "a later stage sees the clips of the first again", "training/train.py",
        "first=seen", "first=0",
        "tests/training/test_train.py",
    ),
    Fault(
        "seeds repeat in each stage", "training/train.py",
        "[self.recipe.seed, self.place.steps,", "[self.recipe.seed, self.place.step,",
        "tests/training/test_train.py",
    ),
    Fault(
        "kept features are one frame late", "training/unroll.py",
        "place = time if self.memory is None else time - 1", "place = max(0, time - 1)",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "kept features are one frame early", "training/unroll.py",
        "place = time if self.memory is None else time - 1", "place = min(time, self.frames.shape[1] - 2)",
        "tests/training/test_unroll.py",
    ),
    Fault(
        "pictures keep the source's start time, sound does not", "video/writer.py",
        "else time - self._shift", "else time",
        "tests/video/test_writer.py",
    ),
    Fault(
        "the oldest checkpoint is gone on from", "run.py",
        "key=lambda path: int(path.stem), reverse=True", "key=lambda path: int(path.stem)",
        "tests/test_run.py",
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
        "        age = memory.age + 1\n", "        age = memory.age\n",
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
        return "a test that does not end"
    if ended.returncode == 0:
        return None
    if ended.returncode > 2:  # no tests, or wrongly called
        sys.exit(f"{fault.name}: pytest could not run {fault.tests}\n{ended.stdout}{ended.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py\S*)", ended.stdout, re.MULTILINE)
    return failed[1] if failed else ended.stdout.strip().splitlines()[-1]


def main() -> int:
    """Run the faults that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only faults whose file or name contains one of them")
    parser.add_argument("--minutes", type=float, default=5, help="for the tests of one fault")
    parser.add_argument(
        "--only", default="", metavar="EXPRESSION", help="of the tests, those that pytest -k would take"
    )
    parser.add_argument("--list", action="store_true", help="name the faults, and say which are stale")
    arguments = parser.parse_args()
    words = arguments.words or [""]
    chosen = [fault for fault in FAULTS if any(word in f"{fault.file} {fault.name}" for word in words)]
    wrong = 0
    for fault in chosen:
        with tempfile.TemporaryDirectory() as folder:
            if not faulty(fault, Path(folder)):
                result = "stale"
            elif arguments.list:
                result = ""
            else:
                test = noticed_by(fault, Path(folder), arguments.minutes, arguments.only)
                result = "MISSED" if test is None else f"noticed: {test}"
        wrong += result in ("stale", "MISSED")
        print(f"{fault.file}: {fault.name}: {result}", flush=True)
    print(f"{len(chosen)} faults, {wrong} missed or stale")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
