"""Eight sessions in eight threads on one method, interleaved at random, against each session alone.

    python benchmarks/threads.py [--seconds 60] [METHOD ...]

Each session follows its own objects through the sample clip again and again, annotating anew in between and waiting for
random times, until the time is over, and once at least. Then every label map must be what the same session gives alone,
and the method's weights must be what they were.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch

import onemask
from onemask.methods.method import Method
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip

METHODS = ("ttvos-lite", "pmvos-lite", "videomatch-lite", "fusion-fast", "fusion", "frtm-lite", "dmn-aoa-lite", "best")
# Each object fine-tunes a network of its own in some: briefly here, for what threads share is the same.
OPTIONS: dict[str, dict[str, Any]] = {
    "fusion": {"finetune_iterations": 3},
    "frtm-lite": {"finetune_iterations": 3, "capacity": 8, "first_samples": 2},
}
SESSIONS, FRAMES, SIZE = 8, 6, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frames, labels = clip()
    print("| method | rounds | frames | different from alone | weights |\n|---|---:|---:|---:|---|")
    for name in arguments.methods:
        method = onemask.load(name, **OPTIONS.get(name, {}))
        before = fingerprint(method)
        alone = [followed(method, frames, own(labels, index)) for index in range(SESSIONS)]
        with ThreadPoolExecutor(SESSIONS) as pool:
            until = time.monotonic() + arguments.seconds
            tasks = [
                pool.submit(rounds, method, frames, own(labels, index), alone[index], until, index)
                for index in range(SESSIONS)
            ]
            counts = [task.result() for task in tasks]
        done, wrong = (sum(part) for part in zip(*counts, strict=True))
        kept = "as they were" if fingerprint(method) == before else "CHANGED"
        print(f"| `{name}` | {done} | {done * (FRAMES - 1)} | {wrong} | {kept} |", flush=True)


def clip() -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of the sample clip, `SIZE` pixels high, and the label map of the first."""
    sample = sample_clip()
    height, width = sample.annotations[0].shape
    size = (width * SIZE // height, SIZE)
    frames = [frame.image for frame in islice(open_video(sample.path).frames(), FRAMES)]
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    return small, cv2.resize(sample.annotations[0], size, interpolation=cv2.INTER_NEAREST)


def own(labels: np.ndarray, index: int) -> np.ndarray:
    """The object cut in two, at another column for each session: 1 to the left of it, 2 from there on."""
    columns = np.flatnonzero(labels.any(0))
    cut = columns[(index + 1) * len(columns) // (SESSIONS + 1)]
    parts = labels.copy()
    parts[:, cut:] *= 2
    return parts


def followed(method: Method, frames: list[np.ndarray], labels: np.ndarray, pause: random.Random | None = None) -> str:
    """The SHA-256 of all label maps of a session."""
    session, found = onemask.Session(method, short_side=SIZE), hashlib.sha256()
    session.annotate(frames[0], labels)
    for frame in frames[1:]:
        if pause:
            time.sleep(pause.random() * 0.02)
        found.update(session.step(frame).tobytes())
    return found.hexdigest()


def rounds(
    method: Method, frames: list[np.ndarray], labels: np.ndarray, alone: str, until: float, seed: int
) -> tuple[int, int]:
    """How often a session went through the clip until then, and how often it was not what it is alone."""
    pause, done, wrong = random.Random(seed), 0, 0
    while not done or time.monotonic() < until:
        wrong += followed(method, frames, labels, pause) != alone
        done += 1
    return done, wrong


def fingerprint(method: Method) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(method.state_dict().items()):
        found.update(name.encode() + tensor.cpu().numpy().tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    main()
