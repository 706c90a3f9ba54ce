"""HTTP Live Streaming: what is written comes back, its size is bounded, and only its own files are touched."""

from __future__ import annotations

import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from onemask.errors import InputError, OutputError
from onemask.live.hls import PLAYLIST, SEGMENTS, HlsWriter, refuse_folder


def picture(number: int) -> np.ndarray:
    return np.full((63, 95, 3), 20 + 4 * number, np.uint8)


def read(folder) -> dict[float, int]:
    """Time -> number of the picture."""
    with av.open(str(folder / PLAYLIST)) as stream:
        frames = [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in stream.decode(video=0)]
    return {float(time): round((float(image.mean()) - 20) / 4) for time, image in frames}


def test_the_last_seconds_are_read_back_and_what_is_older_is_gone(tmp_path):
    folder = tmp_path / "http: live"
    with HlsWriter(folder, 95, 63) as writer:
        for number in range(40):
            writer.write(picture(number), Fraction(number, 2))
            if number == 30:
                seen = shutil.copytree(folder, tmp_path / "seen")
    with (seen / PLAYLIST).open("a") as playlist:
        playlist.write("#EXT-X-ENDLIST\n")  # else readers wait for more
    assert list(read(seen).values()) == list(range(4, 28))
    assert len(list(folder.iterdir())) <= SEGMENTS + 3
    times = read(folder)
    first = min(times.values())
    assert list(times.values()) == list(range(first, 40))
    assert 40 - first in range(4 * SEGMENTS - 3, 4 * SEGMENTS + 1)
    begin = min(times)
    assert [round(time - begin, 3) for time in times] == [n / 2 for n in range(len(times))]
    assert (folder / PLAYLIST).read_text().endswith("#EXT-X-ENDLIST\n")


def test_pictures_that_come_seldom_or_at_once_are_all_there(tmp_path):
    seconds = [Fraction(0), Fraction(0), Fraction(1, 3), Fraction(5), Fraction(12), Fraction(25, 2)]
    with HlsWriter(tmp_path, 95, 63) as writer:
        for number, time in enumerate(seconds):
            writer.write(picture(number), time)
        with pytest.raises(InputError, match=r"frame 6 is an array of shape \(4, 4, 3\)"):
            writer.write(np.zeros((4, 4, 3), np.uint8), Fraction(13))
    times = read(tmp_path)
    assert list(times.values()) == list(range(6))
    begin = min(times)
    assert np.allclose([time - begin for time in times], [float(time) for time in seconds], atol=0.001)


def test_only_a_stream_is_replaced_and_only_when_asked(tmp_path):
    for name in ("index.html", "live000003.ts", "live1.ts", PLAYLIST):
        (tmp_path / name).write_text("kept")
    with pytest.raises(OutputError, match=r"already holds a stream.*--overwrite"):
        refuse_folder(tmp_path, overwrite=False)
    refuse_folder(tmp_path, overwrite=True)
    refuse_folder(tmp_path / "new", overwrite=False)
    with pytest.raises(InputError, match="contains %"):
        refuse_folder(tmp_path / "50%d", overwrite=False)
    with pytest.raises(OutputError, match="is not a folder"):
        refuse_folder(tmp_path / "index.html", overwrite=True)
    with HlsWriter(tmp_path, 95, 63) as writer:
        writer.write(picture(1), Fraction(0))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["index.html", "live.m3u8", "live000000.ts", "live1.ts"]
    assert (tmp_path / "index.html").read_text() == (tmp_path / "live1.ts").read_text() == "kept"
