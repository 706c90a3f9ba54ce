"""Defaults of a user or a project: `onemask.toml`, how it is checked, and `onemask config`.

    short_side = 360          # for every command that has --short-side
    [run]
    save = ["masks", "csv"]   # for `onemask run` only

Keys are the commands' long options without dashes. The command line takes precedence. The file is the one that the
variable ONEMASK_CONFIG names (empty: none). If it is not set, `onemask.toml` in the user's folder is read first, and
overridden by `onemask.toml` in the working directory or the nearest parent that has one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_text

NAME, VARIABLE = "onemask.toml", "ONEMASK_CONFIG"
NEVER = ("overwrite", "resume", "json", "help")  # options that must be given each time
ADDED = ("set",)  # the command line's values are appended to the file's


@dataclass(frozen=True)
class Default:
    """A value from a file."""

    key: str
    """Key in the file: "short_side", "run.save"."""
    value: Any
    file: Path


def files() -> list[Path]:
    """List the files to read, in order. Raises InputError if the file that ONEMASK_CONFIG names is missing."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        if named and not Path(named).is_file():
            raise InputError(f"{VARIABLE} names {named}, which is not a file; name one, or unset it")
        return [Path(named)] if named else []
    from ..weights.store import home

    here = Path.cwd()
    nearest = next((folder / NAME for folder in (here, *here.parents) if (folder / NAME).is_file()), None)
    users = home() / NAME
    return list(dict.fromkeys(path for path in (users, nearest) if path is not None and path.is_file()))


