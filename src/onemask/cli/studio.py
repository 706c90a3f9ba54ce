"""`onemask studio`: the browser application."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from ..errors import InputError
from ..methods import DEFAULT
from .arguments import add_running


def add_studio(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask studio`: a video in, a browser window out."""
    studio = commands.add_parser(
        "studio",
        help="segment a video in the browser: draw, propagate, correct, export",
        description="Open a local web application: mark an object in a frame, propagate it, correct frames, export. "
        "Everything is kept in a project folder, and can be gone on with at any time. Needs the extra [studio].",
    )
    studio.add_argument(
        "video",
        nargs="?",
        metavar="VIDEO",
        help="a video file or a folder of images (default: that of the project, or the clip that ships)",
    )
    studio.add_argument("--project", metavar="DIR", help="the project's folder (default: VIDEO's name and .studio)")
    studio.add_argument("--no-browser", action="store_true", help="only print the address")
    studio.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1, this machine alone); anywhere else, put a proxy with TLS before it",
    )
    studio.add_argument("--port", type=int, default=0, metavar="N", help="where to listen (default: a free one)")
    studio.add_argument(
        "--token", metavar="TEXT", help="what the address must carry, 16 characters or more (default: a new random one)"
    )
    studio.add_argument(
        "--largest-upload",
        type=int,
        default=512,
        metavar="MIB",
        help="how large a video may be that is opened from the page (default: 512); VIDEO may be larger",
    )
    group = studio.add_argument_group("method", "of a new project; in the page another one can be chosen")
    group.add_argument("--method", default=DEFAULT, help=f"see `onemask methods` (default: {DEFAULT})")
    add_running(group)
    studio.set_defaults(command=_studio)


def _studio(options: argparse.Namespace) -> None:
    from ..extras import how_to_install

    if options.largest_upload < 1:
        raise InputError(f"--largest-upload is 1 MiB or more, got {options.largest_upload}")

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
        MethodChoice(**chosen | {"short_side": options.short_side or None}),
        host=options.host,
        port=options.port,
        token=options.token,
        largest_upload=options.largest_upload * 2**20,
        say=lambda line: print(line, flush=True),
        browse=not options.no_browser,
    )
