"""`onemask review`: list the most doubtful frames of a finished run."""

from __future__ import annotations

import argparse

from .arguments import add_overwrite


def add_review(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask review`."""
    review = commands.add_parser(
        "review",
        help="list the most doubtful frames of a finished run",
        description="List the frames of a finished run in which an object looks wrong, worst first: low confidence, a "
        "jump in area or position, more parts, touching another object, lost or found again. Correct one and run "
        "again with --mask FRAME:FILE and --reuse RESULT.",
    )
    review.add_argument("result", metavar="RESULT", help="folder of a finished run, or a folder of label maps as PNG")
    review.add_argument("--video", metavar="INPUT", help="the video, for --sheet (default: where the run found it)")
    review.add_argument("--limit", type=int, default=12, metavar="N", help="list at most N frames (default: 12)")
    review.add_argument(
        "--apart",
        type=int,
        default=5,
        metavar="N",
        help="of frames less than N apart, list only the worst (default: 5)",
    )
    review.add_argument("--sheet", metavar="FILE", help="write a contact sheet of these frames, .png or .jpg")
    add_overwrite(review)
    review.set_defaults(command=_review)


def _review(options: argparse.Namespace) -> None:
    from ..exports.result import Result
    from ..files import refuse_existing
    from ..jobs.reviewing import review, write_review_sheet
    from ..video.writer import require_picture_suffix

    if options.sheet:
        require_picture_suffix(options.sheet)
        refuse_existing(options.sheet, options.overwrite)
    result = Result.open(options.result, options.video)
    frames = review(result, limit=options.limit, apart=options.apart)
    if options.sheet and frames:
        write_review_sheet(result, frames, options.sheet)
    options.answer = [frame.to_json() for frame in frames]
    if not frames:
        print("no frame is doubtful" + (f", so {options.sheet} is not written" if options.sheet else ""))
    for frame in frames:
        why = "; ".join(f"object {doubt.object} {doubt.detail}" for doubt in frame.doubts)
        print(f"frame {frame.frame:6} ({frame.name})  {frame.weight:.2f}  {why}")
    if options.sheet and frames:
        print(f"these frames are in {options.sheet}")
