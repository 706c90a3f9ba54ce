"""The video as packets: what a browser decodes has the numbers that frames have here."""

import base64
import struct

import av
import numpy as np
import pytest

from onemask.errors import InputError
from onemask.studio.coded import Coded
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip


def packets(data: bytes) -> list[tuple[int, bool, bytes]]:
    found, at = [], 0
    while at < len(data):
        index, key, size = struct.unpack_from("<i?I", data, at)
        found.append((index, key, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def test_each_packet_has_the_number_of_the_frame_that_comes_out_of_it():
    video = open_video(sample_clip().path)
    coded = Coded.of(video)
    assert coded is not None
    told = coded.to_json()
    assert told["codec"].startswith("avc1.")
    seen: dict[int, np.ndarray] = {}
    for first in told["groups"]:
        decoder = av.CodecContext.create("h264", "r")
        decoder.extradata = base64.b64decode(told["description"])
        group = packets(coded.group(first))
        assert [key for _, key, _ in group] == [True] + [False] * (len(group) - 1)
        for index, _, data in group:
            packet = av.Packet(data)
            packet.pts = index
            for picture in [*decoder.decode(packet)]:
                seen[picture.pts] = picture.to_ndarray(format="rgb24")
        for picture in decoder.decode(None):
            seen[picture.pts] = picture.to_ndarray(format="rgb24")
    assert sorted(seen) == list(range(80))
    for index in (0, 1, 41, 79):
        apart = [
            np.abs(seen[other].astype(int) - video.frame(index).image).mean() for other in (index, (index + 2) % 80)
        ]
        assert apart[0] < 3 < apart[1]
    assert coded.group(told["groups"][-1]) == coded.group(79)
    with pytest.raises(InputError, match="no frame 80"):
        coded.group(80)


def test_pictures_and_other_codecs_have_no_packets(folder_of_frames, tmp_path):
    assert Coded.of(open_video(folder_of_frames)) is None
    with av.open(str(tmp_path / "old.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame(96, 64, "yuv420p")))
        file.mux(stream.encode())
    assert Coded.of(open_video(tmp_path / "old.mp4")) is None
