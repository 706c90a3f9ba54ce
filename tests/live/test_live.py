import io
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image

from onemask.cli import main
from onemask.errors import InputError, OnemaskError
from onemask.live import Live, follow
from onemask.live.mjpeg import MjpegServer
from onemask.live.stream import LiveFrame, Stream
from onemask.live.window import Window
from onemask.methods.method import Features, Memory, Prediction
from onemask.session import Session
from onemask.video.label_maps import read_label_map, write_mask
from onemask.video.reader import open_video
from videos import Scene, Still, write_video


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=12)


@pytest.fixture(scope="module")
def server(scene, tmp_path_factory):
    """Serves scene.mkv, which says how long it is, and endless.ts, a broadcast that breaks off after 12 frames."""
    folder = tmp_path_factory.mktemp("served")
    files = {f"/{name}": write_video(folder / name, scene.images) for name in ("scene.mkv", "endless.ts")}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in files or closed.is_set():
                self.send_error(404)
                return
            data = files[self.path].read_bytes()
            self.send_response(200)
            if self.path == "/scene.mkv":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    closed = threading.Event()
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True).start()
    served.address, served.closed = f"http://127.0.0.1:{served.server_port}", closed
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("onemask.live.stream.FIRST_PAUSE", 0.01)


def still() -> Session:
    return Session(Still(), short_side=None, device="cpu")


# Streams -------------------------------------------------------------------------------------------------------------


def test_frames_that_nobody_takes_in_time_are_dropped_and_counted(scene, server):
    with Stream(f"{server.address}/scene.mkv", queue=2) as stream:
        frames = iter(stream)
        taken = [next(frames)]
        stream._thread.join()  # all have come meanwhile
        taken += frames
    assert [frame.index for frame in taken[1:]] == [10, 11]  # the newest
    assert stream.arrived == 12
    assert stream.dropped == 12 - len(taken)
    assert np.abs(taken[-1].image.astype(int) - scene.images[11]).mean() < 3
    assert sorted(frame.arrived for frame in taken) == [frame.arrived for frame in taken]


def test_a_stream_that_breaks_off_is_connected_to_again(server):
    told = []
    with Stream(f"{server.address}/endless.ts", queue=99, retries=1, told=told.append) as stream:
        frames = iter(stream)
        for _ in range(20):  # more than there are in one connection
            next(frames)
        server.closed.set()
        with pytest.raises(OnemaskError, match="gave up after 1 attempts to reconnect"):
            list(frames)
    server.closed.clear()
    assert stream.reconnections >= 1
    assert [now.connected for now in told][:3] == [False, True, False]


def test_a_camera(monkeypatch):
    class Camera:
        left = 3

        def __init__(self, number: int):
            assert number == 7

        def isOpened(self) -> bool:
            return True

        def read(self):
            self.left -= 1
            return self.left >= 0, np.full((4, 6, 3), (255, 0, 9), np.uint8)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    with Stream("/dev/video7", queue=9, retries=0) as stream:
        assert len([next(iter(stream)) for _ in range(3)]) == 3
    with Stream("7", queue=9, retries=0) as stream:
        frames = iter(stream)
        assert [next(frames).image[0, 0].tolist() for _ in range(3)] == [[9, 0, 255]] * 3  # BGR to RGB
        with pytest.raises(OnemaskError, match="delivers no frames"):
            next(frames)


