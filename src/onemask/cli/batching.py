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
        help="segment many videos listed in a manifest",
        description="Segment many videos: `onemask run` for every line of a manifest, longest videos first, one "
        "process per device. --resume continues an interrupted batch and skips finished videos.",
        epilog="manifest: CSV with the columns video and mask (several masks: separated by spaces) and, optionally, "
        "name, short-side, method, set, save, ...; or JSON lines with these keys. Paths are relative to the "
        "manifest. Videos, masks, MANIFEST and DIR may also be addresses, such as s3://BUCKET/DIR (extra s3) or "
        "gs:// (extra gcs).",
    )
    batch.add_argument("manifest", metavar="MANIFEST", help="a .csv or .jsonl file")
    batch.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the results, with a folder for each video"
    )
    batch.add_argument(
        "--devices",
        type=listed,
        default=["auto"],
        metavar="A,B",
        help="devices as for --device, one process each, such as cuda:0,cuda:1; with --ray: cuda or cpu (default: "
        "auto; with --ray: every GPU of the cluster, or every CPU if it has no GPU)",
    )
    batch.add_argument(
        "--retries", type=int, default=1, metavar="N", help="how often to retry a video that crashed (default: 1)"
    )
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
    from ..jobs.batching import Outcome, batch
    from ..jobs.manifest import read_manifest

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
    """Check the options for `onemask run` before any video is run, instead of failing for each of them."""
    from . import parser

    placed = parser().parse_args(["run", "VIDEO", "--out", "DIR", *arguments])  # argparse reports errors, and exits
    if placed.out != "DIR" or placed.resume or placed.overwrite:
        raise InputError(
            "--run: the batch sets --out, --resume and --overwrite for each video; leave them out, or give them to "
            "the batch"
        )
