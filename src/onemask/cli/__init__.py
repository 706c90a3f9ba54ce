"""The command line: parse the arguments, call one function, print the result. Errors exit with code 2.

Each command imports its dependencies itself, so that --help never waits for torch.
"""

from __future__ import annotations

import argparse
import codecs
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from typing import TextIO

from .. import __version__
from ..allocation import keep_freed_memory
from ..errors import InputError, Interrupted, OnemaskError
from .arguments import FAILED, INTERRUPTED, OK, plain
from .batching import add_batch
from .configured import add_completion, add_config, apply, parsers
from .exporting import add_export_masks
from .graphs import add_export
from .learning import add_train
from .listing import add_import_weights, add_methods, add_weights
from .living import add_live
from .quantising import add_quantize
from .reviewing import add_review
from .scoring import add_compare, add_evaluate, add_perturb, add_score
from .segmenting import add_demo, add_explain, add_run
from .studio import add_studio

COMMANDS = (
    add_run,
    add_demo,
    add_explain,
    add_studio,
    add_live,
    add_batch,
    add_export_masks,
    add_review,
    add_export,
    add_quantize,
    add_score,
    add_evaluate,
    add_compare,
    add_perturb,
    add_train,
    add_methods,
    add_weights,
    add_import_weights,
    add_config,
    add_completion,
)
WITHOUT_JSON = ("live", "studio")  # `live` prints JSON lines anyway, `studio` serves
# Commands whose output is what they are called for, which --quiet therefore leaves.
PRINT_WHEN_QUIET = ("live", "review", "score", "evaluate", "compare", "methods", "weights", "config", "completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `onemask ARGUMENTS`; returns the exit code."""
    try:
        options = _options(sys.argv[1:] if arguments is None else arguments)
        keep_freed_memory()
        _print_any_name()
        level = logging.INFO if options.verbose else logging.ERROR if options.quiet else logging.WARNING
        logging.basicConfig(level=level, format="%(name)s: %(message)s")
        code = _done(options)
        sys.stdout.flush()
        return code
    except Interrupted as error:
        _tell(error)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again at exit
        return OK
    except (OnemaskError, OSError) as error:  # OSError names the file: no permission, name too long
        _tell(error)
        return FAILED
    except KeyboardInterrupt:
        print("onemask: interrupted", file=sys.stderr)
        return INTERRUPTED


def _tell(error: Exception) -> None:
    if not _is_told(error):
        print(f"onemask: {error}", file=sys.stderr)


def _is_told(error: Exception) -> bool:
    """Whether another of several processes that train together tells the user about the error."""
    return isinstance(error, OnemaskError) and error.told_by_another


def _done(options: argparse.Namespace) -> int:
    """Run the command; return the exit code. With --json, standard output has only the result or the error."""
    if not options.json_answer:
        if not options.quiet or options.name_of_command in PRINT_WHEN_QUIET:
            return options.command(options) or OK
        with _nowhere() as nowhere, redirect_stdout(nowhere):
            return options.command(options) or OK
    out = sys.stdout
    try:
        with _nowhere() if options.quiet else nullcontext(sys.stderr) as told, redirect_stdout(told):
            code = options.command(options) or OK
    except (OnemaskError, OSError) as error:
        if not _is_told(error):
            print(json.dumps({"error": str(error)}), file=out)
        raise
    if not getattr(options, "told_by_another", False):
        print(json.dumps(options.answer, indent=1, default=plain), file=out)
    return code


def _nowhere() -> TextIO:
    """Open a file that swallows what is printed, in any name's characters."""
    return open(os.devnull, "w", errors="backslashreplace")


def _print_any_name() -> None:
    """Make names printable that the terminal cannot encode: as their original bytes, or otherwise escaped."""
    codecs.register_error("onemask", _as_it_is_or_escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="onemask")


def _as_it_is_or_escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    for handler in ("surrogateescape", "backslashreplace"):
        with suppress(UnicodeError):
            return codecs.lookup_error(handler)(error)
    raise error


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. KEY=VALUE of a recipe may appear anywhere, even after options, where argparse stops."""
    if with_nul := [argument for argument in arguments if "\0" in argument]:
        raise InputError(f"{with_nul[0]!r} has a NUL character, which no name or value can have")
    whole = parser()
    options, left = whole.parse_known_args(arguments)
    if isinstance(getattr(options, "recipe", None), str):
        options.set += [text for text in left if not text.startswith("-")]
        left = [text for text in left if text.startswith("-")]
    if left:
        parsers(whole)[options.name_of_command].error(f"unrecognized arguments: {' '.join(left)}")
    apply(options, _given(arguments), whole)
    options.json_answer = getattr(options, "json", None) is True
    return options


def _given(arguments: Sequence[str]) -> set[str]:
    """Return the names of the options that the arguments give, whatever their values."""
    whole = parser()
    for command in parsers(whole).values():
        for action in command._actions:
            action.default = argparse.SUPPRESS
    return set(vars(whole.parse_known_args(arguments)[0]))


def parser() -> argparse.ArgumentParser:
    """Create the parser of all commands and their arguments."""
    whole = argparse.ArgumentParser(
        prog="onemask", description="Give the mask of an object in one frame of a video, get its mask in every frame."
    )
    whole.add_argument("--version", action="version", version=f"onemask {__version__}")
    _add_volume(whole, False)
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    for name, command in commands.choices.items():
        command.set_defaults(name_of_command=name, answer={})
        _add_volume(command, argparse.SUPPRESS)
        if "--json" not in command._option_string_actions and name not in WITHOUT_JSON:
            command.add_argument(
                "--json",
                action="store_true",
                help="print the result as JSON; messages for people go to standard error",
            )
    return whole


def _add_volume(parser: argparse.ArgumentParser, default: object) -> None:
    """Add -v and -q, which may come before or after the command."""
    parser.add_argument("-v", "--verbose", action="store_true", default=default, help="log what is being done")
    parser.add_argument("-q", "--quiet", action="store_true", default=default, help="print only errors and results")