def written_into(pipe: Path, data: bytes) -> threading.Thread:
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    return writer


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["scene.mkv", "scene.ts"])
def test_a_named_pipe_ends_with_its_writer(scene, tmp_path, name):
    writer = written_into(tmp_path / "pipe", write_video(tmp_path / name, scene.images).read_bytes())
    with Stream(str(tmp_path / "pipe"), queue=99) as stream:
        frames = list(stream)
    writer.join()
    assert [frame.index for frame in frames] == list(range(12))
    assert np.abs(frames[-1].image.astype(int) - scene.images[11]).mean() < 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_without_a_video_and_one_that_would_be_read_twice(tmp_path):
    writer = written_into(tmp_path / "pipe", b"no video " * 1000)
    with (
        pytest.raises(InputError, match=r"no video could be read from the pipe.*MPEG-TS"),
        Stream(tmp_path / "pipe") as s,
    ):
        list(s)
    writer.join()
    for source in (tmp_path / "pipe", str(tmp_path / "pipe")):
        with pytest.raises(InputError, match="can be read only once; write the video to a file first"):
            open_video(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_of_several_streams_in_a_pipe_the_one_is_read_that_a_file_is_read_from(scene, tmp_path):
    """The second, which is marked as the default."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=24, options={"crf": "12", "g": "1"}) for _ in range(2)]
        for stream, disposition in zip(streams, (Disposition(0), Disposition.default), strict=True):
            stream.height, stream.width, stream.pix_fmt = *scene.images.shape[1:3], "yuv420p"
            stream.disposition = disposition
        for number, image in enumerate(scene.images):
            for stream, shown in zip(streams, (np.zeros_like(image), image), strict=True):
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    writer = written_into(tmp_path / "pipe", path.read_bytes())
    with Stream(str(tmp_path / "pipe"), queue=99) as stream:
        frames = list(stream)
    writer.join()
    in_file = list(open_video(path).frames())
    assert [np.array_equal(a.image, b.image) for a, b in zip(frames, in_file, strict=True)] == [True] * 12


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_that_ends_before_its_first_frame(scene, tmp_path):
    data = write_video(tmp_path / "scene.mkv", scene.images).read_bytes()
    writer = written_into(tmp_path / "pipe", data[: data.index(b"\x1f\x43\xb6\x75") + 200])  # in the first cluster
    with pytest.raises(InputError, match="ended before a frame could be decoded"), Stream(tmp_path / "pipe") as s:
        list(s)
    writer.join()


def test_standard_input(scene, tmp_path, stub):
    video = write_video(tmp_path / "scene.ts", scene.images)
    write_mask(tmp_path / "mask.png", scene.labels[0])
    command = [sys.executable, "-c", "from onemask.cli import main; raise SystemExit(main())", "live", "-"]
    command += ["--mask", str(tmp_path / "mask.png"), "--preview", "none", "--device", "cpu", "--queue", "99"]
    done = subprocess.run(command, stdin=video.open("rb"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout.splitlines()[-1])
    assert (ended["event"], ended["arrived"], ended["segmented"]) == ("ended", 12, 12)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("missing.mp4", {}, "does not exist; expected the number of a camera.* or - for standard input"),
        ("ftp://camera/stream", {}, "expected one of rtsp"),
        ("http://127.0.0.1:9/", {}, "could not be opened"),
        ("99999999999999999999", {}, "there is no camera 99999999999999999999"),
        (".", {}, "is a folder, which is not live"),
        ("http://[camera/stream", {}, "is not an address"),
        (None, {}, "None is no source; expected the number of a camera"),
        (0, {"queue": 0}, "queue must be 1 or more"),
        (0, {"queue": 10**20}, "queue must be 1 or more, and at most"),
        (0, {"queue": "1"}, "both whole numbers; got '1' and None"),
        (0, {"queue": 1.5}, "both whole numbers; got 1.5 and None"),
        (0, {"queue": True}, "both whole numbers; got True and None"),
        (0, {"retries": False}, "both whole numbers; got 1 and False"),
        (0, {"retries": -1}, "retries 0 or more"),
        (0, {"retries": "1"}, "both whole numbers; got 1 and '1'"),
    ],
)
def test_streams_that_cannot_be(source, options, message):
    with pytest.raises(InputError, match=message), Stream(source, **options) as stream:
        list(stream)


# Objects -------------------------------------------------------------------------------------------------------------


class InTheLight(Still):
    """Finds its object where it was annotated, unless the frame is dark."""

    def segment(self, features: Features, memory: Memory) -> Prediction:
        logits = super().segment(features, memory).logits
        return Prediction(logits if features.frames.mean() > 0.1 else torch.full_like(logits, -9.0))


class Scripted(Stream):
    """Pictures one after another, the first of them until it is learned."""

    def __init__(self, images, session: Session):
        super().__init__("0")
        self._images, self._session = images, session

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __iter__(self):
        while not self._session.objects:
            yield LiveFrame(0, self._images[0], 0.0)
        for index, image in enumerate(self._images):
            yield LiveFrame(index, image, float(index))


@pytest.mark.parametrize(
    ("session", "options", "message"),
    [
        (None, {}, "a stream needs an onemask.Session, got NoneType"),
        (Still(), {}, "a stream needs an onemask.Session, got Still"),
        (Session(Still(), device="cpu"), {"patience": "3"}, "patience must be a number of frames, 1 or more, got '3'"),
    ],
)
def test_what_cannot_follow_a_stream_is_refused(session, options, message):
    with pytest.raises(InputError, match=message):
        Live(0, np.ones((4, 4), np.uint8), session, **options)


class Short(Scripted):
    """Pictures one after another, whether something is learned or not."""

    def __iter__(self):
        for index, image in enumerate(self._images):
            yield LiveFrame(index, image, float(index))


def test_what_happens_to_an_object_is_told(scene):
    images = np.repeat(scene.images[:1], 12, 0)
    images[3] = images[6:10] = 0  # dark for one frame, and for four
    session, told = Session(InTheLight(), short_side=None, device="cpu"), []
    with Live(Scripted(images, session), scene.labels[0], session, patience=2, told=told.append) as live:
        found = list(live)
    assert [(event.event, event.frame) for event in told if event.event != "doubtful"] == [
        ("following", 0),
        ("lost", 7),
        ("found", 10),
    ]
    assert all(event.object == 1 for event in told)
    assert told[-1].box is not None
    assert (found[-1].label_map == scene.labels[0]).all()
    assert [event for labels in found for event in labels.events] == told


def test_a_doubt_is_told_once_until_it_has_been_quiet(scene):
    class Shrinks(Still):
        def segment(self, features: Features, memory: Memory) -> Prediction:
            logits = super().segment(features, memory).logits
            bright = features.frames.mean() > 0.5
            return Prediction(logits - 9 * (torch.arange(logits.shape[-1]) < 45) if bright else logits)

    images = np.repeat(scene.images[:1], 34, 0)
    images[5] = images[7] = images[30] = 255
    session, told = Session(Shrinks(), short_side=None, device="cpu"), []
    with Live(Scripted(images, session), scene.labels[0], session, told=told.append) as live:
        list(live)
    doubts = [(event.frame, event.reason) for event in told if event.event == "doubtful"]
    assert [frame for frame, _ in doubts] == [5, 30]
    assert doubts[0][1] in ("area", "jump")
    assert "doubtful" in told[-1].to_json().values()


def test_a_slow_method_makes_no_frame_late(scene, server):
    class Slow(Still):
        def segment(self, features: Features, memory: Memory) -> Prediction:
            seen = stream.arrived
            while stream.arrived < seen + 3 and stream._thread.is_alive():
                stream._thread.join(0.001)
            return super().segment(features, memory)

    session = Session(Slow(), short_side=None, device="cpu")
    stream = Stream(f"{server.address}/endless.ts", told=lambda now: None)
    newest = []
    with Live(stream, lambda image: scene.labels[0], session) as live:
        for found in live:
            newest.append(found.index)
            if found.label_map.any() and live.report.dropped > 10:
                break
        report = live.report
    assert report.segmented == len(newest)
    assert 0 < report.followed <= report.segmented
    assert report.arrived >= report.segmented + report.dropped  # one may be waiting
    assert newest == sorted(set(newest))
    assert 0 < report.latency_median <= report.latency_worst


def test_a_stream_that_ends_before_an_object_is_learned_says_so(scene, caplog):
    learned = threading.Event()

    def marked(image: np.ndarray) -> np.ndarray:
        assert learned.wait(60)
        return scene.labels[0]

    session = still()
    with Live(Short(scene.images, session), marked, session) as live:
        frames = iter(live)
        shown = [next(frames).label_map.any() for _ in scene.images]
        learned.set()
        assert next(frames, None) is None
    assert not any(shown)
    assert (live.report.segmented, live.report.followed, live.report.latency_median) == (12, 0, None)
    assert "ended before an object was learned" in caplog.text


def test_a_label_map_that_does_not_fit_ends_it(scene, server):
    with (
        Live(Stream(f"{server.address}/endless.ts"), scene.labels[0][:-1], still()) as live,
        pytest.raises(InputError, match="label map is 95x128 but the frame is 96x128"),
    ):
        list(live)


# Previews ------------------------------------------------------------------------------------------------------------


def test_a_browser_sees_the_newest_picture(scene):
    with MjpegServer() as shown:
        assert shown.show(scene.images[0])
        assert shown.show(scene.images[5])
        with urllib.request.urlopen(f"{shown.address}frame") as answer:
            picture = np.asarray(Image.open(io.BytesIO(answer.read())))
        assert np.abs(picture.astype(int) - scene.images[5]).mean() < 5
        with urllib.request.urlopen(f"{shown.address}stream") as answer:
            assert answer.headers.get_content_type() == "multipart/x-mixed-replace"
            assert answer.readline() == b"--onemask\r\n"
            assert answer.readline() == b"Content-Type: image/jpeg\r\n"
        for request, code in (
            (f"{shown.address}else", 404),
            (urllib.request.Request(shown.address, headers={"Host": "elsewhere.example"}), 421),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)
            assert refused.value.code == code
        with pytest.raises(InputError, match="cannot be used"):
            MjpegServer(int(shown.address.rstrip("/").rpartition(":")[2]))


def test_a_window(scene, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with Window() as window:
        assert window.show(scene.images[0])
        drawn = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
        assert (drawn == scene.images[0]).all()
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert not window.show(scene.images[0])


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command(scene, server, stub, tmp_path, capsys, monkeypatch):
    def show(preview: MjpegServer, picture: np.ndarray) -> bool:
        return not any(read_label_map(path).any() for path in masks.iterdir())  # until the object is followed

    monkeypatch.setattr(MjpegServer, "show", show)
    write_mask(tmp_path / "mask.png", scene.labels[0])
    record, masks = tmp_path / "seen.mkv", tmp_path / "masks"
    arguments = ["live", f"{server.address}/endless.ts", "--mask", str(tmp_path / "mask.png"), "--method", stub]
    arguments += ["--device", "cpu", "--preview"]
    written = ["--record", str(record), "--masks-out", str(masks), "--hls", str(tmp_path / "hls")]
    assert main([*arguments, "http", "--seconds", "600", *written]) == 0
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert {event["event"] for event in events} >= {"following"}
    assert "preview: http://127.0.0.1:" in printed.err
    assert "latency: median" in printed.err
    assert open_video(record).info.frames == len(list(masks.iterdir()))
    assert read_label_map(max(masks.iterdir())).shape == scene.labels[0].shape
    sent = open_video(tmp_path / "hls" / "live000000.ts").frame(0).image
    assert np.abs(sent.astype(int) - open_video(record).frame(0).image).mean() < 3
    for more, message in (
        (["--record", str(record)], "exists already"),
        (["--masks-out", str(masks)], "exists already"),
        (["--hls", str(tmp_path / "hls")], "already holds a stream"),
        (["--seconds", "0"], "seconds must be above 0"),
        (["--patience", "0"], "patience must be a number of frames"),
        (["--preview", "http", "--port", "99999"], "port 99999"),
        (["--click", "2@5000,5"], "outside the frame"),
    ):
        assert main([*arguments, "none", *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["live", "0"]) == 2
    assert "no object is given" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("piped", [True, False])
def test_frames_that_change_their_size(scene, stub, tmp_path, capsys, piped):
    smaller = np.ascontiguousarray(scene.images[:, 16:, 32:])
    parts = [write_video(tmp_path / f"{n}.ts", images) for n, images in enumerate((scene.images, smaller))]
    source, data = tmp_path / "both.ts", b"".join(part.read_bytes() for part in parts)
    if piped:
        written_into(source, data)
    else:
        source.write_bytes(data)
    write_mask(tmp_path / "mask.png", scene.labels[0])
    record, masks = tmp_path / "seen.mkv", tmp_path / "masks"
    words = ["live", str(source), "--mask", str(tmp_path / "mask.png"), "--method", stub, "--device", "cpu"]
    words += ["--preview", "none", "--queue", "99", "--record", str(record), "--masks-out", str(masks)]
    assert main(words) == 2
    printed = capsys.readouterr()
    height, width = scene.images.shape[1:3]
    assert f"{width - 32}x{height - 16}" in printed.err.splitlines()[-1]
    assert f"{width}x{height}" in printed.err.splitlines()[-1]
    ended = json.loads(printed.out.splitlines()[-1])
    assert (ended["event"], ended["segmented"]) == ("ended", 12)
    assert open_video(record).info.frames == len(list(masks.iterdir())) == 12


def test_following_ends_with_the_preview(scene, server):
    class Closed:
        def show(self, picture: np.ndarray) -> bool:
            assert picture.shape == scene.images[0].shape
            return False

    live = Live(Stream(f"{server.address}/endless.ts"), scene.labels[0], still())
    assert follow(live, preview=Closed()).segmented == 1