def read() -> list[Default]:
    """Read all values in the files. Raises InputError if a file is not valid TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    found = []
    for path in files():
        try:
            content = tomllib.loads(read_text(path, "TOML"))
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path}: {error}; expected TOML, such as short_side = 360") from None
        for key, value in content.items():
            if isinstance(value, dict):
                found += [Default(f"{key}.{inner}", inside, path) for inner, inside in value.items()]
            else:
                found.append(Default(key, value, path))
    return found


def apply(options: argparse.Namespace, given: Container[str], whole: argparse.ArgumentParser) -> None:
    """Set options that the command line does not give to the values from the files.

    options: the parsed arguments, modified in place. given: names of the options that the command line gives.
    Raises InputError for a key that no command has, or a value that the option does not accept.
    """
    defaults = read()
    if not defaults:
        return
    commands = parsers(whole)
    name = options.name_of_command
    for default in check(defaults, commands):
        command, _, key = default.key.rpartition(".")
        action = _option(commands[name], key)
        if command not in ("", name) or action is None:
            continue
        value = _taken(action, default)
        if action.dest in ADDED and isinstance(value, list):
            setattr(options, action.dest, [*value, *getattr(options, action.dest)])
        elif action.dest not in given:
            setattr(options, action.dest, value)


def check(defaults: Sequence[Default], commands: dict[str, argparse.ArgumentParser]) -> list[Default]:
    """Sort defaults so those for all commands precede those for one. Raises InputError for an invalid key or value."""
    for default in defaults:
        command, _, key = default.key.rpartition(".")
        if command and command not in commands:
            raise InputError(f"{default.file}: [{command}] is not a command; expected one of {', '.join(commands)}")
        having = [commands[command]] if command else list(commands.values())
        actions = [action for action in (_option(parser, key) for parser in having) if action is not None]
        if key.replace("-", "_") in NEVER:
            raise InputError(f"{default.file}: {default.key} cannot be a default; give --{key} when you mean it")
        if not actions:
            raise InputError(
                f"{default.file}: {default.key} is not an option that can have a default; keys are long options "
                "without dashes, see `onemask COMMAND --help`"
            )
        _taken(actions[0], default)
    return sorted(defaults, key=lambda default: "." in default.key)


def parsers(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands, by name."""
    (commands,) = (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def _option(parser: argparse.ArgumentParser, key: str) -> argparse.Action | None:
    """Return the option that a key names, if there is one and it is not required."""
    action = parser._option_string_actions.get(f"--{key.replace('_', '-')}")
    return None if action is None or action.required else action


def _taken(action: argparse.Action, default: Default) -> Any:
    """Convert a file's value to the option's type. Raises InputError if it is not valid."""

    def refusal(expected: str) -> InputError:
        return InputError(f"{default.file}: {default.key} = {default.value!r}: expected {expected}")

    if action.nargs == 0:
        if not isinstance(default.value, bool):
            raise refusal("true or false")
        return default.value
    several = isinstance(action, argparse._AppendAction)  # _ExtendAction is a subclass
    if isinstance(default.value, (dict, bool)) or (isinstance(default.value, list) and not several and not action.type):
        raise refusal("a string or a number" if not several else "a list")
    values = default.value if isinstance(default.value, list) else [default.value]
    texts = [str(value) for value in values]
    if isinstance(default.value, list) and (not several or isinstance(action, argparse._ExtendAction)):
        texts = [",".join(texts)]
    read = list(_read(action, texts, refusal))
    if isinstance(action, argparse._ExtendAction):
        return [part for value in read for part in value]
    return read if several else read[0]


def _read(action: argparse.Action, texts: Sequence[str], refusal: Any) -> Iterator[Any]:
    for text in texts:
        try:
            value = action.type(text) if callable(action.type) else text
        except (ValueError, TypeError, argparse.ArgumentTypeError):
            raise refusal(f"what --{action.dest.replace('_', '-')} takes") from None
        if action.choices is not None and value not in action.choices:
            raise refusal(f"one of {', '.join(map(str, action.choices))}")
        yield value


def add_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask config`."""
    config = commands.add_parser(
        "config",
        help="show the defaults that onemask.toml sets, and which file sets them",
        description="Show the defaults that onemask.toml sets. The file in your onemask folder is read first, then "
        f"the one in this folder or its nearest parent, which takes precedence. The environment variable {VARIABLE} "
        "names another file to read instead, or none if it is empty.",
        epilog='onemask.toml:  short_side = 360  applies to every command that has --short-side;  save = ["masks", '
        '"csv"]  below  [run]  to one command. Keys are long options without dashes; the command line takes '
        "precedence.",
    )
    config.set_defaults(command=_config)


def _config(options: argparse.Namespace) -> None:
    from ..weights.store import home
    from . import parser

    read_from, defaults = files(), read()
    defaults = check(defaults, parsers(parser()))
    holds = {default.key: default for default in defaults}  # if two files have a key, the last one wins
    options.answer = {
        "files": [str(path) for path in read_from],
        "user": str(home() / NAME),
        "defaults": {key: {"value": default.value, "file": str(default.file)} for key, default in holds.items()},
    }
    nowhere = f"no file; defaults can be in {home() / NAME}, or in {NAME} in this folder or one above it"
    print(f"# read: {', '.join(map(str, read_from)) or nowhere}")
    for key, default in sorted(holds.items()):
        print(f"{key} = {_as_toml(default.value)}  # {default.file}")


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def add_completion(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `onemask completion`."""
    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description="Print a script that completes commands, options and files in a shell. Needs the extra "
        "`completion`.",
        epilog="bash: onemask completion bash > ~/.local/share/bash-completion/completions/onemask; zsh: onemask "
        "completion zsh > DIR/_onemask, where DIR is in $fpath; fish: onemask completion fish > "
        "~/.config/fish/completions/onemask.fish",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish", "tcsh", "powershell"])
    completion.set_defaults(command=_completion)


def _completion(options: argparse.Namespace) -> None:
    from ..extras import how_to_install
    from . import parser

    try:
        import shtab
    except ModuleNotFoundError as error:
        raise InputError(
            f"completion needs the package shtab, which is not installed: {how_to_install('completion')}"
        ) from error
    whole = parser()
    for command in parsers(whole).values():
        for action in command._actions:
            kind = (action.metavar if isinstance(action.metavar, str) else "") or ""
            if any(word in kind for word in ("FILE", "INPUT", "VIDEO", "MANIFEST", "WEIGHTS", "RECIPE", "SOURCE")):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif any(word in kind for word in ("DIR", "RESULT", "ROOT", "PREDICTIONS", "ANNOTATIONS")):
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    script = shtab.complete(whole, options.shell)
    options.answer = {"shell": options.shell, "script": script}
    print(script)
