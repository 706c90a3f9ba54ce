"""Defaults of a user or a project: `onemask.toml`, what it may say, and `onemask config`.

    short_side = 360          # of every command that has --short-side
    [run]
    save = ["masks", "csv"]   # of `onemask run` alone

Keys are the commands' long options without dashes. What is given on the command line holds in their place. Files: that
which the variable ONEMASK_CONFIG names (empty: none), or else `onemask.toml` in the user's folder, and over it
`onemask.toml` in this folder, or the nearest above it that has one.
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
NEVER = ("overwrite", "resume", "json", "help")  # options that are meant each time anew
ADDED = ("set",)  # what the command line says comes behind


@dataclass(frozen=True)
class Default:
    """A value that a file gives."""

    key: str
    """As the file has it: "short_side", "run.save"."""
    value: Any
    file: Path


def files() -> list[Path]:
    """The files that are read, in the order in which they are. Raises InputError where the variable's is missing."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        if named and not Path(named).is_file():
            raise InputError(f"{VARIABLE} names {named}, which is no file; name one, or unset it")
        return [Path(named)] if named else []
    from ..weights.store import home

    here = Path.cwd()
    nearest = next((folder / NAME for folder in (here, *here.parents) if (folder / NAME).is_file()), None)
    users = home() / NAME
    return list(dict.fromkeys(path for path in (users, nearest) if path is not None and path.is_file()))


def read() -> list[Default]:
    """All that the files say. Raises InputError for what is no TOML."""
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
    """Put the files' values where the command line gives none.

    options: as parsed. given: names of the options that the command line gives.
    Raises InputError for a key that no command has, or a value that the option does not take.
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
    """The defaults, of all commands before those of one. Raises InputError for a key or a value that cannot be."""
    for default in defaults:
        command, _, key = default.key.rpartition(".")
        if command and command not in commands:
            raise InputError(f"{default.file}: [{command}] is no command; expected one of {', '.join(commands)}")
        having = [commands[command]] if command else list(commands.values())
        actions = [action for action in (_option(parser, key) for parser in having) if action is not None]
        if key.replace("-", "_") in NEVER:
            raise InputError(f"{default.file}: {default.key} cannot be a default; give --{key} when you mean it")
        if not actions:
            raise InputError(
                f"{default.file}: {default.key} is no option that can have a default; keys are long options without "
                "dashes, see `onemask COMMAND --help`"
            )
        _taken(actions[0], default)
    return sorted(defaults, key=lambda default: "." in default.key)


def parsers(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands' own parsers, by name."""
    (commands,) = (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def _option(parser: argparse.ArgumentParser, key: str) -> argparse.Action | None:
    """The option that a key names, if it need not be given."""
    action = parser._option_string_actions.get(f"--{key.replace('_', '-')}")
    return None if action is None or action.required else action


def _taken(action: argparse.Action, default: Default) -> Any:
    """A file's value as the option would have it. Raises InputError."""

    def refusal(expected: str) -> InputError:
        return InputError(f"{default.file}: {default.key} = {default.value!r}: expected {expected}")

    if action.nargs == 0:
        if not isinstance(default.value, bool):
            raise refusal("true or false")
        return default.value
    several = isinstance(action, argparse._AppendAction)  # _ExtendAction is one
    if isinstance(default.value, (dict, bool)) or (isinstance(default.value, list) and not several and not action.type):
        raise refusal("a text or a number" if not several else "a list")
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
        help="show the defaults that onemask.toml sets, and where",
        description="Show the defaults that onemask.toml sets. It is read from the user's folder, and over it from "
        f"this folder or the nearest above it that has one; the variable {VARIABLE} names another file, or none.",
        epilog="onemask.toml:  short_side = 360  of every command that has --short-side;  [run] and below it "
        'save = ["masks", "csv"]  of one command. Keys are long options without dashes; the command line holds in '
        "their place.",
    )
    config.set_defaults(command=_config)


def _config(options: argparse.Namespace) -> None:
    from ..weights.store import home
    from . import parser

    read_from, defaults = files(), read()
    defaults = check(defaults, parsers(parser()))
    holds = {default.key: default for default in defaults}  # of one key in two files the last
    options.answer = {
        "files": [str(path) for path in read_from],
        "user": str(home() / NAME),
        "defaults": {key: {"value": default.value, "file": str(default.file)} for key, default in holds.items()},
    }
    print(f"# read: {', '.join(map(str, read_from)) or f'nothing; {home() / NAME}, or {NAME} in a project'}")
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
