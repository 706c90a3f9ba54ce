"""`onemask methods`, `onemask weights` and `onemask import-weights`."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import InputError
from .arguments import FAILED, OK, add_overwrite, add_set


def add_methods(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask methods`: list all methods, or the options of one."""
    methods = commands.add_parser(
        "methods",
        help="list the methods, or the options of one",
        description="List the methods; or the options of one, their values, and what they do.",
    )
    methods.add_argument("method", nargs="?", metavar="METHOD", help="list this method's options and their values")
    methods.set_defaults(command=_methods)


def _methods(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ..methods import METHODS, configuration, names
    from .optionhelp import option_help

    if options.method is not None:
        chosen: Any = configuration(options.method)
        meanings = option_help(chosen)
        options.answer = {"method": options.method, "options": asdict(chosen), "help": meanings}
        for name, value in asdict(chosen).items():
            setting = f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            print(f"{setting:32}  # {meanings[name]}" if name in meanings else setting)
        return
    options.answer = [{"name": name, "summary": summary} for name, summary in sorted(names().items())]
    for name, summary in sorted(names().items()):
        print(f"{name:17} {summary}")
        if name in METHODS and (published := METHODS[name].published):
            print(f"{'':17} for import-weights: {published.files}, {published.offered}: {published.scored}")


def add_import_weights(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask import-weights`: convert weights that a method's authors published."""
    importing = commands.add_parser(
        "import-weights",
        help="convert a checkpoint that a method's authors published",
        description="Convert a checkpoint that a method's authors published into weights for onemask; `onemask "
        "methods` says where to find it. No code in the file is executed.",
    )
    importing.add_argument("method", metavar="METHOD", help="the method it belongs to")
    importing.add_argument("checkpoint", metavar="FILE", help="the checkpoint, as its authors published it")
    importing.add_argument(
        "--out",
        metavar="WEIGHTS",
        help="NAME.safetensors (default: in your weights folder, where METHOD finds it by name)",
    )
    importing.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="TEXT",
        help="what it was trained on, for the card (default: what FILE's name tells, if anything); may be repeated",
    )
    importing.add_argument("--licence", default="", metavar="TEXT", help="its licence, for the card")
    add_set(importing, "set an option of the method")
    add_overwrite(importing)
    importing.set_defaults(command=_import_weights)


def _import_weights(options: argparse.Namespace) -> None:
    from ..methods.importing import import_weights
    from ..methods.options import parse_assignments

    path, card = import_weights(
        options.method,
        options.checkpoint,
        options.out,
        options=parse_assignments(options.set),
        data=options.data,
        licence=options.licence,
        overwrite=options.overwrite,
    )
    options.answer = {"file": path, "card": card}
    print(path)
    for caption, text in (card.summary() | {"checkpoint": card.recipe["sha256 of the checkpoint"]}).items():
        print(f"  {caption:11}", text)


def add_weights(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask weights`: list the trained weights that are found by name."""
    weights = commands.add_parser(
        "weights",
        help="list the trained weights that are installed, or show one card",
        description="List the trained weights that methods find by name: their origin, licence and scores.",
    )
    weights.add_argument("name", nargs="?", metavar="NAME", help="print the whole card of these weights")
    weights.add_argument("--check", action="store_true", help="check files against the size and SHA-256 in their cards")
    weights.set_defaults(command=_weights)


def _weights(options: argparse.Namespace) -> int:
    from ..weights.store import check, described, installed, users_folder

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
                lines |= {"checked": "size and SHA-256 match the card"} if options.check else {}
            except InputError as error:
                lines, code = {"error": str(error)}, FAILED
            options.answer[name] = lines | {"file": str(path)}
            for caption, text in (lines | {"file": str(path)}).items():
                print(f"  {caption:11}", text.rstrip().replace("\n", f"\n{'':14}"))
    return code
