"""`onemask studio`: the browser application."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from ..errors import InputError
from ..methods import DEFAULT
from .arguments import add_running, short_side_of


def add_studio(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask studio`: open a video in the browser application."""
    studio = commands.add_parser(
        "studio",
        help="segment a video in the browser: draw, propagate, correct, export",
        description="Open a local web application: mark an object in a frame, propagate it, correct frames, export. "
        "Everything is kept in a project folder, so you can continue at any time. Needs the extra `studio`.",
    )
    studio.add_argument(
        "video",
        nargs="?",
        metavar="VIDEO",
        help="a video file or a folder of images (default: the project's, or the clip that ships with onemask)",
    )
    studio.add_argument("--project", metavar="DIR", help="the project's folder (default: VIDEO's name with .studio)")
    studio.add_argument("--no-browser", action="store_true", help="only print the address")
    studio.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, only this machine); with any other, put a TLS proxy in front",
    )
    studio.add_argument("--port", type=int, default=0, metavar="N", help="port to listen on (default: a free one)")
    studio.add_argument(
        "--token", metavar="TEXT", help="access token in the address, 16 characters or more (default: a new random one)"
    )
    studio.add_argument(
        "--largest-upload",
        type=int,
        default=512,
        metavar="MIB",
        help="largest video that can be opened from the page (default: 512); VIDEO may be larger",
    )
    group = studio.add_argument_group("method", "for a new project; it can be changed in the page")
    group.add_argument("--method", default=DEFAULT, help=f"see `onemask methods` (default: {DEFAULT})")
    add_running(group)
    studio.set_defaults(command=_studio)


def _studio(options: argparse.Namespace) -> None:
    from ..extras import how_to_install

    if options.largest_upload < 1:
        raise InputError(f"--largest-upload must be 1 MiB or more, got {options.largest_upload}")

    try:
        from ..studio.serve import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "onemask":
            raise
        raise InputError(
            f"the studio needs the package {error.name}, which is not installed: {how_to_install('studio')}"
        ) from error
    from ..studio.project import MethodChoice

    chosen = {setting.name: getattr(options, setting.name) for setting in fields(MethodChoice)}
    serve(
        options.video,
        None if options.project is None else Path(options.project),
        MethodChoice(**chosen | {"short_side": short_side_of(options)}),
        host=options.host,
        port=options.port,
        token=options.token,
        largest_upload=options.largest_upload * 2**20,
        say=lambda line: print(line, flush=True),
        browse=not options.no_browser,
    )
