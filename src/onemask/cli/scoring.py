"""`onemask score`, `evaluate` and `compare`, and `onemask perturb`, which makes videos harder to segment."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ..errors import InputError
from ..evaluation import PROTOCOLS
from .arguments import (
    FAILED,
    OK,
    add_method,
    add_overwrite,
    add_ray,
    add_resume,
    add_running,
    add_sequences,
    add_set,
    listed,
    settings_of,
    short_side_of,
    show,
)


def add_score(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask score`: compute J and F from two folders."""
    score = commands.add_parser(
        "score",
        help="score predictions against annotations",
        description="Compute J and F as DAVIS defines them, for two folders of SEQUENCE/FRAME.png, or ZIPs of them.",
    )
    score.add_argument(
        "predictions",
        metavar="PREDICTIONS",
        help="folder or ZIP of the predicted masks; also a finished run, or a batch",
    )
    score.add_argument("annotations", metavar="ANNOTATIONS", help="folder or ZIP of the annotations")
    score.add_argument(
        "--json",
        nargs="?",
        const=True,
        metavar="FILE",
        help="write all scores, per frame, to FILE; without FILE, print them, and the table to standard error",
    )
    score.add_argument(
        "--missing",
        choices=["error", "empty"],
        default="error",
        help="treat a missing frame as an error or as an empty mask (default: error)",
    )
    score.add_argument(
        "--threshold", type=int, metavar="N", help="read soft predictions: values of N or more are the object"
    )
    score.add_argument("--single-object", action="store_true", help="score all objects as one, as DAVIS 2016 does")
    add_sequences(score)
    add_overwrite(score)
    score.set_defaults(command=_score)


