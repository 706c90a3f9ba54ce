"""Overlay and contact sheet of a video, drawn as its label maps arrive, so that nothing is decoded or read twice."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import OnemaskError
from .drawing import contact_sheet, overlay, thumbnail
from .frames import Video
from .label_maps import palette
from .sheet import sheet_frames
from .writer import DEFAULT_FPS, VideoWriter

log = logging.getLogger(__name__)


class Views(AbstractContextManager["Views"]):
    """Draws the frames of a video, in order from the first.

    The overlay gets its name when the block ends without an error. If it cannot be written, the block continues without
    it: the label maps are what matters, and an overlay can be made from them later.

    Args:
        video: the frames' video.
        overlay: the overlay's file; None: no overlay.
        sheet: whether to make a contact sheet; impossible for videos of unknown length.
    """

    def __init__(self, video: Video, overlay: Path | None, *, sheet: bool):
        self._video, self._path = video, overlay
        self._colours = palette()
        frames = video.info.frames
        self._frames = 0
        self._shown = set(sheet_frames(frames)) if sheet and frames else set()
        self._thumbnails: list[np.ndarray] = []
        self._names: list[str] = []
        self._writer: VideoWriter | None = None

    def __enter__(self) -> Views:
        return self

    def draw(self, name: str, image: np.ndarray, label_map: np.ndarray, time: Fraction | None) -> None:
        """Draw the next frame, (H, W, 3) uint8 RGB, with its label map (H, W). time: see `Frame.time`."""
        index, self._frames = self._frames, self._frames + 1
        if self._path is None and index not in self._shown:
            return
        drawn = overlay(image, label_map, self._colours)
        if index in self._shown:
            self._thumbnails.append(thumbnail(drawn))
            self._names.append(name)
        if self._path is not None:
            try:
                self._begun(self._path).write(drawn, time)
            except OnemaskError as error:
                self._give_up(error)

    def sheet(self) -> np.ndarray | None:
        """The contact sheet (H, W, 3) uint8 RGB; None if the frames drawn are not exactly those it needs."""
        if not self._shown or self._shown != set(sheet_frames(self._frames)):
            return None
        return contact_sheet(self._thumbnails, self._names)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        try:
            self._writer.__exit__(kind, error, trace)
        except OnemaskError as refused:
            log.debug("the overlay is drawn again: %s", refused)

    def _begun(self, path: Path) -> VideoWriter:
        if self._writer is None:
            info = self._video.info
            writer = VideoWriter(path, info.width, info.height, info.fps or DEFAULT_FPS, like=self._video)
            self._writer = writer.__enter__()
        return self._writer

    def _give_up(self, error: OnemaskError) -> None:
        """Discard the unfinished overlay."""
        log.debug("the overlay is drawn again: %s", error)
        writer, self._writer, self._path = self._writer, None, None
        if writer is not None:
            writer.__exit__(type(error), error, error.__traceback__)
