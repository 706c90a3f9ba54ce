"""What is said of bad input is said in words that the command line has, too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import onemask

SOURCE = Path(onemask.__file__).parent
ERRORS = ("InputError", "OutputError", "OnemaskError", "DecodeError", "ArgumentTypeError")
# What only Python has: name=True, name="text", a call.
PYTHON = re.compile(r"""\b\w+=(?:True|False|None|"|')|\b\w+\(\)""")


def messages() -> list[tuple[str, str]]:
    """Where each error is made, and its words without what is filled in."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(ERRORS):
                words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                found.append((f"{path.name}:{node.lineno}", "".join(word for word in words if isinstance(word, str))))
    return found


def test_no_message_names_an_argument_of_python():
    found = messages()
    assert len(found) > 300
    assert [(where, said) for where, said in found if PYTHON.search(said)] == []