def _score(options: argparse.Namespace) -> None:
    from ..evaluation.score import score_folders
    from ..files import refuse_existing, write_json

    if isinstance(options.json, str):
        refuse_existing(options.json, options.overwrite)
    scores = score_folders(
        options.predictions,
        options.annotations,
        missing=options.missing,
        sequences=options.sequences,
        single_object=options.single_object,
        threshold=options.threshold,
    )
    options.answer = scores.to_json()
    print(scores.table())
    if isinstance(options.json, str):
        write_json(options.json, scores.to_json())


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask evaluate`: run a method over a dataset and score it."""
    evaluate = commands.add_parser(
        "evaluate",
        help="run a method over a dataset and score it",
        description="Run a method over a dataset and score it with a benchmark's protocol.",
    )
    evaluate.add_argument(
        "root",
        metavar="ROOT",
        help="the dataset: for DAVIS the folder with ImageSets, JPEGImages and Annotations; for JumpCut "
        "[GROUP/]SEQUENCE/ and for YouTube-Objects CLASS/data/VIDEO/shots/SHOT/, with images/ and labels/ in it; "
        "for YouTube-VOS, and any dataset in its layout, the folder with JPEGImages, Annotations and meta.json, "
        "or the one above it",
    )
    evaluate.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default="davis2016",
        help="; ".join(f"{name}: {summary}" for name, summary in PROTOCOLS.items()) + " (default: davis2016)",
    )
    evaluate.add_argument(
        "--split",
        default="val",
        help="DAVIS split, ImageSets/YEAR/SPLIT.txt, or folder of a YouTube-VOS split (default: val; for YouTube-VOS: "
        "valid)",
    )
    evaluate.add_argument(
        "--submission",
        metavar="FILE",
        help="also write the label maps to FILE as a ZIP that YouTube-VOS's server accepts",
    )
    evaluate.add_argument("--out", required=True, metavar="DIR", help="folder for predictions and scores")
    add_sequences(evaluate)
    add_method(evaluate)
    add_resume(evaluate)
    add_overwrite(evaluate)
    add_ray(evaluate)
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from ..evaluation.evaluate import evaluate

    evaluation = evaluate(
        options.root,
        options.out,
        settings_of(options),
        protocol=options.protocol,
        split=options.split,
        sequences=options.sequences,
        submission=options.submission,
        overwrite=options.overwrite,
        resume=options.resume,
        ray=options.ray,
        progress=show,
    )
    options.answer = {"out": options.out, "seconds_per_frame": evaluation.seconds_per_frame}
    options.answer |= evaluation.scores.to_json()
    if not evaluation.computed:
        print(f"{options.out} already holds the finished evaluation")
    print(evaluation.table())
    print(f"predictions, scores and contact sheets are in {options.out}")


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask compare`: run and score several methods over a dataset."""
    compare = commands.add_parser(
        "compare",
        help="evaluate several methods; write a table and a speed-accuracy chart",
        description="Evaluate several methods on a dataset as `evaluate` does, and write one table (Markdown, CSV, "
        "JSON) and the speed-accuracy chart (PNG, SVG; needs the extra `plot`). With --resume finished "
        "evaluations are reused, and methods can be added to the table. A method that fails is left out, and the exit "
        "code is 2.",
    )
    compare.add_argument("root", nargs="?", metavar="ROOT", help="the dataset's folder, as for evaluate")
    compare.add_argument("--methods", type=listed, default=[], metavar="A,B", help="see `onemask methods`")
    compare.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="TEXT",
        help="'[LABEL:] METHOD [NAME=VALUE ...]': a method with its own options, weights=FILE, short_side=N, "
        "precision=P or runtime=R, and its label in table and chart; may be repeated",
    )
    compare.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="davis2016", help="as for evaluate (default: davis2016)"
    )
    compare.add_argument("--split", default="val", help="as for evaluate (default: val)")
    compare.add_argument(
        "--out", default="comparison", metavar="DIR", help="folder for evaluations, table, chart (default: comparison)"
    )
    compare.add_argument(
        "--redraw",
        action="store_true",
        help="run nothing; rebuild table and chart from the finished evaluations in --out",
    )
    add_sequences(compare)
    for_all = compare.add_argument_group("for all methods")
    add_set(for_all, "set an option of every method, which all must have; NAME=VALUE in --variant takes precedence")
    add_running(for_all)
    add_resume(compare)
    add_overwrite(compare)
    add_ray(compare)
    compare.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    from ..evaluation.compare import Variant, compare, redraw
    from ..methods.options import parse_assignments
    from ..settings import Settings

    named = [*options.methods, *options.variant]
    if options.redraw:
        if options.root or named:
            raise InputError("--redraw uses what is in --out; leave out ROOT, --methods and --variant")
        comparison = redraw(options.out)
    else:
        if not options.root or not named:
            raise InputError("a comparison needs ROOT, and --methods or --variant; only --redraw works without them")
        shared = Settings(
            options=parse_assignments(options.set),
            short_side=short_side_of(options),
            device=options.device,
            precision=options.precision,
            runtime=options.runtime,
        )
        variants = [Variant.of(name, name, {}, shared) for name in options.methods]
        comparison = compare(
            options.root,
            options.out,
            variants + [Variant.parse(text, shared) for text in options.variant],
            protocol=options.protocol,
            split=options.split,
            sequences=options.sequences,
            overwrite=options.overwrite,
            resume=options.resume,
            ray=options.ray,
            progress=show,
            say=partial(print, flush=True),
        )
    options.answer = {"out": options.out, "methods": list(comparison.rows), "failures": dict(comparison.failures)}
    print(comparison.table())
    print(f"table and chart are in {options.out}: comparison.md, .csv, .json, .png, .svg")
    for label, message in comparison.failures.items():
        print(f"onemask: {label} is not in the table: {message}", file=sys.stderr)
    return FAILED if comparison.failures else OK


def add_perturb(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask perturb`: make the videos of a dataset harder."""
    perturb = commands.add_parser(
        "perturb",
        help="make the videos of a dataset harder: occlusions and crowds, with exact masks",
        description="Make the videos of a dataset in DAVIS layout harder in three ways, with exact label maps: in "
        "`occluded` the object is hidden for 20 frames; in `two` and `three`, objects from other videos pass in front "
        "of it and behind it. Each is a split in DAVIS 2017's layout: onemask evaluate DIR --protocol davis2017 "
        "--split occluded. The same dataset always gives the same videos.",
    )
    perturb.add_argument("root", metavar="ROOT", help="the dataset: a folder with ImageSets, JPEGImages, Annotations")
    perturb.add_argument("--split", default="val", help="ImageSets/YEAR/SPLIT.txt (default: val)")
    perturb.add_argument(
        "--year", type=int, choices=[2016, 2017], default=2016, help="DAVIS layout of the dataset (default: 2016)"
    )
    perturb.add_argument("--out", required=True, metavar="DIR", help="folder for the videos")
    add_sequences(perturb)
    add_resume(perturb)
    add_overwrite(perturb)
    perturb.set_defaults(command=_perturb)


def _perturb(options: argparse.Namespace) -> None:
    from ..jobs.perturbing import perturb

    perturbed = perturb(
        options.root,
        options.out,
        split=options.split,
        year=options.year,
        sequences=options.sequences,
        overwrite=options.overwrite,
        resume=options.resume,
        progress=partial(show, unit="video"),
    )
    options.answer = {"out": options.out, "videos": perturbed.videos}
    if perturbed.finished_before:
        print(f"{options.out} already holds the finished videos")
        return
    for split, count in perturbed.videos.items():
        print(f"{split}: {count} videos")
    first = next(iter(perturbed.videos))
    print(f"evaluate them with: onemask evaluate {options.out} --protocol davis2017 --split {first} --out DIR")
