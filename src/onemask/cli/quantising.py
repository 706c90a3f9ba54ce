"""`onemask quantize`: what features in eight bits need, measured once."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .arguments import add_named_method, add_overwrite, named_method, show


def add_quantize(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask quantize`."""
    quantize = commands.add_parser(
        "quantize",
        help="measure what features in eight bits (--precision int8) need",
        description="Measure the ranges of a method's features over some pictures, and leave in float what eight bits "
        "cost too much. Done once, for frames of every size; `--precision int8` then uses it. Processors with VNNI, "
        "AMX or ARM's dot product gain; others may not.",
    )
    add_named_method(quantize)
    source = quantize.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", metavar="DIR", help="calibrate with pictures of this folder and those in it")
    source.add_argument(
        "--data", metavar="DIR", help="calibrate with what the weights were trained with; as for `onemask train`"
    )
    quantize.add_argument("--count", type=int, default=16, metavar="N", help="pictures (default: 16)")
    quantize.add_argument(
        "--short-side", "--size", type=int, default=480, metavar="N", help="with --pictures: theirs (default: 480)"
    )
    quantize.add_argument(
        "--cosine", type=float, default=0.98, metavar="C", help="of features to float ones, at least (default: 0.98)"
    )
    quantize.add_argument("--licence", default="", metavar="TEXT", help="of what is made, for its card")
    quantize.add_argument(
        "--out", metavar="FILE", help="NAME.int8.json (default: among your own weights, where METHOD finds it)"
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
        raise InputError(f"--count is 1 or more and --cosine in (0, 1], got {options.count} and {options.cosine}")
    out = Path(options.out) if options.out else users_folder() / f"{options.method}{SUFFIX}"
    if not out.name.endswith(SUFFIX):
        raise InputError(f"--out is NAME{SUFFIX}, got {out.name}")
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
        card = weights.card or described(weights.path)  # which says what is missing
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
    print(f"{100 * made.share:.0f} % of the multiplications in eight bits; {len(made.in_float)} convolutions in float")
    print(f"cosine to float features: {made.cosines[worst]:.4f} at the least ({worst})")
    if made.cosines[worst] < options.cosine:
        print(f"{options.cosine:g} was not reached: half of the work would have to be in float")
    print(f"{options.method} --precision int8 uses {out}")
