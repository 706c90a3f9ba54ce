"""The frames of a video file, found from its packets without decoding them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# A Matroska header's duration is rounded by some writers; a file that lacks less than this is taken as whole.
_SLACK_SECONDS = Fraction(1, 2)

# Relative; time stamps in whole milliseconds, as in Matroska, miss the rate by less.
_RATE_TOLERANCE = 0.02

# Codecs with packets that are decoded but never shown, so that packets are not frames.
_HIDDEN_FRAMES = frozenset({"vp8"})


@dataclass(frozen=True)
class Timeline:
    """The frames' presentation time stamps, in the stream's time base and in order of presentation.

    `exact` says that there is one packet with its own time stamp for each frame, so that the position of a
    time stamp in `pts` is the number of the frame. Otherwise frames can only be counted while decoding.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]  # time stamps at which decoding can start
    exact: bool
    missing: bool  # the file ends before what its header promises
    promised: int | None  # number of frames with the missing ones; None where it is not known

    def average_rate(self, stream: VideoStream) -> Fraction | None:
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


def read_timeline(container: InputContainer, stream: VideoStream) -> Timeline:
    """Read all packets of `stream`: a pass over the file at the speed of the disk."""
    pts: list[int] = []
    keys: list[int] = []
    unstamped = packets = 0
    broken = False
    end = 0
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            packets += 1
            broken |= packet.is_corrupt  # cut in the middle
            if packet.is_discard:  # outside the edit list: needed for decoding, not shown
                continue
            if packet.pts is None:
                unstamped += 1
                continue
            end = max(end, packet.pts + (packet.duration or 0))
            pts.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    except av.FFmpegError:
        broken = True
    keys.sort()
    # Pictures before the first key frame cannot be decoded: the recording began in the middle of a group.
    shown = sorted(stamp for stamp in pts if keys and stamp >= keys[0])
    exact = bool(shown) and not unstamped and len(set(shown)) == len(shown)
    exact &= stream.codec_context.name not in _HIDDEN_FRAMES
    # An MP4's index lists all samples, also those that the file no longer has.
    lacking = max(0, len(getattr(stream, "index_entries", ())) - packets)
    missing = broken or lacking > 0 or _ends_before_header(container, stream, end)
    promised = len(shown) + lacking if exact and (lacking or not missing) else None
    return Timeline(tuple(shown), tuple(keys), exact, missing, promised)


def _ends_before_header(container: InputContainer, stream: VideoStream, end: int) -> bool:
    """Whether a Matroska or WebM file lacks its end; its header has the duration, of each track or of all."""
    if "matroska" not in container.format.name or stream.time_base is None:
        return False
    promised = _parse_duration(stream.metadata.get("DURATION", ""))
    if promised is None and len(container.streams) == 1 and container.duration is not None:
        promised = Fraction(container.duration, av.time_base)
    return promised is not None and end * stream.time_base < promised - _SLACK_SECONDS


def _parse_duration(text: str) -> Fraction | None:
    """Seconds of a Matroska DURATION tag, such as 00:01:02.500000000."""
    try:
        hours, minutes, seconds = text.strip("\x00 ").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None
