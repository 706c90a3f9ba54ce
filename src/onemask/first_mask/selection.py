"""A first mask from a box, clicks or scribbles in a frame.

    selection = Selection(frame)
    mask = selection.mask(clicks=[(420, 180, True)])
    mask = selection.mask(clicks=[(420, 180, True), (300, 90, False)])  # one more click, to correct an error

1. The proposals of a small Mask R-CNN (`maskrcnn-lite`, which ships) are compared with the marks, and the one that fits
   best is the guess. If none fits, the guess is the box, or discs around the clicks.
2. GrabCut (Rother et al., SIGGRAPH 2004) separates the colours of the guess from those around it, with the marks as
   hard constraints. If it discards most of the guess, the guess is kept instead; if it leaves nothing of a box, the
   whole box is.
3. The default method, without fine-tuning, memorizes that mask and segments the same frame with it: its network knows
   what object boundaries look like.
4. The marks always override the result. Parts of the result that were neither marked nor guessed are dropped.

Accuracy by number of clicks, and alternatives that were tried: benchmarks/first_mask.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ..errors import InputError
from ..geometry import Geometry
from ..ids import LARGEST_ID
from ..labels import resize
from ..methods import DEFAULT, load
from ..video.frames import Video
from ..video.label_maps import narrowed
from .marks import (
    Stroke,
    box_of,
    dilated,
    inside,
    meant_parts,
    outside,
    overlap_of,
    read_click,
    read_scribble,
    right_share,
    shown,
)

if TYPE_CHECKING:
    from ..methods.dmn_aoa.proposals import ProposalGenerator
    from ..methods.method import Features, Method

WORKING_SIDE = 360  # short side in pixels at which GrabCut and the method run
BRUSH = 1 / 100  # radius of a click, and half the width of a scribble, as a share of the frame's short side
REACH = 0.12  # radius of the guess around a click if no proposal fits, as a share of the short side
AROUND = 0.06  # how far an object may extend beyond its proposal, as a share of the short side
ITERATIONS = 5
LEAST_SCORE = 0.02  # proposals below are noise
KEPT = 0.3  # a step is undone if it keeps less than this share of the mask, or enlarges it more than 1 / KEPT times
SLACK = 0.1  # clicks this near to a proposal's border do not count against it, as a share of the root of its area
BOX_FITS, CLICKS_FIT = 0.5, 0.5  # least overlap with the box, and share of clicks on the right side, of a proposal

Box = tuple[float, float, float, float]


def first_mask(
    frame: np.ndarray,
    *,
    box: Box | None = None,
    clicks: Iterable[tuple[float, float, bool]] = (),
    scribbles: Iterable[tuple[Sequence[tuple[float, float]], bool]] = (),
) -> np.ndarray:
    """The mask of an object in a frame, from marks on and around it.

    Args:
        frame: (H, W, 3) uint8 RGB.
        box: (x, y, width, height) around the whole object, in pixels; None: only clicks and scribbles are given.
        clicks: (x, y, whether it is on the object).
        scribbles: (points (x, y), whether it is on the object).

    Returns:
        (H, W) bool.

    Raises:
        InputError: nothing is marked, a mark is outside the frame, or an argument is invalid.
    """
    return Selection(frame).mask(box=box, clicks=clicks, scribbles=scribbles)


@dataclass(frozen=True)
class Marks:
    """All marks of one object in one frame of a video."""

    frame: int = 0
    object_id: int = 1
    box: Box | None = None
    clicks: tuple[tuple[float, float, bool], ...] = ()
    scribbles: tuple[tuple[tuple[tuple[float, float], ...], bool], ...] = ()


def label_maps_of_marks(
    video: Video, marks: Iterable[Marks], known: Mapping[int, np.ndarray] | None = None
) -> dict[int, np.ndarray]:
    """Label maps of the frames in which objects are marked.

    Args:
        video: the video with the marked frames.
        marks: marks of each object in each frame.
        known: label maps that exist already, by frame: they lie on top. Objects marked in the same frame are stacked
            in the order of their marks, the last on top.

    Returns:
        The known label maps, and those of the marks, by frame: (H, W) uint8, or uint16 if an id is above 254.

    Raises:
        InputError: see `first_mask`; or the video has no such frame, or a marked object already has a mask there, or
            is completely covered by another.
    """
    given = dict(known or {})
    by_frame: dict[int, list[Marks]] = {}
    for marked in marks:
        by_frame.setdefault(marked.frame, []).append(marked)
    for index, in_frame in sorted(by_frame.items()):
        selection = Selection(video.frame(index).image)
        labels = np.zeros(selection.frame.shape[:2], np.uint16)
        for marked in in_frame:
            where = f"frame {index}, object {marked.object_id}"
            if not 1 <= marked.object_id <= LARGEST_ID:
                raise InputError(f"object ids must be 1..{LARGEST_ID}, got {marked.object_id}")
            if index in given and (given[index] == marked.object_id).any():
                raise InputError(f"{where} already has a mask; give the marked object another id")
            try:
                mask = selection.mask(box=marked.box, clicks=marked.clicks, scribbles=marked.scribbles)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            if not mask.any():
                raise InputError(f"{where}: marks outside it leave nothing of it; give fewer, or a larger box")
            labels[mask] = marked.object_id
        if index in given:
            labels = np.where(given[index] > 0, given[index], labels).astype(np.uint16)
        if hidden := [marked.object_id for marked in in_frame if not (labels == marked.object_id).any()]:
            raise InputError(f"frame {index}, object {hidden[0]}: the other objects leave nothing of it; mark it last")
        given[index] = narrowed(labels)
    return given


class Selection:
    """Selects objects in one frame, any number of times: everything independent of the marks is computed once.

    Args:
        frame: (H, W, 3) uint8 RGB.
        proposals: look for proposals; without them the guess is made from the marks alone.
        refine: let the method refine the mask; this takes about a second, all else a tenth of one.

    Raises:
        InputError: the frame is invalid.
    """

    def __init__(self, frame: np.ndarray, *, proposals: bool = True, refine: bool = True):
        picture = np.asarray(frame)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
            raise InputError(f"a frame must be (height, width, 3) uint8 RGB, got {picture.shape} {picture.dtype}")
        self.frame = np.ascontiguousarray(picture)
        self._with_proposals, self._refine = proposals, refine

    def prepare(self) -> None:
        """Compute everything independent of the marks now, so that the first `mask` is as quick as later ones."""
        if self._with_proposals:
            _ = self._proposals
        if self._refine:
            _ = self._encoded

    def mask(
        self,
        *,
        box: Box | None = None,
        clicks: Iterable[tuple[float, float, bool]] = (),
        scribbles: Iterable[tuple[Sequence[tuple[float, float]], bool]] = (),
    ) -> np.ndarray:
        """The mask of an object; see `first_mask` for arguments, result and errors."""
        strokes = [*(read_click(click) for click in clicks), *(read_scribble(scribble) for scribble in scribbles)]
        if box is None and not any(stroke.positive for stroke in strokes):
            raise InputError("nothing is marked on the object; give a box, or a click or scribble that is on it")
        corners = None if box is None else self._corners(box)
        for stroke in strokes:
            self._refuse_outside(stroke)
        on, off = (self._drawn(s for s in strokes if s.positive is side) for side in (True, False))
        off &= ~on
        guess = self._best_proposal(corners, strokes)
        if guess is None:
            mask = self._cut(self._around_marks(corners, strokes), on, off)
            if corners is not None and not mask.any():  # as when the object looks like what is around it
                mask = inside(corners, self._size)
        else:
            mask = _believed(self._cut(self._around(guess, corners, on), on, off), guess)
        if self._refine and mask.any():
            mask = _believed(self._refined((mask | on) & ~off), mask)
        if corners is not None:
            mask &= inside(corners, self._size)
        return meant_parts((mask | on) & ~off, on, guess if corners is None else mask)

    # Marks ----------------------------------------------------------------------------------------------------------

    @property
    def _size(self) -> tuple[int, int]:
        height, width = self.frame.shape[:2]
        return height, width

    @property
    def _short_side(self) -> int:
        return min(self._size)

    def _corners(self, box: Any) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of a box, within the frame."""
        height, width = self._size
        try:
            x, y, w, h = (float(value) for value in box)
        except (TypeError, ValueError):
            raise InputError(f"a box must be (x, y, width, height) in pixels, got {box!r}") from None
        if not (np.isfinite([x, y, w, h]).all() and w >= 1 and h >= 1):
            raise InputError(f"a box must be (x, y, width, height), at least one pixel wide and high; got {shown(box)}")
        left, top = max(0, round(x)), max(0, round(y))
        right, bottom = min(width, round(x + w)), min(height, round(y + h))
        if left >= right or top >= bottom:
            raise InputError(f"the box {shown(box)} lies outside the frame, which is {width}x{height}")
        return left, top, right, bottom

    def _refuse_outside(self, stroke: Stroke) -> None:
        height, width = self._size
        for x, y in stroke.points:
            if not (0 <= x < width and 0 <= y < height):  # NaN fails as well
                raise InputError(f"{shown((x, y))} lies outside the frame, which is {width}x{height}")

    def _drawn(self, strokes: Iterable[Stroke]) -> np.ndarray:
        """(H, W) bool: the pixels under the brush."""
        drawn = np.zeros(self._size, np.uint8)
        radius = max(2, round(BRUSH * self._short_side))
        for stroke in strokes:
            points = np.round(stroke.points).astype(np.int32)
            if len(points) == 1:
                cv2.circle(drawn, points[0].tolist(), radius, 1, -1)
            else:
                cv2.polylines(drawn, [points], False, 1, 2 * radius + 1)
        return drawn > 0

    # The guess ------------------------------------------------------------------------------------------------------

    @cached_property
    def _proposals(self) -> list[tuple[float, np.ndarray]]:
        """Score and probabilities (H, W) in [0, 1] of each proposal, best first."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(self.frame).permute(2, 0, 1)[None].float() / 255
            found = _generator()(pixels)
        return [
            (float(score), self._pasted(box, mask))
            for box, score, mask in zip(
                found.boxes[0].tolist(), found.scores[0].tolist(), found.masks[0].numpy(), strict=True
            )
            if score > LEAST_SCORE
        ]

    def _pasted(self, box: Sequence[float], mask: np.ndarray) -> np.ndarray:
        """A proposal's mask (m, m), resized into its box."""
        height, width = self._size
        left, top = max(0, round(box[0])), max(0, round(box[1]))
        right, bottom = min(width, max(left + 1, round(box[2]))), min(height, max(top + 1, round(box[3])))
        drawn = np.zeros(self._size, np.float32)
        if right > left and bottom > top:
            drawn[top:bottom, left:right] = cv2.resize(mask, (right - left, bottom - top))
        return drawn

    def _best_proposal(self, corners: tuple[int, int, int, int] | None, strokes: Sequence[Stroke]) -> np.ndarray | None:
        """The proposal that fits the marks best, (H, W) bool; None if none fits."""
        if not self._with_proposals:
            return None
        best, best_fit = None, -np.inf
        for score, probabilities in self._proposals:
            candidate = probabilities > 0.5
            if not candidate.any():
                continue
            slack = SLACK * np.sqrt(np.count_nonzero(candidate))
            wider, narrower = dilated(candidate, slack), ~dilated(~candidate, slack)
            right_side = [right_share(wider if stroke.positive else narrower, stroke) for stroke in strokes]
            overlap = 1.0 if corners is None else overlap_of(box_of(candidate), corners)
            on_object = [share for share, stroke in zip(right_side, strokes, strict=True) if stroke.positive]
            if overlap < BOX_FITS or (on_object and np.mean(on_object) < CLICKS_FIT):
                continue
            fit = 2 * overlap + (float(np.mean(right_side)) if right_side else 0.0) + 0.3 * score
            if fit > best_fit:
                best, best_fit = candidate, fit
        return best

    # The cut --------------------------------------------------------------------------------------------------------

    def _around(self, guess: np.ndarray, corners: tuple[int, int, int, int] | None, on: np.ndarray) -> np.ndarray:
        """GrabCut's trimap for a guess (H, W): probably object or not; certainly not if far off or outside the box."""
        trimap = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        near = dilated(guess, AROUND * self._short_side) | dilated(on, REACH * self._short_side)
        trimap[~near] = cv2.GC_BGD
        return outside(trimap, corners)

    def _around_marks(self, corners: tuple[int, int, int, int] | None, strokes: Sequence[Stroke]) -> np.ndarray:
        """GrabCut's trimap without a guess: the inside of the box, or discs around the strokes, may be the object."""
        if corners is not None:
            return outside(np.full(self._size, cv2.GC_PR_FGD, np.uint8), corners)
        marked = self._drawn(stroke for stroke in strokes if stroke.positive)
        near = dilated(marked, REACH * self._short_side)
        return np.where(near, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)

    def _cut(self, trimap: np.ndarray, on: np.ndarray, off: np.ndarray) -> np.ndarray:
        """GrabCut from a trimap (H, W) and the marks, at the working size; (H, W) bool."""
        trimap[off] = cv2.GC_BGD
        trimap[on] = cv2.GC_FGD
        height, width = self._size
        scale = min(1.0, WORKING_SIDE / self._short_side)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(self.frame, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(trimap, size, interpolation=cv2.INTER_NEAREST)
        object_side = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
        if object_side.any() and not object_side.all():
            cv2.setRNGSeed(0)  # its colour mixtures start at random; this way the same marks give the same mask
            of_ground, of_object = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(picture, labels, (0, 0, 0, 0), of_ground, of_object, ITERATIONS, cv2.GC_INIT_WITH_MASK)
            object_side = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
        return cv2.resize(object_side.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5

    # The method -----------------------------------------------------------------------------------------------------

    @cached_property
    def _encoded(self) -> tuple[Geometry, Features]:
        """The frame's geometry and the method's features of it."""
        import torch

        geometry = Geometry.of(self._size, WORKING_SIDE, _method().stride)
        with torch.inference_mode():
            return geometry, _method().encode(geometry.frames([self.frame], torch.device("cpu")))

    def _refined(self, mask: np.ndarray) -> np.ndarray:
        """The frame segmented by the method after memorizing the mask (H, W) in it; (H, W) bool."""
        import torch

        geometry, features = self._encoded
        with torch.inference_mode():
            memory = _method().memorize(features, geometry.masks(mask.astype(np.uint8), [1], torch.device("cpu")))
            logits = geometry.crop(_method().segment(features, memory).logits.float())
            return (resize(logits, self._size)[0, 0] > 0).numpy()


@lru_cache(maxsize=1)
def _generator() -> ProposalGenerator:
    """The proposal network, shared and never modified."""
    from ..methods.dmn_aoa.proposals import LITE, proposal_generator

    return proposal_generator(LITE)


@lru_cache(maxsize=1)
def _method() -> Method:
    """The default method without its slow parts, shared and never modified."""
    return load(DEFAULT, finetune_iterations=0, first_samples=2)


def _believed(mask: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The mask (H, W) after a step; the one before if the step kept too little of it or added too much."""
    both, area = np.count_nonzero(mask & before), np.count_nonzero(before)
    return mask if both >= KEPT * area and np.count_nonzero(mask) * KEPT <= area else before
