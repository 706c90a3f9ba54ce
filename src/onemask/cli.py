"""The commands: read the arguments, call one function, print what came of it. Exit code 2 for anything refused."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import __version__
from .errors import InputError, Interrupted, OnemaskError
from .evaluation import PROTOCOLS
from .methods import DEFAULT

if TYPE_CHECKING:
    import numpy as np

    from .settings import Settings
    from .video.frames import Video

T = TypeVar("T")

OK, FAILED, INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `onemask ARGUMENTS`; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(name)s: %(message)s")
    try:
        return options.command(options) or OK
    except Interrupted as error:
        print(f"onemask: {error}", file=sys.stderr)
        return INTERRUPTED
    except (OnemaskError, OSError) as error:  # OSError names the file: no rights, a name too long
        print(f"onemask: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("onemask: interrupted", file=sys.stderr)
        return INTERRUPTED


# The commands; what they need is imported inside, so that --help never waits for torch -------------------------------


def _run(options: argparse.Namespace) -> None:
    from .run import SAVED, run
    from .video.reader import open_video

    video = open_video(options.input)
    settings = _settings(options)
    annotations = _read_masks(options, video)
    report = run(
        video,
        annotations,
        options.out,
        settings,
        direction=options.direction,
        save=SAVED if options.save is None else options.save,
        overwrite=options.overwrite,
        resume=options.resume,
        progress=show,
    )
    print(f"{report.frames} frames, {report.frames_per_second:.2f} a second")
    _print_files(report.files)


def _demo(options: argparse.Namespace) -> None:
    import numpy as np

    from .evaluation.measures import region_and_contour
    from .run import run
    from .video.clip import sample_clip
    from .video.masks import read_label_map
    from .video.reader import open_video

    clip = sample_clip()
    print(f"segmenting {clip.path.name} ({len(clip.annotations)} frames) with {options.method}, from its first mask")
    report = run(
        open_video(clip.path),
        {0: clip.annotations[0]},
        options.out,
        _settings(options),
        overwrite=options.overwrite,
        progress=show,
    )
    masks = sorted(Path(report.files["masks"]).glob("*.png"))
    pairs = list(zip(masks, clip.annotations, strict=True))[1:-1]
    scores = [region_and_contour(read_label_map(path) > 0, truth > 0) for path, truth in pairs]
    region, contour = 100 * np.mean(scores, axis=0)
    print(f"J&F {(region + contour) / 2:.1f} (J {region:.1f}, F {contour:.1f}) against the clip's annotation")
    print(f"{report.frames_per_second:.2f} frames a second")
    _print_files(report.files)


def _score(options: argparse.Namespace) -> None:
    from .evaluation.score import score_folders
    from .files import refuse_existing, write_json

    if options.json:
        refuse_existing(options.json, options.overwrite)
    scores = score_folders(
        options.predictions,
        options.annotations,
        missing=options.missing,
        sequences=options.sequences,
        single_object=options.single_object,
    )
    print(scores.table())
    if options.json:
        write_json(options.json, scores.to_json())


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluation.evaluate import evaluate

    evaluation = evaluate(
        options.root,
        options.out,
        _settings(options),
        protocol=options.protocol,
        split=options.split,
        sequences=options.sequences,
        overwrite=options.overwrite,
        progress=show,
    )
    print(evaluation.table())
    print(f"predictions, scores and contact sheets are in {options.out}")


def _compare(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from .evaluation.compare import Contender, compare, redraw
    from .settings import Settings

    named = [*options.methods, *options.variant]
    if options.redraw:
        if options.root or named:
            raise InputError("--redraw takes what is in --out; leave out ROOT, --methods and --variant")
        comparison = redraw(options.out)
    else:
        if not options.root or not named:
            raise InputError("a comparison needs ROOT and --methods or --variant; only --redraw does without")
        shared = Settings(size=options.size or None, device=options.device, precision=options.precision)
        contenders = [Contender(name, replace(shared, method=name)) for name in options.methods]
        comparison = compare(
            options.root,
            options.out,
            contenders + [Contender.parse(text, shared) for text in options.variant],
            protocol=options.protocol,
            split=options.split,
            sequences=options.sequences,
            overwrite=options.overwrite,
            progress=show,
            say=partial(print, flush=True),
        )
    print(comparison.table())
    print(f"table and chart are in {options.out}: comparison.md, .csv, .json, .png, .svg")
    for label, message in comparison.failures.items():
        print(f"onemask: {label} is not in the table: {message}", file=sys.stderr)
    return FAILED if comparison.failures else OK


def _train(options: argparse.Namespace) -> None:
    try:
        from .training.preview import preview
        from .training.recipe import read_recipe
        from .training.train import Hardware, train
    except ModuleNotFoundError as error:
        raise InputError(f"training needs the package {error.name}: pip install 'onemask[train]'") from error
    recipe = read_recipe(options.recipe, options.set)
    if options.preview:
        preview(recipe, options.preview, data=options.data, overwrite=options.overwrite)
        print(f"what training sees is in {options.preview}")
        return
    if not options.out:
        raise InputError("training needs --out DIR, a folder for its weights and logs")
    trained = train(
        recipe,
        options.out,
        data=options.data,
        cache=options.cache,
        hardware=Hardware(options.device, options.devices, options.hosts),
        overwrite=options.overwrite,
        resume=options.resume,
        progress=partial(show, unit="step"),
    )
    scores = ", ".join(f"{name} {value:.1f}" for name, value in trained.scores.items()) or "not validated"
    print(f"{trained.steps} steps, {100 * trained.waiting:.1f} % of their time spent waiting for data; {scores}")
    print(f"weights are in {trained.best}; use them with --weights")


def _train_proposals(options: argparse.Namespace) -> None:
    try:
        from .training.proposals import read_proposal_recipe, train_proposals
        from .weights.store import users_folder
    except ModuleNotFoundError as error:
        raise InputError(f"training needs the package {error.name}: pip install 'onemask[train]'") from error
    card = train_proposals(
        read_proposal_recipe(options.recipe, options.set),
        options.out,
        data=options.data,
        device=options.device,
        overwrite=options.overwrite,
        resume=options.resume,
        progress=partial(show, unit="step"),
    )
    print(", ".join(f"{name} {value:.1f}" for name, value in card.scores.items()) or "recall was not measured")
    print(f"weights and their card are in {options.out}; methods find them in {users_folder()}")


def _methods(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from .methods import configuration, names
    from .optionhelp import option_comments

    if options.method:
        chosen: Any = configuration(options.method)
        comments = option_comments(chosen)
        for name, value in asdict(chosen).items():
            setting = f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            print(f"{setting:32}  # {comments[name]}" if name in comments else setting)
        return
    for name, summary in sorted(names().items()):
        print(f"{name:16} {summary}")


def _weights(options: argparse.Namespace) -> int:
    from .weights.store import check, described, installed, users_folder

    found = installed()
    own = f"NAME.safetensors and its card NAME.json go into {users_folder()}"
    if options.name and options.name not in found:
        there = f"there are: {', '.join(found)}" if found else "there are none"
        raise InputError(f"no weights are found under the name {options.name!r}; {there}; {own}")
    if not found:
        print(f"no trained weights are found; {own}")
    code = OK
    for name, path in found.items():
        if options.name in (None, name):
            print(name)
            try:
                card = check(path) if options.check else described(path)
                lines = card.details() if options.name else card.summary()
                lines |= {"checked": "size and SHA-256 are those of the card"} if options.check else {}
            except InputError as error:
                lines, code = {"error": str(error)}, FAILED
            for caption, text in (lines | {"file": str(path)}).items():
                print(f"  {caption:11}", text.rstrip().replace("\n", f"\n{'':14}"))
    return code


# Reading arguments ----------------------------------------------------------------------------------------------------


def _settings(options: argparse.Namespace) -> Settings:
    from .methods.options import parse_assignments
    from .settings import Settings

    return Settings(
        method=options.method,
        options=parse_assignments(options.set),
        weights=options.weights,
        size=options.size or None,
        device=options.device,
        precision=options.precision,
    )


def _read_masks(options: argparse.Namespace, video: Video) -> dict[int, np.ndarray]:
    """The label maps of --mask, by frame, with unknown pixels as background; says what was understood.

    Which value is void differs from file to file: 255 is an object in 16 bits.
    """
    from .video.masks import check_mask, read_mask

    annotations: dict[int, np.ndarray] = {}
    for given in options.mask:
        index, path = _frame_and_file(given)
        if index in annotations:
            raise InputError(f"frame {index} has two masks; give each frame one (--mask FRAME:FILE)")
        mask = read_mask(path, void=options.void, threshold=options.threshold)
        try:
            check_mask(mask, video.info.height, video.info.width)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        print(f"{path}: {mask.description}")
        if mask.void is not None:
            mask.labels[mask.labels == mask.void] = 0
        annotations[index] = mask.labels
    return annotations


def _frame_and_file(given: str) -> tuple[int, str]:
    """FILE or FRAME:FILE; what stands before a colon is part of the name where such a file is there."""
    before, colon, after = given.partition(":")
    if not colon or Path(given).exists():
        return 0, given
    if not before.isdecimal() or not after:
        raise InputError(
            f"--mask {given}: expected a file that is there, or FRAME:FILE with the number of a frame, such as "
            "12:mask.png (0 is the first frame)"
        )
    return int(before), after


def _void(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, none or auto, got {text!r}") from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onemask", description="One mask of an object in, its mask in every frame of the video out."
    )
    parser.add_argument("--version", action="version", version=f"onemask {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more of what is being done")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="segment a video", description="Segment a video from the mask of a frame.")
    run.add_argument("input", metavar="INPUT", help="a video file, a folder of images, or a glob in quotes")
    run.add_argument(
        "--mask",
        action="append",
        required=True,
        metavar="[FRAME:]FILE",
        help="mask of a frame (0 is the first): palette, grey, binary, 16-bit, colour or alpha PNG; may be repeated",
    )
    run.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    run.add_argument(
        "--save",
        type=_names,
        metavar="KINDS",
        help="of masks,overlay,contact-sheet (default: all)",
    )
    run.add_argument(
        "--direction",
        choices=["both", "forward"],
        default="both",
        help="follow objects back to the start as well, or only onward from their mask (default: both)",
    )
    run.add_argument(
        "--void", type=_void, default="auto", help="mask value for unknown pixels: a number, none, or auto (default)"
    )
    run.add_argument("--threshold", type=int, metavar="N", help="read a soft mask: values from N on are the object")
    run.add_argument("--resume", action="store_true", help="go on with an interrupted run in DIR")
    _add_method(run)
    _add_overwrite(run)
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="segment the clip that comes with onemask, and score it")
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder for the results (default: demo)")
    _add_method(demo)
    _add_overwrite(demo)
    demo.set_defaults(command=_demo)

    score = commands.add_parser(
        "score",
        help="score predictions against annotations",
        description="J and F as DAVIS defines them, for two folders of SEQUENCE/FRAME.png.",
    )
    score.add_argument("predictions", metavar="PREDICTIONS")
    score.add_argument("annotations", metavar="ANNOTATIONS")
    score.add_argument("--json", metavar="FILE", help="write everything, frame by frame, to FILE")
    score.add_argument(
        "--missing", choices=["error", "empty"], default="error", help="a missing frame is an error, or an empty mask"
    )
    score.add_argument("--single-object", action="store_true", help="take all objects as one, as DAVIS 2016 does")
    _add_sequences(score)
    _add_overwrite(score)
    score.set_defaults(command=_score)

    evaluate = commands.add_parser(
        "evaluate",
        help="run a method over a dataset and score it",
        description="Run a method over a dataset and score it by a benchmark's protocol. An interrupted call is "
        "resumed by giving it again.",
    )
    evaluate.add_argument(
        "root",
        metavar="ROOT",
        help="the dataset: for DAVIS the folder with ImageSets, JPEGImages and Annotations; for JumpCut "
        "[GROUP/]SEQUENCE/ and for YouTube-Objects CLASS/data/VIDEO/shots/SHOT/, with images/ and labels/ in it",
    )
    evaluate.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default="davis2016",
        help="; ".join(f"{name}: {summary}" for name, summary in PROTOCOLS.items()) + " (default: davis2016)",
    )
    evaluate.add_argument("--split", default="val", help="of DAVIS: ImageSets/YEAR/SPLIT.txt (default: val)")
    evaluate.add_argument("--out", required=True, metavar="DIR", help="folder for predictions and scores")
    _add_sequences(evaluate)
    _add_method(evaluate)
    _add_overwrite(evaluate)
    evaluate.set_defaults(command=_evaluate)

    compare = commands.add_parser(
        "compare",
        help="evaluate several methods: one table, and the speed-accuracy chart",
        description="Evaluate several methods on a dataset as `evaluate` does, and write one table (Markdown, CSV, "
        "JSON) and the speed-accuracy chart (PNG, SVG; needs the extra `plot`). What is finished already is reused; an "
        "interrupted call is resumed by giving it again. A method that fails is left out, and the exit code is 2.",
    )
    compare.add_argument("root", nargs="?", metavar="ROOT", help="the dataset's folder, as evaluate takes it")
    compare.add_argument("--methods", type=_names, default=[], metavar="A,B", help="see `onemask methods`")
    compare.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="TEXT",
        help="'[LABEL:] METHOD [NAME=VALUE ...]': a method with options, weights=FILE, size=N or precision=P of its "
        "own, and what it is called in table and chart; may be repeated",
    )
    compare.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="davis2016", help="as evaluate takes it (default: davis2016)"
    )
    compare.add_argument("--split", default="val", help="as evaluate takes it (default: val)")
    compare.add_argument(
        "--out", default="comparison", metavar="DIR", help="folder for evaluations, table, chart (default: comparison)"
    )
    compare.add_argument(
        "--redraw", action="store_true", help="only write table and chart anew, of all that is finished in --out"
    )
    _add_sequences(compare)
    _add_running(compare.add_argument_group("how all methods run"))
    _add_overwrite(compare)
    compare.set_defaults(command=_compare)

    train = commands.add_parser(
        "train",
        help="train a method from a recipe",
        description="Train a method as a recipe says, see recipes/. Any of its values can be set: seed=1, "
        "stages.0.optimiser.rate=3e-4. `tensorboard --logdir DIR` shows how it goes. Needs the extra `train`.",
    )
    train.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    train.add_argument("set", nargs="*", metavar="KEY=VALUE", help="set a value of the recipe")
    train.add_argument("--out", metavar="DIR", help="folder for weights, their cards, logs and checkpoints")
    train.add_argument(
        "--data", default=".", metavar="DIR", help="folder that the recipe's datasets are in (default: .)"
    )
    train.add_argument("--cache", metavar="DIR", help="folder for features that are kept (default: in --out)")
    train.add_argument("--preview", metavar="FILE", help="write a contact sheet of what training sees, and end")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted training in --out")
    train.add_argument("--device", default="auto", help="cpu, cuda, mps, auto (default)")
    train.add_argument("--devices", default="auto", metavar="N", help="how many devices a host has (default: all)")
    train.add_argument(
        "--hosts", type=int, default=1, metavar="N", help="how many hosts `torchrun` starts (default: 1)"
    )
    _add_overwrite(train)
    train.set_defaults(command=_train)

    proposals = commands.add_parser(
        "train-proposals",
        help="train the network that proposes objects to DMN-AOA",
        description="Train maskrcnn-lite, the network that proposes boxes and masks of things, as a recipe says, see "
        "recipes/proposals/maskrcnn-lite.yaml. Any of its values can be set. Needs the extra `train`.",
    )
    proposals.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    proposals.add_argument("set", nargs="*", metavar="KEY=VALUE", help="set a value of the recipe")
    proposals.add_argument("--out", required=True, metavar="DIR", help="folder for weights, card, log and checkpoint")
    proposals.add_argument(
        "--data", default=".", metavar="DIR", help="folder that the recipe's datasets are in (default: .)"
    )
    proposals.add_argument("--resume", action="store_true", help="go on with an interrupted training in --out")
    proposals.add_argument("--device", default="auto", help="cpu, cuda, mps, auto (default)")
    _add_overwrite(proposals)
    proposals.set_defaults(command=_train_proposals)

    methods = commands.add_parser("methods", help="list the methods, or the options of one")
    methods.add_argument("method", nargs="?", metavar="METHOD", help="list its options and their values")
    methods.set_defaults(command=_methods)

    weights = commands.add_parser(
        "weights",
        help="list the trained weights that are here, or what is known of one",
        description="List the trained weights that methods find by name: where they came from, how good they are.",
    )
    weights.add_argument("name", nargs="?", metavar="NAME", help="print the whole card of these")
    weights.add_argument("--check", action="store_true", help="compare files with the SHA-256 of their cards")
    weights.set_defaults(command=_weights)
    return parser


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument("--method", default=DEFAULT, help=f"see `onemask methods` (default: {DEFAULT})")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set an option of the method, see `onemask methods METHOD`; may be repeated",
    )
    group.add_argument("--weights", metavar="FILE", help="safetensors file with the method's weights")
    _add_running(group)


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size", type=int, default=480, metavar="N", help="short side to work at, 0: the frames' own (default: 480)"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group.add_argument(
        "--precision", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help="of the networks"
    )


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")


def _add_sequences(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sequences", type=_names, metavar="A,B", help="only these sequences")


# Printing -------------------------------------------------------------------------------------------------------------


def show(items: Iterable[T], total: int | None, what: str, unit: str = "frame") -> Iterator[T]:
    """Show progress on a terminal, and nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(items, desc=what, total=total, unit=unit, disable=not sys.stderr.isatty()) as bar:
        yield from bar


def _print_files(files: dict[str, str]) -> None:
    for kind, path in files.items():
        print(f"{kind:14} {path}")


if __name__ == "__main__":
    sys.exit(main())
