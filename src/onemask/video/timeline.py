"""The frames of a video file, found from its packets without decoding them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Relative; rounding time stamps to milliseconds, as Matroska does, changes the measured fps by less.
_RATE_TOLERANCE = 0.02

# Codecs with packets that are decoded but never shown, so that packets do not correspond to frames.
_HIDDEN_FRAMES = frozenset({"vp8"})

# In a transport stream a packet is marked corrupt if packets before it are missing: through a gap in reception, or
# because another recording was appended. Neither means that the end is missing.
_TRANSPORT_STREAMS = frozenset({"mpegts", "hls"})

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # ids of Matroska's two outermost elements


@dataclass(frozen=True)
class Timeline:
    """The frames' presentation time stamps, in the stream's time base and in order of presentation.

    `exact` means that each frame has one packet with its own time stamp, so that the position of a time stamp in
    `pts` is the number of the frame. Otherwise frames can only be counted by decoding.
    """

    stamps: tuple[int, ...]  # time stamps of all packets to be shown, in file order
    pts: tuple[int, ...]  # time stamps of all frames that can be decoded, sorted
    keys: tuple[int, ...]  # time stamps at which decoding can start, also those of frames that are not shown
    exact: bool
    missing: bool  # the file ends earlier than its header says
    promised: int | None  # number of frames including missing ones; None if unknown

    @property
    def marks_no_groups(self) -> bool:
        """Whether every one of several frames is marked as a key frame, or none."""
        return len(self.stamps) > 1 and (not self.keys or len(self.keys) >= len(self.stamps))

    def average_fps(self, stream: VideoStream) -> Fraction | None:
        """Frames per second: the header's value, unless the time stamps disagree (variable frame rate)."""
        stated = stream.average_rate or stream.guessed_rate or None
        if not self.exact or len(self.pts) < 2 or not stream.time_base:
            return stated
        measured = (len(self.pts) - 1) / ((self.pts[-1] - self.pts[0]) * stream.time_base)
        if stated is not None and abs(measured / stated - 1) < _RATE_TOLERANCE:
            return stated
        return measured.limit_denominator(1001)

    def key_at_or_before(self, pts: int) -> int:
        """Time stamp of the last frame at or before `pts` from which `pts` can be decoded."""
        return self.keys[max(0, bisect_right(self.keys, pts) - 1)]

    def first_key_index(self, start: int, stop: int) -> int | None:
        """Number of the first key frame in [start, stop), None if there is none."""
        position = bisect_left(self.keys, self.pts[start])
        if position == len(self.keys):
            return None
        index = bisect_left(self.pts, self.keys[position])
        return index if index < stop else None


def read_timeline(container: InputContainer, stream: VideoStream, path: Path) -> Timeline:
    """Read all packets of `stream` in the file at `path`: one pass over the file, at the speed of the disk."""
    pts: list[int] = []
    keys: list[int] = []
    unstamped = packets = 0
    broken = False
    in_order = True  # whether dts never decrease; if they do, recordings were joined, and sorting would mix them
    previous: int | None = None
    transport = container.format.name in _TRANSPORT_STREAMS
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            packets += 1
            broken = packet.is_corrupt and not transport  # if it is the last packet, the file is truncated
            if packet.dts is not None:
                in_order &= previous is None or packet.dts >= previous
                previous = packet.dts
            if packet.pts is not None and packet.is_keyframe:
                keys.append(packet.pts)
            if packet.is_discard:  # outside the edit list: needed for decoding, not shown
                continue
            if packet.pts is None:
                unstamped += 1
                continue
            pts.append(packet.pts)
    except av.FFmpegError:
        broken = True
    keys.sort()
    # Pictures before the first key frame cannot be decoded: the recording began in the middle of a GOP.
    shown = sorted(stamp for stamp in pts if keys and stamp >= keys[0])
    exact = bool(shown) and in_order and not unstamped and len(set(shown)) == len(shown)
    exact &= stream.codec_context.name not in _HIDDEN_FRAMES
    # An MP4's index lists all samples, including those missing from a truncated file.
    lacking = max(0, len(getattr(stream, "index_entries", ())) - packets)
    missing = broken or lacking > 0 or _is_cut_matroska(container, path)
    promised = len(shown) + lacking if exact and (lacking or not missing) else None
    return Timeline(tuple(pts), tuple(shown), tuple(keys), exact, missing, promised)


def _is_cut_matroska(container: InputContainer, path: Path) -> bool:
    """Whether a Matroska or WebM file ends before its segment does.

    The duration in its header is no evidence: writers round it, and include the duration of the last frame.
    """
    if "matroska" not in container.format.name or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] != _EBML:
        return False
    size, width = ebml_size(head, 4)
    start = 4 + width + (size or 0)
    if head[start : start + 4] != _SEGMENT:
        return False
    size, width = ebml_size(head, start + 4)
    return size is not None and path.stat().st_size < start + 4 + width + size


def ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """The size field at `at`, None where the writer left it open, and the number of bytes it takes."""
    if at >= len(head) or not head[at]:
        return None, 1
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width
