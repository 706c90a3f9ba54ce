"""`onemask export-masks`: export a finished run to the formats of other tools."""

from __future__ import annotations

import argparse

from .arguments import add_overwrite, listed


def add_export_masks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask export-masks`."""
    from ..exports.formats import FORMATS

    export = commands.add_parser(
        "export-masks",
        help="write the masks of a finished run in the format of another tool",
        description="Write the masks of a finished run in the format of another tool. `onemask run --save` takes the "
        "same names.",
        epilog="formats:\n" + "\n".join(f"  {name:14} {entry.summary}" for name, entry in FORMATS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("result", metavar="RESULT", help="folder of a finished run, or a folder of label maps as PNG")
    export.add_argument("--to", required=True, metavar="FORMAT", help="see below")
    export.add_argument(
        "--out", required=True, metavar="PATH", help="the file or folder to write; a file without a suffix gets one"
    )
    export.add_argument("--video", metavar="INPUT", help="the video (default: where the run found it)")
    export.add_argument("--objects", type=_ids, metavar="ID,ID", help="only these objects (default: all)")
    add_matte(export)
    export.add_argument(
        "--every", type=int, default=5, metavar="N", help="youtube-vos: write every N-th frame (default: 5)"
    )
    export.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="PIXELS",
        help="polygons: how far outlines may deviate from the masks' (default: 1)",
    )
    export.add_argument(
        "--image-prefix", default="", metavar="TEXT", help="label-studio: prefix of the pictures' names"
    )
    add_overwrite(export)
    export.set_defaults(command=_export_masks)


def add_matte(parser: argparse.ArgumentParser) -> None:
    """Add --matte."""
    parser.add_argument(
        "--matte",
        choices=["none", "guided", "closed-form"],
        default="none",
        help="soften edges to follow the picture, in alpha, alpha16, exr, prores and webm: guided (a guided filter, "
        "fast) or closed-form (hair and motion blur, slow; needs the extra `matte`) (default: none)",
    )


def _export_masks(options: argparse.Namespace) -> None:
    from ..exports.exporting import export
    from ..exports.target import ExportOptions

    chosen = ExportOptions(options.objects, options.matte, options.every, options.tolerance, options.image_prefix)
    made = export(options.result, options.out, options.to, chosen, video=options.video, overwrite=options.overwrite)
    options.answer = {"format": options.to, "out": str(made)}
    print(f"{options.to} written to {made}")


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, listed(text)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected ids, such as 1,7, got {text!r}") from None
