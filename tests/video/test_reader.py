"""What comes in through `open_video`: the right frames, in the right colours, or one clear error."""

from __future__ import annotations

import re
import threading
import zlib
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image
from small_videos import (
    BT601,
    BT709,
    BT2020,
    FULL,
    LIMITED,
    PATCHES,
    hide,
    noise,
    number_of,
    numbered,
    patch_colours,
    patches,
    write_sound,
    write_video,
)

from onemask.errors import InputError
from onemask.video import decoding
from onemask.video import frames as frames_module
from onemask.video.cropping import container_crop
from onemask.video.decoding import opened as open_file
from onemask.video.masks import check_mask, palette
from onemask.video.pixels import matrix_of, upright
from onemask.video.reader import DecodeError, open_video, prefetch
from onemask.video.timeline import Timeline, read_timeline
from onemask.video.writer import write_overlay

ALONE = "log-level=none:pools=none:frame-threads=1:wpp=0"  # of x265, whose threads crash now and then
B_FRAMES = {"bf": "3", "g": "12", "crf": "8", "b-adapt": "0"}
VARIABLE = [sum((20, 35, 50)[k % 3] for k in range(n)) for n in range(40)]


def _numbers(frames) -> list[int]:
    return [number_of(frame.image) for frame in frames]


@pytest.fixture(scope="module")
def variable(tmp_path_factory) -> Path:
    """40 frames at a varying rate, stored out of order, with four key frames."""
    path = tmp_path_factory.mktemp("videos") / "variable.mp4"
    return write_video(path, numbered(40), stamps=VARIABLE, time_base=Fraction(1, 600), options=B_FRAMES)


def test_a_pass_opens_the_file_once(variable, monkeypatch):
    video, opened = open_video(variable), []
    monkeypatch.setattr(decoding, "opened", lambda *given: opened.append(given) or open_file(*given))
    assert _numbers(video.frames()) == list(range(40))
    assert len(opened) == 1
    assert _numbers(video.frames(17)) == list(range(17, 40))
    assert len(opened) == 2


