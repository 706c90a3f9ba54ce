"""Videos that go out: the pictures, their times and the sound come back as they were."""

from __future__ import annotations

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from small_videos import BT709, PATCHES, number_of, numbered, patch_colours, patches, write_video

from onemask.errors import InputError, OutputError
from onemask.video.masks import write_mask
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip
from onemask.video.sheet import write_contact_sheet
from onemask.video.writer import VideoWriter, write_overlay, write_picture

COLOURS = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
VARIABLE = [0, 20, 55, 105, 125, 160, 210, 230, 265, 315]


def _nothing(video) -> list[np.ndarray]:
    """Label maps without an object."""
    return [np.zeros((video.info.height, video.info.width), np.uint8)] * video.info.frames


def _loudness_at(path, frequency: float) -> float:
    """Share of a frequency in the energy of the sound."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=44100)
        chunks = [out.to_ndarray() for sound in container.decode(audio=0) for out in resampler.resample(sound)]
    energy = np.abs(np.fft.rfft(np.concatenate(chunks, axis=1)[0])) ** 2
    bins = np.fft.rfftfreq(2 * (len(energy) - 1), 1 / 44100)
    return energy[np.abs(bins - frequency) < 20].sum() / energy.sum()


class TestVideoWriter:
    def test_colours_come_back_and_are_tagged(self, tmp_path):
        path = tmp_path / "v.mp4"
        with VideoWriter(path, 96, 64, fps=24) as writer:
            writer.write(patches())
        read = patch_colours(open_video(path).frame(0).image)
        assert np.abs(read.astype(int) - PATCHES).max() <= 5
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", BT709)

    @pytest.mark.parametrize("fps", [24, 29.97, Fraction(30000, 1001), 12.5])
    def test_fps(self, tmp_path, fps):
        path = tmp_path / "v.mp4"
        with VideoWriter(path, 96, 64, fps) as writer:
            for image in numbered(6):
                writer.write(image)
        frames = list(open_video(path).frames())
        assert [number_of(frame.image) for frame in frames] == list(range(6))
        assert frames[5].time == 5 / Fraction(fps).limit_denominator(100_000)

    def test_odd_sides_are_padded(self, tmp_path):
        image = np.zeros((33, 49, 3), np.uint8)
        image[:, 40:] = image[30:] = 200
        with VideoWriter(tmp_path / "v.mp4", 49, 33, fps=24) as writer:
            writer.write(image)
        read = open_video(tmp_path / "v.mp4").frame(0).image
        assert read.shape == (34, 50, 3)
        assert np.abs(read[33].astype(int) - 200).max() < 12
        assert np.abs(read[:33, :49].astype(int) - image).mean() < 3

    def test_index_stands_in_front(self, tmp_path):
        with VideoWriter(tmp_path / "v.mp4", 96, 64, fps=24) as writer:
            writer.write(patches())
        data = (tmp_path / "v.mp4").read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat")

    def test_a_failure_leaves_nothing_and_keeps_what_was_there(self, tmp_path):
        path = tmp_path / "v.mp4"
        path.write_bytes(b"before")
        labels = [np.zeros((64, 96), np.uint8), np.zeros((10, 10), np.uint8)]
        with pytest.raises(InputError, match="labels are 10x10"):
            write_overlay(open_video(numbered(2)), labels, path, COLOURS)
        assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("v.mp4", b"before")]

    def test_refusals(self, tmp_path):
        with pytest.raises(InputError, match="no frame was given"), VideoWriter(tmp_path / "a.mp4", 96, 64, 24):
            pass
        with pytest.raises(InputError, match="got 0"):
            VideoWriter(tmp_path / "a.mp4", 96, 64, 0)
        for name in ("a.xyz", "a.webm"):
            with (
                pytest.raises(OutputError, match="can be written to this kind of file"),
                VideoWriter(tmp_path / name, 96, 64, 24),
            ):
                pass
        with VideoWriter(tmp_path / "b.mp4", 96, 64, 24) as writer:
            writer.write(patches(), Fraction(1, 24))
            with pytest.raises(InputError, match="not after the previous one"):
                writer.write(patches(), Fraction(1, 24))
            with pytest.raises(InputError, match=r"frame 1 is an array of shape \(64, 90, 3\)"):
                writer.write(patches(90, 64))
        assert sorted(file.name for file in tmp_path.iterdir()) == ["b.mp4"]


class TestOverlay:
    @pytest.mark.parametrize("target", [".mp4", ".mov"])
    def test_a_file_is_as_long_as_its_last_frames_time_says(self, tmp_path, target):
        """A recording of a screen, on which nothing moves for seconds."""
        stamps = [0, 24, 48, 72, 96, 696, 1296, 1896]
        video = open_video(write_video(tmp_path / "in.mkv", numbered(8), stamps=stamps, time_base=Fraction(1, 600)))
        write_overlay(video, _nothing(video), tmp_path / f"out{target}", COLOURS)
        with av.open(str(tmp_path / f"out{target}")) as container:
            stream = container.streams.video[0]
            assert stream.duration * stream.time_base > Fraction(stamps[-1], 600)
            assert Fraction(container.duration, av.time_base) > Fraction(stamps[-1], 600)

    @pytest.mark.parametrize(("source", "target"), [(".mp4", ".mp4"), (".mkv", ".mp4"), (".mp4", ".mkv")])
    def test_varying_times_are_kept(self, tmp_path, source, target):
        path = write_video(
            tmp_path / f"in{source}", numbered(10), stamps=VARIABLE, time_base=Fraction(1, 600), sound="aac"
        )
        video = open_video(path)
        assert write_overlay(video, _nothing(video), tmp_path / f"out{target}", COLOURS) == 10
        written = list(open_video(tmp_path / f"out{target}").frames())
        assert [number_of(frame.image) for frame in written] == list(range(10))
        # Matroska knows milliseconds only, and no time before 0, where the sound of an MP4 begins.
        begin, finest = (written[0].time, Fraction(1, 1000)) if target == ".mkv" else (0, 0)
        assert begin < Fraction(1, 30)
        for frame, out in zip(video.frames(), written, strict=True):
            assert abs(frame.time - (out.time - begin)) <= finest

    def test_long_pauses_in_nanoseconds(self, tmp_path):
        """Of which MP4 cannot count more than two seconds."""
        path = write_video(tmp_path / "in.mkv", numbered(4), stamps=[0, 40, 9000, 9040], time_base=Fraction(1, 1000))
        video = open_video(path)
        frames = list(video.frames())
        video.time_base = Fraction(1, 10**9)  # as in files that count so
        with VideoWriter(tmp_path / "out.mp4", 96, 64, 24, like=video) as writer:
            for frame in frames:
                writer.write(frame.image, frame.time)
        times = [float(frame.time) for frame in open_video(tmp_path / "out.mp4").frames()]
        np.testing.assert_allclose(times, [0, 0.04, 9, 9.04], atol=1e-3)

    def test_masks_are_drawn(self, tmp_path):
        video = open_video([np.full((48, 64, 3), 100, np.uint8)] * 4)
        labels = np.zeros((48, 64), np.uint8)
        labels[8:40, 8:40] = 1
        write_overlay(video, [labels] * 4, tmp_path / "v.mp4", COLOURS, alpha=1.0)
        read = open_video(tmp_path / "v.mp4")
        assert read.info.fps == 25
        image = read.frame(3).image.astype(int)
        assert np.abs(image[16:32, 16:32] - (255, 0, 0)).max() < 10
        assert np.abs(image[:, 50:] - 100).max() < 10

    @pytest.mark.parametrize("alpha", ["x", None, np.ones(3), 1.5, float("nan")])
    def test_an_alpha_that_is_no_share_is_refused(self, tmp_path, alpha):
        video = open_video([np.zeros((48, 64, 3), np.uint8)])
        with pytest.raises(InputError, match=r"alpha must be a number in \[0, 1\], got "):
            write_overlay(video, _nothing(video), tmp_path / "v.mp4", COLOURS, alpha=alpha)
        assert not (tmp_path / "v.mp4").exists()

    @pytest.mark.parametrize(
        ("source", "codec", "written"),
        [(".mp4", "aac", "aac"), (".mkv", "flac", "flac"), (".ts", "aac", "aac"), (".avi", "adpcm_ms", "aac")],
    )
    def test_sound_is_copied_or_encoded_anew(self, tmp_path, source, codec, written):
        video_codec = "mpeg4" if source == ".avi" else "libx264"
        options = {"qscale": "2"} if source == ".avi" else None
        path = write_video(tmp_path / f"in{source}", numbered(24), codec=video_codec, sound=codec, options=options)
        video = open_video(path)
        assert video.info.has_audio
        write_overlay(video, _nothing(video), tmp_path / "out.mp4", COLOURS)
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream = container.streams.audio[0]
            assert stream.codec_context.name == written
            assert abs(float(stream.duration * stream.time_base) - 1.0) < 0.1
            assert abs(float(stream.start_time * stream.time_base)) < 0.05
        assert _loudness_at(tmp_path / "out.mp4", 440) > 0.9
        assert open_video(tmp_path / "out.mp4").info.frames == 24

    def test_a_source_that_begins_late_begins_at_once(self, tmp_path):
        video = open_video(write_video(tmp_path / "in.ts", numbered(6), stamps=range(48, 54)))
        assert video.start > 1
        write_overlay(video, _nothing(video), tmp_path / "out.mp4", COLOURS)
        for frame, out in zip(video.frames(), open_video(tmp_path / "out.mp4").frames(), strict=True):
            assert abs((frame.time - video.start) - out.time) < Fraction(1, 1000)

    def test_the_form_of_a_pixel_is_kept(self, tmp_path):
        video = open_video(write_video(tmp_path / "in.mp4", numbered(2)))
        video.pixel_aspect = Fraction(4, 3)  # as in DVs
        write_overlay(video, _nothing(video), tmp_path / "out.mp4", COLOURS)
        assert open_video(tmp_path / "out.mp4").pixel_aspect == Fraction(4, 3)

    def test_copied_sound_is_the_same_packets(self, tmp_path):
        path = write_video(tmp_path / "in.mp4", numbered(24), sound="aac")
        video = open_video(path)
        write_overlay(video, _nothing(video), tmp_path / "out.mp4", COLOURS)
        packets = []
        for file in (path, tmp_path / "out.mp4"):
            with av.open(str(file)) as container:
                packets.append([bytes(packet) for packet in container.demux(audio=0)])
        assert packets[0] == packets[1]
        assert len(packets[0]) > 40

    def test_label_maps_that_do_not_fit(self, tmp_path, caplog):
        video = open_video(numbered(4))
        with pytest.raises(InputError, match="more label maps than the 4 frames"):
            write_overlay(video, _nothing(video) * 2, tmp_path / "v.mp4", COLOURS)
        with pytest.raises(InputError, match="labels are 10x10"):
            write_overlay(video, [np.zeros((10, 10), np.uint8)], tmp_path / "v.mp4", COLOURS)
        assert not list(tmp_path.iterdir())
        with caplog.at_level(logging.INFO):
            assert write_overlay(video, _nothing(video)[:2], tmp_path / "v.mp4", COLOURS) == 2
        assert "after 2 of 4 frames" in caplog.text
        assert open_video(tmp_path / "v.mp4").info.frames == 2


def test_write_picture(tmp_path):
    write_picture(tmp_path / "a.png", patches())
    assert (np.array(Image.open(tmp_path / "a.png")) == patches()).all()
    with pytest.raises(OutputError, match=r"use .png or .jpg"):
        write_picture(tmp_path / "a.xyz", patches())


def test_a_contact_sheet_that_cannot_be_written_is_an_error(tmp_path):
    write_mask(tmp_path / "00000.png", np.ones((48, 64), np.uint8))
    video = open_video([np.full((48, 64, 3), 100, np.uint8)])
    write_contact_sheet(tmp_path / "sheet.png", video, [tmp_path / "00000.png"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        red, green, blue = np.moveaxis(np.array(sheet)[30:60, 30:60].astype(int), -1, 0)
    assert ((red > green) & (green == blue)).all()  # object 1 is red
    with pytest.raises(OutputError, match=r"use .png or .jpg"):
        write_contact_sheet(tmp_path / "sheet.xyz", video, [tmp_path / "00000.png"])


def test_sample_clip():
    clip = sample_clip()
    video = open_video(clip.path)
    assert (video.info.width, video.info.height, video.info.fps) == (854, 480, 24)
    assert video.info.frames == len(clip.annotations) == 80
    assert all(labels.shape == (480, 854) and labels.dtype == np.uint8 for labels in clip.annotations)
    assert all(set(np.unique(labels)) == {0, 1} for labels in clip.annotations)
    assert clip.path.stat().st_size < 1_500_000
