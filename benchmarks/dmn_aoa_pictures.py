"""Two pictures and a figure that show what DMN-AOA's parts do in a frame.

    python benchmarks/dmn_aoa_pictures.py VIDEO --mask FIRST.png --frame 20 --out docs/dmn-aoa

OUT-alignment.jpg: the object where it was last; the proposal that fits it best; and that proposal rearranged, as
equation 3 does with its features, each piece drawn from where the template's correspondence (equation 2) looks most.
OUT-memory.jpg: places of the memory, and where the object's cells looked when the template was read (equation 1).
Printed: the share of this attention that falls on the object, next to the share of the cells that are the object's.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import onemask
from onemask.methods.dmn_aoa.model import DMNAOA
from onemask.methods.dmn_aoa.object_memory import OUTSIDE, position
from onemask.methods.dmn_aoa.records import FIRST, PREVIOUS
from onemask.methods.dmn_aoa.refinenet import REFERENCES
from onemask.methods.dmn_aoa.regions import enlarged, pooled
from onemask.methods.options import parse_assignments
from onemask.session import Session
from onemask.video.drawing import contact_sheet
from onemask.video.masks import read_mask
from onemask.video.reader import open_video
from onemask.video.writer import write_picture

PIECE = 40  # pixels a side of what is drawn of a cell


@dataclass(frozen=True)
class Place:
    """What a place of the memory was made of."""

    index: int  # of the frame
    frame: np.ndarray
    box: Tensor  # (1, 4)
    mask: Tensor  # (1, 1, H/4, W/4)


def cut(frame: np.ndarray, box: Tensor, cells: int) -> np.ndarray:
    """What is in a box (4,), PIECE pixels a cell."""
    left, top, right, bottom = (round(float(edge)) for edge in box)
    inside = frame[top : max(bottom, top + 1), left : max(right, left + 1)]
    return cv2.resize(inside, (cells * PIECE, cells * PIECE), interpolation=cv2.INTER_AREA)


def pieced(picture: np.ndarray, source: np.ndarray, cells: int) -> np.ndarray:
    """A picture put together anew: cell i is the picture's cell source[i]."""
    pieces = picture.reshape(cells, PIECE, cells, PIECE, 3).swapaxes(1, 2).reshape(-1, PIECE, PIECE, 3)[source]
    return pieces.reshape(cells, cells, PIECE, PIECE, 3).swapaxes(1, 2).reshape(picture.shape)


def alignment(method: DMNAOA, features: Any, memory: Any, before: Place, frame: np.ndarray) -> np.ndarray:
    """The first picture."""
    cells = method.config.cells
    assert method.template is not None
    assert method.correspondence is not None
    template, _ = method._template(features, memory)
    wanted = method.template(template).float().flatten(2)[0]
    best = int(method.segment(features, memory).similarity[0, :-1].argmax())
    shares = method.correspondence(wanted, features.proposed[0, best])  # (l, l)
    there = cut(before.frame, method._box(features, memory)[0], cells)
    proposal = cut(frame, features.boxes[0, best], cells)
    pictures = [there, proposal, pieced(proposal, shares.argmax(1).numpy(), cells)]
    return contact_sheet(pictures, ["the object where it was last", "the best proposal", "aligned"], 3, 300)


def attention(method: DMNAOA, features: Any, memory: Any, places: dict[int, Place]) -> tuple[np.ndarray, float, float]:
    """The second picture; the attention's share on the object, and the object's share of the cells."""
    network, cells = method.memory_network, method.config.cells
    assert network is not None
    box = method._box(features, memory)
    seen = features.seen_in(box, cells)
    query = network.query(seen + position(memory.age + 1, network.channels)).float().flatten(2)[0]
    read = memory.places_read(method.config)[0]
    held = [place for place in places if read[place] > 0]
    keys = torch.cat([memory.keys[0, place] for place in held], 1)
    share = torch.cat([memory.inside[0, place] for place in held]).clamp(min=OUTSIDE).log()
    weights = (query.T @ keys / math.sqrt(len(query)) + share).softmax(1).unflatten(1, (len(held), -1))
    asking = pooled({4: memory.mask}, box, torch.zeros(1, dtype=torch.long), cells).flatten() > 0.5
    of_object = weights[asking].mean(0)  # (places, l)
    pictures, captions, on_object, covered = [], [], 0.0, 0.0
    for row, number in zip(of_object, held, strict=True):
        place = places[number]
        inside = pooled({4: place.mask}, place.box, torch.zeros(1, dtype=torch.long), cells).flatten()
        on_object += float((row * inside).sum())
        covered += float(inside.mean()) / len(held)
        heat = (row / of_object.max()).view(1, 1, cells, cells)
        heat = F.interpolate(heat, scale_factor=PIECE, mode="nearest")[0, 0, :, :, None].numpy()
        picture = cut(place.frame, place.box[0], cells)
        pictures += [picture, (picture * 0.35 + heat * np.array([255, 200, 0]) * 0.65).clip(0, 255).astype(np.uint8)]
        captions += [f"memory of frame {place.index}", f"{100 * float(row.sum()):.0f} % of the attention"]
    return contact_sheet(pictures, captions, 4, 240), on_object, covered


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--mask", required=True, help="of the first frame")
    parser.add_argument("--frame", type=int, default=20)
    parser.add_argument("--out", required=True)
    parser.add_argument("--method", default="dmn-aoa-lite")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE")
    arguments = parser.parse_args()
    method: Any = onemask.load(arguments.method, **parse_assignments(arguments.set or []))
    session = Session(method, device="cpu")
    config, places = method.config, dict[int, Place]()
    for frame in open_video(arguments.video).frames(0, arguments.frame + 1):
        index, image = frame.index, frame.image
        if index == arguments.frame:
            features = session.encode([image])[0].features
            break
        if index == 0:
            session.annotate(image, (read_mask(arguments.mask).labels > 0).astype(np.uint8))
        else:
            session.step(image)
        memory: Any = session._memory
        box = enlarged(memory.box, config.margin, (10**6, 10**6))
        place = Place(index, image, box, memory.mask)
        due = config.every and index % config.every == 0 and index > 0
        numbers = [FIRST] * (index == 0) + [PREVIOUS]
        if due:
            number = index // config.every - 1
            numbers.append(REFERENCES + (number % config.slots if config.slots else number))
        places |= dict.fromkeys(numbers, place)
    else:
        parser.error(f"{arguments.video} has no frame {arguments.frame}; give an earlier --frame")
    write_picture(Path(f"{arguments.out}-alignment.jpg"), alignment(method, features, memory, places[PREVIOUS], image))
    picture, on_object, covered = attention(method, features, memory, dict(sorted(places.items())))
    write_picture(Path(f"{arguments.out}-memory.jpg"), picture)
    of_object = f"{100 * on_object:.0f} % of the attention, {100 * covered:.0f} % of the cells"
    print(f"on the object in frame {arguments.frame}: {of_object}")


if __name__ == "__main__":
    main()
