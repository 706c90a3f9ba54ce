"""`onemask batch`: many videos."""

from __future__ import annotations

import argparse
import shlex

from ..errors import InputError
from .arguments import FAILED, OK, add_overwrite, add_ray, add_resume, listed


def add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask batch`."""
    batch = commands.add_parser(
        "batch",
        help="segment many videos, as a manifest says",
        description="Segment many videos: `onemask run` for every line of a manifest, the longest first, one process a "
        "device. With --resume it goes on where it was stopped, and runs nothing again that is finished.",
        epilog="manifest: CSV with the columns video and mask (several: separated by spaces), and name, short-side, "
        "method, set, save, ... if wanted; or JSON lines with these keys. Paths are relative to the manifest. Videos, "
        "masks, MANIFEST and DIR may also be addresses, such as s3://BUCKET/DIR (extra s3) or gs:// (extra gcs).",
    )
    batch.add_argument("manifest", metavar="MANIFEST", help="a .csv or .jsonl file")
    batch.add_argument("--out", required=True, metavar="DIR", help="folder of the results, one folder a video")
    batch.add_argument(
        "--devices",
        type=listed,
        default=["auto"],
        metavar="A,B",
        help="as --device takes them, one process each, such as cuda:0,cuda:1; with --ray cuda or cpu (default: "
        "auto, with --ray one for each GPU of the cluster, or each CPU)",
    )
    batch.add_argument("--retries", type=int, default=1, metavar="N", help="run again what crashed (default: 1)")
    batch.add_argument(
        "--run",
        default="",
        metavar="'OPTIONS'",
        help="options of `onemask run` for all videos, in quotes, such as '--short-side 360 --save masks,csv'",
    )
    add_overwrite(batch)
    add_resume(batch)
    add_ray(batch)
    batch.set_defaults(command=_batch)


def _batch(options: argparse.Namespace) -> int:
    from ..batching import Outcome, batch
    from ..manifest import read_manifest

    jobs = read_manifest(options.manifest)

    def tell(outcome: Outcome) -> None:
        state = "done" if outcome.done else f"failed: {outcome.error}"
        print(f"{outcome.name}: {state} ({outcome.seconds:.0f} s)")

    try:
        arguments = shlex.split(options.run)
    except ValueError as error:
        raise InputError(f"--run {options.run}: {error}") from None
    _check_run(arguments)
    report = batch(
        jobs,
        options.out,
        arguments=arguments,
        devices=options.devices,
        retries=options.retries,
        ray=options.ray,
        overwrite=options.overwrite,
        resume=options.resume,
        told=tell,
    )
    options.answer = report.outcomes
    print(f"{len(jobs) - len(report.failed)} of {len(jobs)} videos are done; the report is {options.out}/report.json")
    return FAILED if report.failed else OK


def _check_run(arguments: list[str]) -> None:
    """Refuse, before any video is run, what `onemask run` would refuse of its options for each of them."""
    from . import parser

    placed = parser().parse_args(["run", "VIDEO", "--out", "DIR", *arguments])  # argparse says what is wrong, and exits
    if placed.out != "DIR" or placed.resume or placed.overwrite:
        raise InputError(
            "--run: the batch gives --out, --resume and --overwrite to each video itself; leave these out, or give "
            "them to the batch"
        )
