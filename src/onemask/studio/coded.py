"""Encoded video for browsers that decode it themselves: the packets of a group of pictures, with their frame numbers.

Only for H.264 in MP4, MOV or Matroska with a distinct time stamp per frame, where it is certain which frame each packet
decodes to. For all other videos, and if a browser decodes pictures that differ from this program's, the page uses the
pictures of `frames`.
"""

from __future__ import annotations

import base64
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from ..errors import InputError
from ..video.decoding import VideoFile, opened
from ..video.frames import Video
from ..video.timeline import Timeline, read_timeline

LARGEST_GROUP = 32 * 2**20  # bytes
_HEADER = struct.Struct(
    "<i?I"
)  # frame number, -1 if it is not shown; whether it is a key frame; number of bytes that follow


@dataclass(frozen=True)
class Coded:
    """A video that browsers may be able to decode."""

    path: Path
    codec: str
    """Codec string of WebCodecs."""
    description: bytes
    """Decoder configuration, needed before the first packet."""
    timeline: Timeline

    @classmethod
    def of(cls, video: Video) -> Coded | None:
        """Return the coded video; None if its packets' frame numbers are uncertain or no browser decodes the codec."""
        if not isinstance(video, VideoFile):
            return None
        with opened(video.path) as (container, stream):
            context = stream.codec_context
            extra = context.extradata or b""
            # Packets in MPEG-TS and AVI have another format, whose extradata starts with zeros.
            if context.name != "h264" or len(extra) < 4 or extra[0] != 1:
                return None
            timeline = read_timeline(container, stream, video.path)
        if not timeline.exact or timeline.missing or timeline.marks_no_groups:
            return None
        if len(timeline.pts) != video.info.frames:
            return None
        return cls(video.path, f"avc1.{extra[1:4].hex()}", extra, timeline)

    def to_json(self) -> dict[str, Any]:
        """Return the decoder's configuration, and the first frame of each group."""
        groups = sorted({bisect_left(self.timeline.pts, key) for key in self.timeline.keys})
        return {"codec": self.codec, "description": base64.b64encode(self.description).decode(), "groups": groups}

    def group(self, index: int) -> bytes:
        """Return the packets from the key frame of frame `index` up to the next key frame, each after a header."""
        pts = self.timeline.pts
        if not 0 <= index < len(pts):
            raise InputError(f"there is no frame {index}; the video's are 0 to {len(pts) - 1}")
        key = self.timeline.key_at_or_before(pts[index])
        found = bytearray()
        for packet in self._from(key):
            at = -1 if packet.pts is None or packet.is_discard else bisect_left(pts, packet.pts)
            number = at if 0 <= at < len(pts) and pts[at] == packet.pts else -1
            found += _HEADER.pack(number, packet.is_keyframe, packet.size) + bytes(packet)
            if len(found) > LARGEST_GROUP:
                raise InputError("key frames are too far apart to be sent")
        return bytes(found)

    def _from(self, key: int) -> Iterator[Any]:
        try:
            with opened(self.path) as (container, stream):
                container.seek(key, stream=stream, backward=True)
                inside = False
                for packet in container.demux(stream):
                    if not packet.size:
                        continue
                    if packet.is_keyframe and inside:
                        return
                    inside |= packet.is_keyframe and packet.pts == key
                    if inside:
                        yield packet
        except av.FFmpegError as error:
            raise InputError(f"the video could not be read at frame {key}: {error.strerror}") from error
