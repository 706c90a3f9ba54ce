"""`onemask export`: export a method's graphs, for programs without PyTorch."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .arguments import add_named_method, add_overwrite, named_method, short_side_of


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask export`."""
    export = commands.add_parser(
        "export",
        help="write a method as graphs for ONNX Runtime or OpenVINO",
        description="Write a method as graphs that run without onemask and PyTorch, a manifest that describes them, "
        "and a NumPy program that segments a video with them. Of methods that solve or sort depending on what a frame "
        "shows, only `encode` can be exported.",
    )
    add_named_method(export)
    export.add_argument("--out", required=True, metavar="DIR", help="folder for the graphs")
    export.add_argument(
        "--format", choices=["onnx", "openvino"], default="onnx", help="format of the graphs (default: onnx)"
    )
    export.add_argument(
        "--frame-size",
        default="480x854",
        metavar="HxW",
        help="height and width of frames (default: 480x854)",
    )
    export.add_argument(
        "--short-side",
        "--size",
        type=int,
        default=480,
        metavar="N",
        help="short side of the frames as the graphs see them, in pixels, as for `onemask run`; 0: their own size "
        "(default: 480)",
    )
    add_overwrite(export)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    from ..runtime.export import export

    height, by, width = options.frame_size.partition("x")
    if not by or not height.isdecimal() or not width.isdecimal() or not int(height) or not int(width):
        raise InputError(f"--frame-size must be HEIGHTxWIDTH in pixels, such as 480x854, got {options.frame_size!r}")
    made = export(
        named_method(options),
        options.out,
        name=options.method,
        frame_size=(int(height), int(width)),
        format=options.format,
        short_side=short_side_of(options),
        overwrite=options.overwrite,
    )
    options.answer = {"files": made.files, "missing": made.missing}
    for kind, path in made.files.items():
        print(f"{kind:14} {path}")
    if made.missing is not None:
        print(f"memorize, segment and update were not exported: {made.missing}")
