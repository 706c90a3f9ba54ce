"""The commands: read the arguments, call one function, print the result. Exit code 2 for anything refused.

What a command needs is imported inside it, so that --help never waits for torch.
"""

from __future__ import annotations

import argparse
import codecs
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from .. import __version__
from ..allocation import keep_freed_memory
from ..errors import InputError, Interrupted, OnemaskError
from .arguments import FAILED, INTERRUPTED, OK
from .batching import add_batch
from .exporting import add_export_masks
from .graphs import add_export
from .learning import add_train, add_train_proposals
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
    add_train_proposals,
    add_methods,
    add_weights,
    add_import_weights,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `onemask ARGUMENTS`; returns the exit code."""
    try:
        options = _options(sys.argv[1:] if arguments is None else arguments)
        keep_freed_memory()
        _print_any_name()
        logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(name)s: %(message)s")
        code = options.command(options) or OK
        sys.stdout.flush()
        return code
    except Interrupted as error:
        print(f"onemask: {error}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # who was reading, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more on its way out
        return OK
    except (OnemaskError, OSError) as error:  # OSError names the file: no rights, a name too long
        print(f"onemask: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("onemask: interrupted", file=sys.stderr)
        return INTERRUPTED


def _print_any_name() -> None:
    """Make names printable that are not text in the terminal's encoding: their bytes as they are, or else escaped."""
    codecs.register_error("onemask", _as_it_is_or_escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="onemask")


def _as_it_is_or_escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    for handler in ("surrogateescape", "backslashreplace"):
        with suppress(UnicodeError):
            return codecs.lookup_error(handler)(error)
    raise error


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. KEY=VALUE of a recipe may stand anywhere, also after options, where argparse stops."""
    if with_nul := [argument for argument in arguments if "\0" in argument]:
        raise InputError(f"{with_nul[0]!r} has a NUL character, which no name or value can have")
    whole = parser()
    options, left = whole.parse_known_args(arguments)
    if isinstance(getattr(options, "recipe", None), str):
        options.set += [text for text in left if not text.startswith("-")]
        left = [text for text in left if text.startswith("-")]
    if left:
        whole.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    whole = argparse.ArgumentParser(
        prog="onemask", description="Give the mask of an object in one frame of a video, get its mask in every frame."
    )
    whole.add_argument("--version", action="version", version=f"onemask {__version__}")
    whole.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return whole
