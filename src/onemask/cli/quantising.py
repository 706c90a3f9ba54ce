"""`onemask quantize`: calibrate 8-bit features."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .arguments import add_named_method, add_overwrite, named_method, show


def add_quantize(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask quantize`."""
    quantize = commands.add_parser(
        "quantize",
        help="calibrate a method for features in 8 bits (--precision int8)",
        description="Measure the ranges of a method's features over some pictures, and leave in float what loses too "
        "much in 8 bits. Needed once, for frames of every size; `--precision int8` then uses the result. Processors "
        "with VNNI, AMX or ARM's dot product get faster; others may not.",
    )
    add_named_method(quantize)
    source = quantize.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pictures", metavar="DIR", help="calibrate with the pictures in this folder and its subfolders"
    )
    source.add_argument(
        "--data", metavar="DIR", help="calibrate with the data the weights were trained on; DIR as for `onemask train`"
    )
    quantize.add_argument("--count", type=int, default=16, metavar="N", help="number of pictures (default: 16)")
    quantize.add_argument(
        "--short-side",
        "--size",
        type=int,
        default=480,
        metavar="N",
        help="with --pictures: their short side in pixels (default: 480)",
    )
    quantize.add_argument(
        "--cosine",
        type=float,
        default=0.98,
        metavar="C",
        help="lowest cosine similarity to the float features to accept (default: 0.98)",
    )
    quantize.add_argument("--licence", default="", metavar="TEXT", help="licence of the result, for its card")
    quantize.add_argument(
        "--out", metavar="FILE", help="NAME.int8.json (default: in your weights folder, where METHOD finds it)"
    )
    add_overwrite(quantize)
    quantize.set_defaults(command=_quantize)


def _quantize(options: argparse.Namespace) -> None:
    from ..files import refuse_existing
    from ..methods import weights_for
    from ..runtime.engines import problem_with
    from ..runtime.quantisation import SUFFIX, quantise
    from ..training.pictures import pictures_below, pictures_trained_with
    from ..weights.store import described, users_folder

    if problem := problem_with("onnx"):
        raise InputError(f"quantize {problem}")
    if options.count < 1 or not 0 < options.cosine <= 1:
        raise InputError(f"--count must be 1 or more and --cosine in (0, 1], got {options.count} and {options.cosine}")
    out = Path(options.out) if options.out else users_folder() / f"{options.method}{SUFFIX}"
    if not out.name.endswith(SUFFIX):
        raise InputError(f"--out must be named NAME{SUFFIX}, got {out.name}")
    refuse_existing(out, options.overwrite)
    method = named_method(options)
    if options.data is None:
        step = 2 * method.stride
        height, width = (
            max(1, round(side / step)) * step for side in (options.short_side, options.short_side * 16 / 9)
        )
        pictures = pictures_below(options.pictures, options.count, (height, width))
        source = f"pictures of {Path(options.pictures).resolve().name}"
    else:
        weights = None if method.config is None else weights_for(options.method, method.config, options.weights)
        if weights is None:
            raise InputError(f"{options.method} has no weights, so no training pictures; name a folder with --pictures")
        card = weights.card or described(weights.path)  # raises an error that says what is missing
        pictures = pictures_trained_with(card, options.data, options.count)
        source = f"first frames of clips of {card.recipe['name']}"
    made = quantise(
        method,
        pictures,
        name=options.method,
        described=f"{len(pictures)} {source}, {pictures[0].shape[0]}x{pictures[0].shape[1]}",
        licence=options.licence,
        least=options.cosine,
        progress=show,
    )
    made.write(out)
    worst = min(made.cosines, key=made.cosines.__getitem__)
    print(f"{100 * made.share:.0f} % of the multiplications in 8 bits; {len(made.in_float)} convolutions in float")
    print(f"lowest cosine to float features: {made.cosines[worst]:.4f} ({worst})")
    if made.cosines[worst] < options.cosine:
        print(f"{options.cosine:g} was not reached: half of the work would have to be in float")
    where = "" if out.parent.resolve() == users_folder().resolve() else f" once it is in {users_folder()}"
    print(f"{options.method} --precision int8 uses {out}{where}")
