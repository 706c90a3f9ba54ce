"""`onemask run`, `onemask demo` and `onemask explain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_method, add_overwrite, add_resume, listed, print_files, settings_of, show
from .exporting import add_matte
from .given import add_input, annotations_of

if TYPE_CHECKING:
    from ..jobs.run_folder import RunReport
    from ..video.sample import SampleClip


def add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask run`: segment a video from masks of some of its frames, into a folder of results."""
    run = commands.add_parser(
        "run", help="segment a video", description="Segment a video, given the mask of one frame or of several."
    )
    add_input(run)
    run.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    run.add_argument(
        "--save",
        type=listed,
        action="extend",
        metavar="KINDS",
        help="results to write: any of masks,overlay,contact-sheet (default: all three), and the formats listed by "
        "`onemask export-masks --help`",
    )
    add_matte(run)
    run.add_argument(
        "--direction",
        choices=["both", "forward"],
        default="both",
        help="track objects from their masks in both directions, or only forward (default: both)",
    )
    run.add_argument(
        "--reuse",
        metavar="DIR",
        help="a finished run of the same video with some of these masks: frames that the other masks do not affect "
        "are taken from it, and the result is the same",
    )
    add_method(run)
    add_resume(run)
    add_overwrite(run)
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    from ..exports.target import ExportOptions
    from ..jobs.running import SAVED, refuse_taken, run
    from ..video.reader import open_video

    video = open_video(options.input)
    refuse_taken(options.out, overwrite=options.overwrite, resume=options.resume)  # first masks may take long
    settings = settings_of(options)
    annotations = annotations_of(options, video)
    report = run(
        video,
        annotations,
        options.out,
        settings,
        direction=options.direction,
        save=SAVED if options.save is None else options.save,
        export_options=ExportOptions(matte=options.matte),
        overwrite=options.overwrite,
        resume=options.resume,
        reuse=options.reuse,
        progress=show,
    )
    options.answer = _as_answer(options.out, report)
    if options.reuse and report.frames_done_now:
        print(f"{_frames(report.frames_done_now)} recomputed, {report.frames - report.frames_done_now} kept")
    _print_report(options.out, report)


def _as_answer(out: str, report: RunReport) -> dict[str, Any]:
    """Convert the result of a run to its machine-readable form."""
    done = {"frames": report.frames, "frames_done_now": report.frames_done_now}
    return {"out": out, **done, "frames_per_second": report.frames_per_second, "files": report.files}


def _print_report(out: str, report: RunReport) -> None:
    if report.frames_done_now:
        print(f"{_frames(report.frames)}, {report.frames_per_second:.2f} per second")
    else:
        print(f"{out} already holds the finished run: {_frames(report.frames)}")
    print_files(report.files)


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask demo`: segment the bundled clip and score the result."""
    demo = commands.add_parser(
        "demo",
        help="segment the clip that ships with onemask, and score the result",
        description="Segment the clip that ships with onemask, given the mask of its first frame, and score the masks "
        "against its annotation.",
    )
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder for the results (default: demo)")
    demo.add_argument(
        "--keep-inputs", metavar="DIR", help="also write the clip and its first mask to DIR, to try other commands"
    )
    add_method(demo)
    add_resume(demo)
    add_overwrite(demo)
    demo.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> None:
    import numpy as np

    from ..evaluation.measures import region_and_contour, scored
    from ..jobs.running import run
    from ..video.label_maps import read_label_map
    from ..video.reader import open_video
    from ..video.sample import sample_clip

    clip = sample_clip()
    if options.keep_inputs:
        _keep_inputs(clip, Path(options.keep_inputs), options.overwrite)
    print(f"segmenting {clip.path.name} ({len(clip.annotations)} frames) with {options.method}, from its first mask")
    report = run(
        open_video(clip.path),
        {0: clip.annotations[0]},
        options.out,
        settings_of(options),
        overwrite=options.overwrite,
        resume=options.resume,
        progress=show,
    )
    masks = sorted(Path(report.files["masks"]).glob("*.png"))
    pairs = scored(list(zip(masks, clip.annotations, strict=True)))
    scores = [region_and_contour(read_label_map(path) > 0, truth > 0) for path, truth in pairs]
    region, contour = 100 * np.mean(scores, axis=0)
    print(f"J&F {(region + contour) / 2:.1f} (J {region:.1f}, F {contour:.1f}) against the clip's annotation")
    options.answer = _as_answer(options.out, report) | {"JF": (region + contour) / 2, "J": region, "F": contour}
    _print_report(options.out, report)


def _keep_inputs(clip: SampleClip, folder: Path, overwrite: bool) -> None:
    """Write the clip and its first mask, and print how to use them."""
    from ..files import refuse_existing, write_bytes
    from ..video.label_maps import write_mask

    video, mask = folder / clip.path.name, folder / f"{clip.path.stem}.png"
    for path in (video, mask):
        refuse_existing(path, overwrite)
    write_bytes(video, clip.path.read_bytes())
    write_mask(mask, clip.annotations[0])
    print(f"the clip and its first mask are in {folder}; try: onemask run {video} --mask {mask} --out my-results")
    print(
        "for a video of your own, paint the object white on a black picture of the frame's size, with hard edges, and "
        "save it as PNG"
    )


def add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask explain`: visualise what a method matched."""
    explain = commands.add_parser(
        "explain",
        help="draw what a method matched, frame by frame",
        description="Track an object and draw one picture: a few frames from left to right, and below each the maps "
        "that the method based its mask on, bright where they are high.",
    )
    add_input(explain)
    explain.add_argument("--out", required=True, metavar="FILE", help="the picture, .png or .jpg")
    explain.add_argument(
        "--object", type=int, metavar="ID", help="id of the object to draw, in the first mask (default: the lowest)"
    )
    explain.add_argument(
        "--frames", type=int, default=6, metavar="N", help="number of frames in the picture, evenly spread (default: 6)"
    )
    add_method(explain)
    add_overwrite(explain)
    explain.set_defaults(command=_explain)


def _explain(options: argparse.Namespace) -> None:
    from ..explaining import explain
    from ..video.reader import open_video

    video = open_video(options.input)
    explain(
        video,
        annotations_of(options, video),
        options.out,
        settings_of(options),
        object_id=options.object,
        frames=options.frames,
        overwrite=options.overwrite,
        progress=show,
    )
    options.answer = {"file": options.out}
    print(f"the maps that {options.method} used are in {options.out}")