def test_a_frame_that_is_decoded_and_never_shown_is_none(tmp_path):
    """VP8 has them, each in a packet of its own: here one that was shown before it was marked."""
    shown = write_video(tmp_path / "shown.webm", numbered(8), codec="libvpx", options={"crf": "4", "b": "2M"})
    with av.open(str(shown)) as source, av.open(str(tmp_path / "v.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                data = bytearray(bytes(packet))
                data[0] &= 0xEF if number == 3 else 0xFF  # the bit show_frame
                marked = av.Packet(bytes(data))
                marked.pts, marked.dts, marked.time_base = packet.pts, packet.dts, packet.time_base
                marked.is_keyframe, marked.stream = packet.is_keyframe, stream
                target.mux(marked)
    video = open_video(tmp_path / "v.webm")
    assert video.info.frames is None
    assert _numbers(video.frames()) == [0, 1, 2, 4, 5, 6, 7]
    assert [frame.index for frame in video.frames(3)] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("pts", "fps"),
    [
        ((0, 20, 70, 100), Fraction(18)),  # of a variable rate, which is not the 30 frames a second that are stated
        ((0, 20, 40, 61), Fraction(30)),  # within two percent: time stamps are rounded
        ((0, 20, 40, 63), Fraction(200, 7)),
        ((0,), Fraction(30)),  # nothing to measure
    ],
)
def test_a_stated_rate_is_believed_where_frames_keep_to_it(pts, fps):
    stream = SimpleNamespace(average_rate=Fraction(30), guessed_rate=None, time_base=Fraction(1, 600))
    timeline = Timeline(pts, pts, pts[:1], exact=True, missing=False, promised=len(pts))
    assert timeline.average_fps(stream) == fps


class TestVideoFile:
    def test_info_and_frames(self, variable):
        video = open_video(variable)
        assert (video.info.width, video.info.height, video.info.frames) == (96, 64, 40)
        assert not video.info.has_audio
        assert abs(video.info.fps - 600 * 40 / Fraction(sum((20, 35, 50)) * 40, 3)) < 1
        frames = list(video.frames())
        assert [frame.index for frame in frames] == list(range(40))
        assert [frame.name for frame in frames[:2]] == ["00000", "00001"]
        assert _numbers(frames) == list(range(40))
        assert [frame.time for frame in frames] == [Fraction(stamp, 600) for stamp in VARIABLE]

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
    @pytest.mark.parametrize("varying", [False, True])
    def test_reading_from_the_middle_agrees_with_reading_from_the_beginning(self, tmp_path, suffix, varying):
        path = tmp_path / f"video{suffix}"
        stamps = VARIABLE if varying else None
        base = Fraction(1, 600) if varying else Fraction(1, 24)
        write_video(path, numbered(40), stamps=stamps, time_base=base, options=B_FRAMES)
        video = open_video(path)
        times = [frame.time for frame in video.frames()]
        for start in range(0, 40, 3):
            frames = list(video.frames(start, start + 2))
            assert [frame.index for frame in frames] == [n for n in (start, start + 1) if n < 40]
            assert _numbers(frames) == [frame.index for frame in frames]
            assert [frame.time for frame in frames] == times[start : start + 2]

    @pytest.mark.parametrize(("suffix", "codec"), [(".avi", "mpeg4"), (".webm", "libvpx")])
    def test_containers_without_a_time_stamp_for_each_frame(self, tmp_path, suffix, codec):
        options = {"b": "400k", "auto-alt-ref": "1", "lag-in-frames": "10"} if codec == "libvpx" else {"qscale": "2"}
        path = write_video(tmp_path / f"video{suffix}", numbered(40), codec=codec, options=options)
        video = open_video(path)
        assert _numbers(video.frames()) == list(range(40))
        assert _numbers(video.frames(17, 20)) == [17, 18, 19]

    def test_slices_end_with_the_video(self, variable):
        video = open_video(variable)
        assert [frame.index for frame in video.frames(38, 99)] == [38, 39]
        assert list(video.frames(40)) == []
        assert list(video.frames(5, 5)) == []
        with pytest.raises(InputError, match="frame -1"):
            next(video.frames(-1))
        with pytest.raises(InputError, match=r"no frame 40; the video has 40 frames, 0 to 39"):
            video.frame(40)

    def test_reversed(self, variable, monkeypatch):
        video = open_video(variable)
        monkeypatch.setattr(frames_module, "REVERSE_BUDGET", 5 * 96 * 64 * 3)
        taken = []
        read = video.frames
        monkeypatch.setattr(video, "frames", lambda *span: taken.append(span) or read(*span))
        frames = list(video.reversed_frames(29))
        assert [frame.index for frame in frames] == list(range(28, -1, -1))
        assert _numbers(frames) == list(range(28, -1, -1))
        assert max(stop - start for start, stop in taken) <= 5
        with pytest.raises(InputError, match="no frame 49"):
            list(video.reversed_frames(50))

    @pytest.mark.parametrize("all_sync", [False, True], ids=["", "all marked as sync"])
    @pytest.mark.parametrize("suffix", [".mp4", ".mov"])
    @pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
    def test_what_an_edit_list_cuts_off_is_no_frame(self, tmp_path, codec, suffix, all_sync):
        """As cameras and cutters without encoding write it: eight pictures before time 0, needed for decoding alone."""
        options = {
            "libx264": {"bf": "0", "g": "30", "keyint_min": "30", "sc_threshold": "0", "crf": "8"},
            "libx265": {"x265-params": f"bframes=0:keyint=30:scenecut=0:crf=8:{ALONE}"},
            "mpeg4": {"bf": "0", "g": "30", "sc_threshold": "1000000000", "qscale": "2"},
        }[codec]
        path = write_video(
            tmp_path / f"v{suffix}",
            numbered(20),
            codec=codec,
            stamps=range(-8, 12),
            options=options,
            container_options={"avoid_negative_ts": "disabled"},
        )
        if all_sync:  # without a table of key frames, as some writers leave it
            path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
        video = open_video(path)
        assert _numbers(video.frames()) == list(range(8, 20))
        assert _numbers(video.frames(5, 7)) == [13, 14]
        assert _numbers(video.reversed_frames(3)) == [10, 9, 8]
        assert video.info.frames == 12

    def test_a_file_that_was_cut_without_encoding(self, shared):
        video = open_video(shared / "cases/cut-mp4/small_cut.mp4")
        images = [frame.image for frame in video.frames()]
        assert len(images) == video.info.frames == 99
        for start in (1, 40, 98):
            np.testing.assert_array_equal(video.frame(start).image, images[start])

    @pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
    def test_all_samples_marked_as_key_frames(self, tmp_path, codec):
        """An MP4 without a table of key frames says that every sample is one."""
        options = {"bf": "0", "g": "30", "sc_threshold": "0", **({"qscale": "2"} if codec == "mpeg4" else {"crf": "8"})}
        path = write_video(tmp_path / "v.mp4", numbered(20), codec=codec, options=options)
        path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
        video = open_video(path)
        assert video.info.frames == 20
        images = [frame.image for frame in video.frames()]
        for index in (1, 7, 19):
            np.testing.assert_array_equal(video.frame(index).image, images[index])

    def test_a_last_frame_that_is_held_is_no_missing_end(self, tmp_path):
        path = write_video(tmp_path / "v.mkv", numbered(12))
        path.write_bytes(re.sub(rb"00:00:0\d(\.\d{9})", rb"00:00:09\1", path.read_bytes()))
        assert _numbers(open_video(path).frames()) == list(range(12))

    def test_recordings_that_were_joined(self, tmp_path):
        """The second one's packets do not continue the first one's, and its clock starts anew."""
        parts = [write_video(tmp_path / f"{n}.ts", numbered(n + 9)[n:]) for n in (0, 9)]
        path = tmp_path / "v.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        video = open_video(path)
        frames = list(video.frames())
        assert _numbers(frames) == list(range(18))
        assert _numbers(video.frames(11, 13)) == [11, 12]
        steps = np.diff([float(frame.time) for frame in frames])
        np.testing.assert_allclose(steps, 1 / 24, atol=1e-3)

    def test_a_playlist(self, tmp_path):
        for n in (0, 9):
            write_video(tmp_path / f"{n}.ts", numbered(n + 9)[n:])
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
        lines += [line for n in (0, 9) for line in ("#EXTINF:0.375,", f"{n}.ts", "#EXT-X-DISCONTINUITY")]
        (tmp_path / "v.m3u8").write_text("\n".join([*lines[:-1], "#EXT-X-ENDLIST", ""]))
        assert _numbers(open_video(tmp_path / "v.m3u8").frames()) == list(range(18))

    def test_a_lost_packet_is_no_missing_end(self, tmp_path, caplog):
        path = write_video(tmp_path / "v.ts", noise(20), options={"bf": "0", "g": "5", "crf": "20"})
        data = path.read_bytes()
        middle = len(data) // 2 // 188 * 188
        path.write_bytes(data[:middle] + data[middle + 188 :])
        assert len(list(open_video(path).frames())) == 20
        assert "is damaged" in caplog.text

    def test_receding_and_missing_time_stamps_are_mended(self):
        clock = decoding._Clock(Fraction(1, 100), Fraction(1, 25), Fraction(0))
        stamps = (10, 14, 12, None, 30, 30, -500, -496, None)  # back by little, none, equal, a clock that was set anew
        times = [100 * clock(stamp) for stamp in stamps]
        assert times == [10, 14, 18, 22, 30, 34, 38, 42, 46]

    def test_equal_time_stamps_are_mended(self, tmp_path):
        """2,000 frames a second in the milliseconds of Matroska."""
        path = write_video(tmp_path / "v.mkv", numbered(12), time_base=Fraction(1, 2000), options={"bf": "0"})
        video = open_video(path)
        times = [frame.time for frame in video.frames()]
        assert len(times) == 12
        assert (np.diff(times) > 0).all()
        assert write_overlay(video, [np.zeros((64, 96), np.uint8)] * 12, tmp_path / "o.mp4", palette()) == 12
        assert len(list(open_video(tmp_path / "o.mp4").frames())) == 12

    def test_a_frame_of_which_nothing_is_coded_shows_the_picture_before(self, tmp_path, caplog):
        source = write_video(
            tmp_path / "a.avi", numbered(8), codec="mpeg4", options={"g": "4", "bf": "0", "qscale": "2"}
        )
        with av.open(str(source)) as given, av.open(str(tmp_path / "b.avi"), "w") as container:
            stream = container.add_stream_from_template(given.streams.video[0])
            for number, packet in enumerate(given.demux(video=0)):
                if number == 5:
                    stamp = packet.dts
                    packet = av.Packet(b"\0\0\1\xb6\x50\xcf")  # a picture that is not coded
                    packet.pts = packet.dts = stamp
                    packet.time_base = stream.time_base
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
        video = open_video(tmp_path / "b.avi")
        assert _numbers(video.frames()) == [0, 1, 2, 3, 4, 4, 6, 7]
        assert _numbers(video.frames(6)) == [6, 7]
        assert "frame 5 has no picture of its own; the previous one is shown" in caplog.text

    def test_pictures_before_the_first_key_frame_are_no_frames(self, tmp_path):
        """A recording that began in the middle of a group of pictures."""
        options = {"bf": "0", "g": "12", "keyint_min": "12", "sc_threshold": "0", "crf": "8"}
        whole = write_video(tmp_path / "whole.ts", numbered(40), options=options)
        with av.open(str(whole)) as source, av.open(str(tmp_path / "v.ts"), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for number, packet in enumerate(source.demux(video=0)):
                if number >= 4 and packet.size:
                    packet.stream = stream
                    target.mux(packet)
        video = open_video(tmp_path / "v.ts")
        assert video.info.frames == 28
        assert _numbers(video.frames()) == list(range(12, 40))
        assert _numbers(video.frames(5, 7)) == [17, 18]

    def test_iterators_do_not_disturb_each_other(self, variable):
        video = open_video(variable)
        one, other = video.frames(3), video.frames(20)
        assert [number_of(next(source).image) for source in (one, other, one, other)] == [3, 20, 4, 21]

    def test_names_with_a_colon(self, tmp_path):
        assert open_video(write_video(tmp_path / "a.mp4", numbered(3)).rename(tmp_path / "b:c.mp4")).info.frames == 3


class TestColours:
    @pytest.mark.parametrize("levels", [LIMITED, FULL])
    @pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
    @pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le", "yuv444p"])
    def test_patches_keep_their_colours(self, tmp_path, pixels, matrix, levels):
        path = write_video(tmp_path / "v.mp4", [patches()], pixels=pixels, matrix=matrix, levels=levels)
        read = patch_colours(open_video(path).frame(0).image)
        assert np.abs(read.astype(int) - PATCHES).max() <= 4

    @pytest.mark.parametrize(("size", "assumed"), [((96, 64), BT601), ((1280, 720), BT709)])
    def test_an_untagged_stream_is_601_when_small_and_709_when_large(self, tmp_path, size, assumed):
        # The pictures are converted with the matrix to be assumed, but the stream does not say so.
        path = tmp_path / "v.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"crf": "6", "preset": "ultrafast"})
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(patches(*size)).reformat(
                format="yuv420p", dst_colorspace=assumed, dst_color_range=LIMITED
            )
            frame.colorspace = 2  # unspecified
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).colorspace == 2
        read = patch_colours(open_video(path).frame(0).image)
        assert np.abs(read.astype(int) - PATCHES).max() <= 4

    @pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
    def test_hdr_is_refused_with_the_way_out(self, tmp_path, transfer, name):
        path = write_video(tmp_path / "v.mp4", [patches()], pixels="yuv420p10le", matrix=BT2020, transfer=transfer)
        with pytest.raises(InputError, match=rf"HDR video with {name}.*\n?.*ffmpeg -i INPUT .*tonemap"):
            open_video(path)

    def test_unsupported_matrices_are_refused(self):
        frame = av.VideoFrame(16, 16, "yuv444p")
        frame.colorspace = 8  # YCgCo
        with pytest.raises(InputError, match=r"matrix 8 .*bt709"):
            matrix_of(frame)


class TestOrientation:
    # (degrees counterclockwise, mirrored left-right, upside down) -> the four patches as seen
    CASES = (
        ((90, False, False), [1, 3, 0, 2]),
        ((180, False, False), [3, 2, 1, 0]),
        ((-90, False, False), [2, 0, 3, 1]),
        ((0, True, False), [1, 0, 3, 2]),
        ((0, False, True), [2, 3, 0, 1]),
    )

    @pytest.mark.parametrize(("rotation", "order"), CASES)
    def test_display_matrix(self, tmp_path, rotation, order):
        path = write_video(tmp_path / "v.mp4", [patches()], matrix=BT709, levels=LIMITED, rotation=rotation)
        video = open_video(path)
        turned = rotation[0] in (90, -90)
        assert (video.info.width, video.info.height) == ((64, 96) if turned else (96, 64))
        image = video.frame(0).image
        assert image.shape == ((96, 64, 3) if turned else (64, 96, 3))
        assert np.abs(patch_colours(image).astype(int) - PATCHES[order]).max() <= 4

    @pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
    @pytest.mark.parametrize("rotation", [None, (90, False, False)])
    def test_what_a_container_hides_is_cut_off(self, tmp_path, suffix, rotation):
        """PixelCrop of Matroska and the clean aperture of MP4: what is turned is what is left."""
        if rotation and suffix == ".mkv":
            pytest.skip("Matroska is turned by another element, which its writer leaves out")
        stored = {"matrix": BT709, "levels": LIMITED, "transfer": 1, "rotation": rotation}
        path = write_video(tmp_path / f"v{suffix}", [patches(), patches()], **stored)
        whole = open_video(path).frame(1).image
        video = open_video(hide(path, left=8, right=16, top=4, bottom=6))
        cut = np.rot90(np.rot90(whole, -1)[4:-6, 8:-16]) if rotation else whole[4:-6, 8:-16]
        np.testing.assert_array_equal(video.frame(1).image, cut)
        assert (video.info.height, video.info.width) == cut.shape[:2]

    @pytest.mark.parametrize(("suffix", "left"), [(".mp4", 80), (".mkv", 0)])
    def test_hiding_all_or_nothing_hides_nothing(self, tmp_path, suffix, left):
        path = write_video(tmp_path / f"v{suffix}", [patches()], matrix=BT709, levels=LIMITED, transfer=1)
        assert open_video(hide(path, left=left, right=left // 5, top=0, bottom=0)).info.width == 96

    def test_damaged_sizes_hide_nothing(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", [patches()], matrix=BT709, levels=LIMITED, transfer=1)
        data = bytearray(path.read_bytes())
        at = data.index(b"free") - 4  # a box as long as 64 bits can say
        data[at : at + 16] = b"\0\0\0\1free" + b"\xff" * 8
        path.write_bytes(data)
        assert container_crop(path, "mov,mp4", 0) is None

    def test_a_cover_is_no_video(self, tmp_path):
        with av.open(str(tmp_path / "v.mp4"), "w") as container:
            cover, stream = (container.add_stream(codec, rate=24) for codec in ("mjpeg", "libx264"))
            cover.width, cover.height, cover.pix_fmt, cover.disposition = 48, 32, "yuvj420p", Disposition.attached_pic
            stream.width, stream.height, stream.pix_fmt, stream.disposition = 96, 64, "yuv420p", Disposition(0)
            for number, image in enumerate(numbered(5)):
                if number == 0:
                    small = av.VideoFrame.from_ndarray(patches(48, 32), format="rgb24").reformat(format="yuvj420p")
                    container.mux([*cover.encode(small), *cover.encode(None)])
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        video = open_video(tmp_path / "v.mp4")
        assert (video.info.width, _numbers(video.frames())) == (96, [0, 1, 2, 3, 4])

    def test_of_several_streams_the_one_that_is_read_is_cut(self, tmp_path):
        """The crop belongs to the second video stream, and its default flag makes it the one."""
        path = tmp_path / "v.mkv"
        with av.open(str(path), "w") as container:
            for width in (48, 96):
                stream = container.add_stream("libx264", rate=24)
                stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
                stream.disposition = Disposition.default if width == 96 else Disposition(0)
                if width == 96:
                    stream.codec_context.color_range, stream.codec_context.colorspace = LIMITED, BT709
                    stream.codec_context.color_trc = 1
            for stream in container.streams.video:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(patches(stream.width), format="rgb24")))
                container.mux(stream.encode(None))
        assert open_video(path).info.width == 96
        video = open_video(hide(path, left=8, right=16, top=4, bottom=6))
        assert video.info.width == 72
        for size, advice in (((64, 48), "a video stream of the mask's size"), ((64, 96), "cut them off the mask")):
            with pytest.raises(InputError, match=advice):
                check_mask(np.ones(size, np.uint8), video.info.height, video.info.width, video.advice(*size))

    @pytest.mark.parametrize("codec", ["libx264", "libx265"])
    def test_what_a_codec_pads_is_cut_off(self, tmp_path, codec):
        """Both store whole blocks and say in their headers how much of them is the picture."""
        options = {"crf": "8"} if codec == "libx264" else {"x265-params": f"bframes=0:crf=8:{ALONE}"}
        image = patches(98, 50)
        video = open_video(write_video(tmp_path / "v.mp4", [image], codec=codec, options=options, levels=LIMITED))
        assert (video.info.width, video.info.height) == (98, 50)
        edges = np.r_[video.frame(0).image[-1], video.frame(0).image[:, -1]].astype(int)
        assert np.abs(edges - np.r_[image[-1], image[:, -1]]).mean() < 8

    def test_all_eight_orientations_are_different_and_none_loses_a_pixel(self):
        image = np.arange(6).reshape(2, 3)
        seen = set()
        for a, b, c, d in [(s, 0, 0, t) for s in (1, -1) for t in (1, -1)] + [
            (0, s, t, 0) for s in (1, -1) for t in (1, -1)
        ]:
            out = upright(image, np.array([[a, b, 0], [c, d, 0], [0, 0, 1]]) * 65536)
            assert sorted(out.ravel()) == list(range(6))
            seen.add((out.shape, tuple(out.ravel())))
        assert len(seen) == 8


class TestDamage:
    def test_a_truncated_mp4_gives_its_frames_and_then_says_so(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", noise(30), container_options={"movflags": "faststart"})
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        video = open_video(path)
        assert video.info.frames == 30
        got = []
        with pytest.raises(DecodeError, match=r"the file ends after \d+ of 30 frames") as caught:
            got.extend(frame.index for frame in video.frames())
        assert 5 < len(got) < 20
        assert got == list(range(caught.value.index))

    def test_an_mp4_that_ends_between_two_pictures_lacks_the_others(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", noise(30), container_options={"movflags": "faststart"})
        with av.open(str(path)) as container:
            places = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
        path.write_bytes(path.read_bytes()[: places[20]])
        with av.open(str(path)) as container:
            assert read_timeline(container, container.streams.video[0], path).missing

    def test_a_truncated_mkv_too(self, tmp_path):
        path = write_video(tmp_path / "v.mkv", noise(30))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DecodeError, match="could not be decoded"):
            list(open_video(path).frames())

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts"])
    def test_whole_files_give_no_alarm(self, tmp_path, suffix):
        path = write_video(tmp_path / f"v{suffix}", numbered(20), options=B_FRAMES, sound="aac")
        assert len(list(open_video(path).frames())) == open_video(path).info.frames == 20

    def test_an_unreadable_frame_is_named(self, tmp_path):
        images = noise(30)
        path = write_video(tmp_path / "v.mp4", images, options={"bf": "0", "g": "30", "crf": "20"})
        with av.open(str(path)) as container:
            entry = container.streams.video[0].index_entries[17]
        data = bytearray(path.read_bytes())
        data[entry.pos : entry.pos + entry.size] = b"\xff" * entry.size
        path.write_bytes(data)
        got = []
        with pytest.raises(DecodeError, match="frame 17 could not be decoded") as caught:
            got.extend(frame.index for frame in open_video(path).frames())
        assert caught.value.index == 17
        assert got == list(range(17))

    def test_the_end_is_damaged_in_a_file_without_a_stamp_for_each_frame(self, tmp_path):
        # A decoder in several threads ends at the first damage once no packet follows, and does not always say so.
        path = write_video(tmp_path / "a.h264", noise(12), options={"g": "12", "bf": "0", "sc_threshold": "0"})
        data = bytearray(path.read_bytes())
        last = data.rindex(b"\0\0\1")
        data[last + 4 :] = b"\xff" * 8
        path.write_bytes(data)
        frames = []
        with pytest.raises(DecodeError, match=r"a.h264: frame 11 could not be decoded"):
            frames.extend(open_video(path).frames())
        assert len(frames) == 11

    def test_the_frame_size_changes(self, tmp_path):
        parts = [
            write_video(tmp_path / "a.ts", numbered(5)),
            write_video(tmp_path / "b.ts", numbered(5, 128, 96)),
        ]
        path = tmp_path / "v.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        with pytest.raises(InputError, match=r"frame 5 is 128x96 but the frames before it are 96x64"):
            list(open_video(path).frames())


class TestRefusals:
    def test_what_is_not_a_video(self, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "text.mp4").write_text("no video")
        (tmp_path / "nothing.mp4").touch()
        headless = write_video(tmp_path / "v.mp4", numbered(3))
        headless.write_bytes(headless.read_bytes()[:200])
        for source, message in [
            (tmp_path / "missing.mp4", "does not exist"),
            (tmp_path / "missing.png", "does not exist"),
            (tmp_path / "empty", "holds no image; expected files ending in"),
            (tmp_path / "*.png", "no file matches"),
            (tmp_path / "*.mp4", "which is not an image"),
            (tmp_path / "text.mp4", "could not be opened as a video"),
            (tmp_path / "nothing.mp4", "could not be opened as a video"),
            (headless, "could not be opened as a video"),
            (write_sound(tmp_path / "sound.m4a"), r"has no video stream \(its streams: audio\)"),
            ([], "sequence of arrays is empty"),
            ([np.zeros((4, 4), np.uint8)], r"frame 0 is an array of shape \(4, 4\)"),
            (np.zeros((2, 4, 4, 3)), "float64"),
        ]:
            with pytest.raises(InputError, match=message):
                open_video(source)


class TestImages:
    def test_folder_in_natural_order(self, tmp_path):
        for number in (10, 2, 1):
            Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"img{number}.png")
        (tmp_path / ".hidden.png").touch()
        (tmp_path / "notes.txt").touch()
        video = open_video(str(tmp_path))
        assert (video.info.frames, video.info.fps, video.info.has_audio) == (3, None, False)
        assert [frame.name for frame in video.frames()] == ["img1", "img2", "img10"]
        assert [frame.image[0, 0, 0] for frame in video.frames(1)] == [2, 10]
        assert [frame.name for frame in video.reversed_frames(2)] == ["img2", "img1"]
        assert [frame.name for frame in open_video(tmp_path / "img1*.png").frames()] == ["img1", "img10"]
        assert [frame.name for frame in open_video(tmp_path / "img2.png").frames()] == ["img2"]

    @pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif", "a.gif"])
    def test_pictures_of_one_file(self, tmp_path, name):
        durations = [40, 90, 40, 200, 40]
        first, *rest = (Image.fromarray(image) for image in numbered(5))
        options = {} if name == "a.tif" else {"duration": durations}
        first.save(tmp_path / name, save_all=True, append_images=rest, **options)
        video = open_video(tmp_path / name)
        assert video.info.frames == 5
        assert _numbers(video.frames()) == list(range(5))
        assert _numbers(video.frames(2, 4)) == [2, 3]
        times = [frame.time for frame in video.frames()]
        expected = [Fraction(sum(durations[:n]), 1000) for n in range(5)]
        assert times == ([None] * 5 if name == "a.tif" else expected)
        write_overlay(video, [np.zeros((64, 96), np.uint8)] * 5, tmp_path / "o.mp4", palette())
        written = [frame.time for frame in open_video(tmp_path / "o.mp4").frames()]
        assert written == ([Fraction(n, 25) for n in range(5)] if name == "a.tif" else expected)

    def test_pictures_of_one_file_that_are_not_for_the_eye(self, tmp_path):
        """A preview in a TIFF; the picture that stands for an animation; the second picture of a phone's JPEG."""
        first, second, third = (Image.fromarray(image) for image in numbered(3))
        third.encoderinfo = {"tiffinfo": {254: 1}}
        first.save(tmp_path / "a.tif", save_all=True, append_images=[second, third])
        assert _numbers(open_video(tmp_path / "a.tif").frames()) == [0, 1]
        first.save(tmp_path / "a.png", save_all=True, append_images=[second, third], default_image=True)
        assert _numbers(open_video(tmp_path / "a.png").frames()) == [1, 2]
        first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
        assert _numbers(open_video(tmp_path / "a.jpg").frames()) == [0]

    def test_several_pictures_among_files_of_one_are_refused(self, tmp_path):
        first, second = (Image.fromarray(image) for image in numbered(2))
        first.save(tmp_path / "a.png")
        first.save(tmp_path / "b.png", save_all=True, append_images=[second])
        with pytest.raises(
            InputError, match=r"b.png holds 2 pictures, but one per file was expected; give that file alone"
        ):
            list(open_video(tmp_path).frames())

    def test_an_animation_that_is_cut_off(self, tmp_path):
        first, *rest = (Image.fromarray(image) for image in noise(6))
        first.save(tmp_path / "a.png", save_all=True, append_images=rest, duration=40)
        data = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match=r"a.png: picture \d could not be read \(.*\); is the file damaged\?"):
            list(open_video(tmp_path / "a.png").frames())

    def test_an_animation_that_announces_millions_of_pictures(self, tmp_path):
        first, *rest = (Image.fromarray(image) for image in noise(3))
        first.save(tmp_path / "a.png", save_all=True, append_images=rest)
        data = bytearray((tmp_path / "a.png").read_bytes())
        at = data.index(b"acTL")
        data[at + 4 : at + 8] = (1 << 30).to_bytes(4, "big")
        data[at + 12 : at + 16] = zlib.crc32(data[at : at + 12]).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(InputError, match=r"a.png could not be read as an image \(it states 1073741824 pictures"):
            open_video(tmp_path / "a.png")

    def test_folders_named_like_a_pattern(self, tmp_path):
        folder = tmp_path / "x [1]"
        folder.mkdir()
        for number in range(2):
            Image.new("RGB", (8, 6), (number, 0, 0)).save(folder / f"{number}.png")
        assert open_video(folder).info.frames == 2
        assert open_video(folder / "*.png").info.frames == 2
        assert open_video(folder / "1.png").info.frames == 1

    def test_depths_and_modes(self, tmp_path):
        ramp = (np.arange(256, dtype=np.uint16) * 257)[None]
        Image.fromarray(ramp).save(tmp_path / "deep.png")
        Image.fromarray(ramp).save(tmp_path / "deep.tif")
        Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "grey.png")
        for name in ("deep.png", "deep.tif", "grey.png"):
            image = open_video(tmp_path / name).frame(0).image
            assert image.shape == (1, 256, 3)
            assert (image == np.arange(256, dtype=np.uint8)[None, :, None]).all()

    def test_16_bit_colour(self, tmp_path):
        cv2 = pytest.importorskip("cv2")
        colours = np.array([[[0, 128, 255], [10, 20, 30]]], np.uint8)
        for name in ("a.png", "a.tif"):
            cv2.imwrite(str(tmp_path / name), colours[..., ::-1].astype(np.uint16) * 257)
            assert (open_video(tmp_path / name).frame(0).image == colours).all()

    def test_nothing_is_printed_of_a_damaged_tiff(self, tmp_path, capfd):
        path = tmp_path / "a.tif"
        Image.fromarray(patches()).save(path)
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(InputError, match="is it damaged"):
            open_video(path)
        assert capfd.readouterr() == ("", "")

    def test_transparent_pixels_are_laid_on_black(self, tmp_path):
        rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], np.uint8)
        Image.fromarray(rgba).save(tmp_path / "a.png")
        assert open_video(tmp_path / "a.png").frame(0).image.tolist() == [[[200, 100, 50], [0, 0, 0]]]

    def test_exif_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees clockwise on display
        Image.fromarray(patches()).save(tmp_path / "a.png", exif=exif)
        video = open_video(tmp_path / "a.png")
        assert (video.info.width, video.info.height) == (64, 96)
        assert (patch_colours(video.frame(0).image) == PATCHES[[2, 0, 3, 1]]).all()

    def test_sizes_that_differ(self, tmp_path):
        for name, size in [("a", (8, 6)), ("b", (6, 8))]:
            Image.new("RGB", size).save(tmp_path / f"{name}.png")
        with pytest.raises(InputError, match=r"b.png \(frame 1\) is 6x8 but the frames before it are 8x6"):
            list(open_video(tmp_path).frames())

    def test_names_that_would_collide(self, tmp_path):
        Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
        Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
        with pytest.raises(InputError, match="2 images are called a"):
            open_video(tmp_path)

    def test_truncated_image(self, tmp_path):
        path = tmp_path / "a.jpg"
        Image.fromarray(noise(1)[0]).save(path)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(InputError, match=r"a.jpg could not be read as an image .*truncated"):
            open_video(path)

    def test_arrays(self):
        video = open_video(np.stack(numbered(5)))
        assert _numbers(video.frames(2)) == [2, 3, 4]
        assert video.frame(3).name == "00003"
        assert open_video(video) is video
        assert _numbers(open_video(numbered(4)).reversed_frames(3)) == [2, 1, 0]


class TestPrefetch:
    def test_order_and_errors(self):
        def three_then_error():
            yield from range(3)
            raise KeyError("four")

        assert list(prefetch(range(100), depth=3)) == list(range(100))
        got = []
        with pytest.raises(KeyError, match="four"):
            got.extend(prefetch(three_then_error()))
        assert got == [0, 1, 2]

    def test_reads_no_further_ahead_than_asked(self):
        taken = []
        ahead = threading.Event()

        def count():
            for number in range(1000):
                taken.append(number)
                if number == 3:
                    ahead.set()
                yield number

        items = prefetch(count(), depth=4)
        assert next(items) == 0
        assert ahead.wait(5)
        items.close()
        assert len(taken) <= 6

    def test_closing_stops_the_thread_and_closes_the_source(self):
        closed = threading.Event()

        def endless():
            try:
                while True:
                    yield threading.current_thread()
            finally:
                closed.set()

        items = prefetch(endless(), depth=2)
        (thread,) = set(islice(items, 5))
        assert thread is not threading.current_thread()
        assert thread.daemon
        items.close()
        thread.join(5)
        assert not thread.is_alive()
        assert closed.is_set()
