"""The frames of a video file, found from its packets without decoding them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Relative; time stamps in whole milliseconds, as in Matroska, miss the rate by less.
_RATE_TOLERANCE = 0.02

# Codecs with packets that are decoded but never shown, so that packets are not frames.
_HIDDEN_FRAMES = frozenset({"vp8"})

# In a transport stream a packet is called corrupt where packets are missed before it: by a gap in reception, or by
# another recording that was appended. Neither says that the end is missing.
_TRANSPORT_STREAMS = frozenset({"mpegts", "hls"})

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # ids of Matroska's two outermost elements


@dataclass(frozen=True)
class Timeline:
    """The frames' presentation time stamps, in the stream's time base and in order of presentation.

    `exact` says that there is one packet with its own time stamp for each frame, so that the position of a
    time stamp in `pts` is the number of the frame. Otherwise frames can only be counted while decoding.
    """

    stamps: tuple[int, ...]  # of all packets that are to be shown, in the file's order
    pts: tuple[int, ...]  # of the frames: of those that can be decoded, sorted
    keys: tuple[int, ...]  # time stamps at which decoding can start, also those of frames that are not shown
    exact: bool
    missing: bool  # the file ends before what its header promises
    promised: int | None  # number of frames with the missing ones; None where it is not known

    @property
    def marks_no_groups(self) -> bool:
        """Whether every one of several frames is marked as a key frame, or none."""
        return len(self.stamps) > 1 and (not self.keys or len(self.keys) >= len(self.stamps))

    def average_fps(self, stream: VideoStream) -> Fraction | None:
        """Frames a second: what the header says, unless the time stamps tell otherwise (variable rates)."""
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
    """Read all packets of `stream` of the file at `path`: a pass over the file at the speed of the disk."""
    pts: list[int] = []
    keys: list[int] = []
    unstamped = packets = 0
    broken = False
    in_order = True  # of decoding; where it jumps back, recordings were joined and sorted stamps would mix them
    previous: int | None = None
    transport = container.format.name in _TRANSPORT_STREAMS
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            packets += 1
            broken = packet.is_corrupt and not transport  # the last one: the file is cut in its middle
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
    # Pictures before the first key frame cannot be decoded: the recording began in the middle of a group.
    shown = sorted(stamp for stamp in pts if keys and stamp >= keys[0])
    exact = bool(shown) and in_order and not unstamped and len(set(shown)) == len(shown)
    exact &= stream.codec_context.name not in _HIDDEN_FRAMES
    # An MP4's index lists all samples, also those that the file no longer has.
    lacking = max(0, len(getattr(stream, "index_entries", ())) - packets)
    missing = broken or lacking > 0 or _is_cut_matroska(container, path)
    promised = len(shown) + lacking if exact and (lacking or not missing) else None
    return Timeline(tuple(pts), tuple(shown), tuple(keys), exact, missing, promised)


def _is_cut_matroska(container: InputContainer, path: Path) -> bool:
    """Whether a Matroska or WebM file ends before its segment does.

    Durations in its header promise nothing: writers round them, and count how long the last frame is held.
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
