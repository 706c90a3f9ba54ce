"""Time of a frame of DMN-AOA by module, as in the paper's table 4.

    python benchmarks/dmn_aoa_parts.py                            # dmn-aoa-lite, one and five objects
    python benchmarks/dmn_aoa_parts.py --method dmn-aoa --device cuda --objects 5
    python benchmarks/dmn_aoa_parts.py --untrained                # without weights of a proposal network

BFE: base feature extractor, OPG: object proposal generator, OTG: object template generator (the memory network, reading
and writing), AM: aligned matcher, MRN: mask refinement network with its alignment of references.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from onemask.device import best_device
from onemask.methods import configuration
from onemask.methods.dmn_aoa.model import DMNAOA
from onemask.methods.dmn_aoa.proposals import ProposalGenerator, maskrcnn_lite
from onemask.methods.options import parse_assignments
from onemask.session import Session
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip

PARTS = {
    "BFE": ("backbone.forward", "reduce.4.forward", "reduce.8.forward", "reduce.16.forward"),
    "OPG": ("generator.forward",),
    "OTG": ("_template", "_encoded"),
    "AM": ("_proposed", "_matched"),
    "MRN": ("here.forward", "there.forward", "_refined", "_as_reference", "refine.prepare"),
}


def timed(method: DMNAOA, device: torch.device) -> dict[str, float]:
    """Have each part note its time, in seconds; the dictionary is filled as the method runs."""
    spent: dict[str, float] = defaultdict(float)

    def wrapped(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            began = now(device)
            result = call(*arguments, **named)
            spent[part] += now(device) - began
            return result

        return run

    for part, names in PARTS.items():
        for name in names:
            path, _, attribute = name.rpartition(".")
            owner: Any = method.get_submodule(path)
            setattr(owner, attribute, wrapped(part, getattr(owner, attribute)))
    return spent


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def objects_over(frame: np.ndarray, number: int) -> np.ndarray:
    """A label map with `number` blocks side by side."""
    label_map = np.zeros(frame.shape[:2], np.uint8)
    width = frame.shape[1] // number
    for index in range(number):
        label_map[frame.shape[0] // 4 : frame.shape[0] // 2, index * width : index * width + width // 2] = index + 1
    return label_map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="dmn-aoa-lite")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE")
    parser.add_argument("--objects", default="1,5")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--untrained", action="store_true", help="proposals of maskrcnn-lite with random weights")
    arguments = parser.parse_args()
    frames = [frame.image for frame in open_video(sample_clip().path).frames(0, arguments.frames + 3)]
    config: Any = configuration(arguments.method, parse_assignments(arguments.set or []))
    torch.manual_seed(0)
    generator = ProposalGenerator(maskrcnn_lite()) if arguments.untrained else None
    method = config.build(proposals=generator)
    device = torch.device(best_device(arguments.device))
    spent = timed(method, device)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {device}; ms a frame")
    print("objects " + " ".join(f"{part:>7}" for part in (*PARTS, "frame")))
    for number in map(int, arguments.objects.split(",")):
        session = Session(method, device=device, runtime="torch")  # whose parts are timed
        session.annotate(frames[0], objects_over(frames[0], number))
        for frame in frames[1:3]:
            session.step(frame)
        spent.clear()
        began = now(device)
        for frame in frames[3:]:
            session.step(frame)
        spent["frame"] = now(device) - began
        times = (1000 * spent[part] / len(frames[3:]) for part in (*PARTS, "frame"))
        print(f"{number:7d} " + " ".join(f"{milliseconds:7.1f}" for milliseconds in times), flush=True)


if __name__ == "__main__":
    main()
