"""`onemask live`: follow objects in a live stream."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, TextIO

from ..errors import InputError, OnemaskError
from .arguments import add_method, add_overwrite, settings_of
from .given import add_masks, annotations_of

if TYPE_CHECKING:
    import numpy as np

    from ..live import Event, LiveReport
    from ..live.output import Preview

METHOD = "ttvos-lite"  # the fastest method, which fits nothing to an object


def add_live(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask live`."""
    live = commands.add_parser(
        "live",
        help="follow objects in a camera, a network stream, a pipe, or a file in real time",
        description="Follow objects in a stream. The newest frame is always segmented next; frames that arrive "
        "meanwhile are dropped and counted. Masks and marks apply to the first frame that arrives. Standard output "
        "has one line of JSON per event: an object is followed, lost, found or doubtful; the stream was disconnected "
        "or is connected again. It stops at the end of the source, after --seconds, on Ctrl-C, or when the window is "
        "closed.",
    )
    live.add_argument(
        "source",
        metavar="SOURCE",
        help="camera number (0), an address (rtsp, rtmp, http, https, udp, tcp, srt), a video file, a named pipe, or "
        "- for standard input",
    )
    add_masks(live)
    live.add_argument(
        "--preview",
        choices=["auto", "window", "http", "none"],
        default="auto",
        help="a window (needs the extra `preview`), or MJPEG over HTTP for a browser on this machine; auto: a window "
        "if there is a screen, else HTTP (default: auto)",
    )
    live.add_argument("--port", type=int, default=0, metavar="N", help="port of the HTTP preview (default: a free one)")
    live.add_argument(
        "--record", metavar="FILE", help="write the frames with their objects drawn as a video: .mkv or .mp4"
    )
    live.add_argument(
        "--hls",
        metavar="DIR",
        help="write the frames with their objects drawn as HTTP Live Streaming: live.m3u8 and the segments of the "
        "last seconds, for a web server",
    )
    live.add_argument("--masks-out", metavar="DIR", help="write the label map of each segmented frame as PNG")
    live.add_argument("--seconds", type=float, metavar="N", help="stop N seconds after the first frame")
    live.add_argument(
        "--queue", type=int, default=1, metavar="N", help="how many frames may wait; 1: always the newest (default: 1)"
    )
    live.add_argument(
        "--retries",
        type=int,
        metavar="N",
        help="attempts in a row to reconnect to a stream (default: unlimited)",
    )
    live.add_argument(
        "--patience",
        type=int,
        default=3,
        metavar="N",
        help="frames in a row without an object until it counts as lost (default: 3)",
    )
    add_method(live, default=METHOD)
    add_overwrite(live)
    live.set_defaults(command=_live)


def _live(options: argparse.Namespace) -> None:
    from ..live import Live, Stream, follow

    out = sys.stdout

    def tell(event: Event) -> None:
        print(json.dumps(event.to_json()), file=out, flush=True)

    if not (options.mask or options.box or options.click or options.scribble):
        raise InputError("no object is given; pass --mask FILE, or mark one with --box, --click or --scribble")
    stream = Stream(options.source, queue=options.queue, retries=options.retries)
    live = Live(
        stream, partial(_label_map, options), settings_of(options).session(), patience=options.patience, told=tell
    )
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))  # standard output is for events only
        preview = _preview(options, stack)
        try:
            follow(
                live,
                preview=preview,
                record=options.record,
                masks=options.masks_out,
                hls=options.hls,
                seconds=options.seconds,
                overwrite=options.overwrite,
            )
        except OnemaskError:
            if live.report.segmented:
                _tell_end(live.report, out)
            raise
        _tell_end(live.report, out)
        print(_summary(live.report))


def _label_map(options: argparse.Namespace, image: np.ndarray) -> np.ndarray:
    """Return the label map of the first frame."""
    from ..video.reader import open_video

    annotations = annotations_of(options, open_video([image]))
    if wrong := [index for index in annotations if index]:
        raise InputError(f"frame {wrong[0]} is annotated; in a stream only the first frame, 0, can be")
    return annotations[0].label_map


def _preview(options: argparse.Namespace, stack: ExitStack) -> Preview | None:
    from ..live.mjpeg import MjpegServer
    from ..live.window import Window

    if options.preview == "none":
        return None
    if options.preview in ("auto", "window"):
        try:
            return stack.enter_context(Window(f"onemask live {options.source}"))
        except InputError:
            if options.preview == "window":
                raise
    server = stack.enter_context(MjpegServer(options.port))
    print(f"preview: {server.address}", flush=True)
    return server


def _tell_end(report: LiveReport, out: TextIO) -> None:
    print(json.dumps({"event": "ended", **asdict(report)}), file=out, flush=True)


def _summary(report: LiveReport) -> str:
    if not report.segmented:
        return "no frame arrived"
    before = report.segmented - report.followed
    parts = [
        f"{report.arrived} frames in {report.seconds:.1f} s",
        f"{report.segmented} segmented" + (f" ({before} before an object was learned)" if before else ""),
        f"{report.dropped} dropped",
    ]
    if report.reconnections:
        parts.append(f"reconnections: {report.reconnections}")
    told = ", ".join(parts)
    if report.latency_median is None or report.latency_worst is None:
        return told
    return f"{told}; latency: median {1000 * report.latency_median:.0f} ms, worst {1000 * report.latency_worst:.0f} ms"
