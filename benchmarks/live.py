"""Latency of `onemask live`: the clip that ships, looped, as a broadcast over HTTP on this machine's own address.

The clip runs forward and backward, so that nothing jumps, as MPEG-TS at its own pace. With --break-off the server ends
each connection after so many seconds. Prints the report, and writes what was seen.

    python benchmarks/live.py [--method ttvos-lite] [--size 240] [--seconds 60] [--break-off 20] [--record seen.mkv]
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import threading
import time
from dataclasses import asdict
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import cv2
import numpy as np

from onemask import keep_freed_memory
from onemask.live import Event, Live, follow
from onemask.live.stream import Stream
from onemask.settings import Settings
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip

PIECES = 20  # a second


def broadcast(rate: Fraction) -> tuple[bytes, float]:
    """The clip forward and backward as MPEG-TS, and its seconds."""
    pictures = [frame.image for frame in open_video(sample_clip().path).frames()]
    pictures += pictures[-2:0:-1]
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": "20", "preset": "fast", "tune": "zerolatency"}
        )
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue(), float(len(pictures) / rate)


def serve(data: bytes, seconds: float, break_off: float | None) -> ThreadingHTTPServer:
    """Serve the broadcast, looped, at its own pace."""
    size = int(len(data) / seconds / PIECES) + 1

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            began = time.monotonic()
            for number in itertools.count():
                due = number / PIECES
                if break_off is not None and due > break_off:
                    return
                time.sleep(max(0.0, began + due - time.monotonic()))
                start = number * size % len(data)
                try:
                    self.wfile.write(data[start : start + size])
                except OSError:
                    return

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def show(event: Event) -> None:
    print(json.dumps(event.to_json()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--rate", type=Fraction, default=Fraction(12), help="frames a second (default: 12)")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--break-off", type=float)
    parser.add_argument("--record")
    options = parser.parse_args()
    keep_freed_memory()
    data, seconds = broadcast(options.rate)
    server = serve(data, seconds, options.break_off)
    session = Settings(method=options.method, short_side=options.size, device="cpu").session()
    first, annotated = open_video(sample_clip().path).frame(0).image, sample_clip().annotations[0]

    def given(image: np.ndarray) -> np.ndarray:
        """The clip's first mask: the broadcast begins with its first frame."""
        assert cv2.absdiff(image, first).mean() < 5
        return annotated

    live = Live(Stream(f"http://127.0.0.1:{server.server_port}/"), given, session, told=show)
    print(asdict(follow(live, record=options.record, seconds=options.seconds, overwrite=True)))


if __name__ == "__main__":
    main()
