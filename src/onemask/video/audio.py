"""Copying of a video's sound into another file."""

from __future__ import annotations

import logging
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer

log = logging.getLogger(__name__)

SoundPacket: TypeAlias = "av.Packet[Any]"


class AudioTracks:
    """All audio streams of a file, written into another container beside its pictures.

    Streams are copied packet by packet. A stream that the container cannot hold is re-encoded as AAC, and one that
    cannot be decoded is left out with a warning.
    """

    def __init__(self, path: Path, output: OutputContainer, shift: Fraction) -> None:
        """Add the streams to `output`, before anything is written to it; `shift` seconds are subtracted from times."""
        self._input = av.open(f"file:{path}", metadata_errors="replace")
        tracks = {stream.index: _track(stream, output, shift) for stream in self._input.streams.audio}
        self._output = output
        self._tracks = {index: track for index, track in tracks.items() if track is not None}
        self._packets = self._kept_packets()
        self._next = next(self._packets, None)

    def write_until(self, time: Fraction) -> None:
        """Write the sound before `time`, in seconds on the source's clock."""
        while self._next is not None and _start(self._next) < time:
            self._write_next()

    def write_rest(self) -> None:
        """Write the remaining sound."""
        while self._next is not None:
            self._write_next()
        for track in self._tracks.values():
            self._output.mux(track.finish())

    def close(self) -> None:
        """Close the source."""
        self._packets.close()
        self._input.close()

    def _write_next(self) -> None:
        assert self._next is not None
        self._output.mux(self._tracks[self._next.stream_index].convert(self._next))
        self._next = next(self._packets, None)

    def _kept_packets(self) -> Generator[SoundPacket, None, None]:
        kept = [stream for stream in self._input.streams.audio if stream.index in self._tracks]
        if not kept:
            return
        try:
            for packet in self._input.demux(*kept):
                if packet.pts is not None:
                    yield packet
        except av.FFmpegError as error:
            log.warning("the sound ends early: %s", error.strerror)


class _Track(Protocol):
    """One audio stream being transferred."""

    def convert(self, packet: SoundPacket) -> list[av.Packet]: ...

    def finish(self) -> list[av.Packet]: ...


class _Copied:
    """A stream whose packets are copied."""

    def __init__(self, stream: AudioStream, output: OutputContainer, shift: Fraction) -> None:
        self._stream = output.add_stream_from_template(stream)
        self._shift = shift

    def convert(self, packet: SoundPacket) -> list[av.Packet]:
        ticks = round(self._shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.dts = None if packet.dts is None else packet.dts - ticks
        packet.stream = self._stream
        return [packet]

    def finish(self) -> list[av.Packet]:
        return []


class _Encoded:
    """A stream that is decoded and re-encoded as AAC."""

    def __init__(self, stream: AudioStream, output: OutputContainer, shift: Fraction) -> None:
        rates = av.codec.Codec("aac", "w").audio_rates or []
        rate = stream.rate if stream.rate in rates else 48000
        layout = "mono" if stream.channels == 1 else "stereo"
        self._source = stream
        self._stream = output.add_stream("aac", rate=rate, layout=layout)
        self._shift = shift

    def convert(self, packet: SoundPacket) -> list[av.Packet]:
        packets: list[av.Packet] = []
        try:
            sounds = self._source.decode(packet)
        except av.FFmpegError as error:
            log.warning("part of the sound could not be decoded: %s", error.strerror)
            return packets
        for sound in sounds:
            if sound.pts is not None and sound.time_base:
                sound.pts -= round(self._shift / sound.time_base)
            packets += self._stream.encode(sound)
        return packets

    def finish(self) -> list[av.Packet]:
        return self._stream.encode(None)


def _track(stream: AudioStream, output: OutputContainer, shift: Fraction) -> _Track | None:
    try:
        return _Copied(stream, output, shift)
    except ValueError:
        log.debug("audio stream %d: %s does not take its codec", stream.index, output.format.name)
    if stream.codec_context is None or "aac" not in output.supported_codecs:
        log.warning("audio stream %d is left out: its codec is unknown, or not for this container", stream.index)
        return None
    return _Encoded(stream, output, shift)


def _start(packet: SoundPacket) -> Fraction:
    return (packet.pts or 0) * packet.time_base
