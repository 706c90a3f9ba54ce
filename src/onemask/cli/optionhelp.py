"""Help for the options of a method: the docstring under a field of its configuration, or the comment after it."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from typing import Any


def option_help(configuration: Any) -> dict[str, str]:
    """Map options to one-line descriptions; without options that have none, and empty if the source is unavailable."""
    found: dict[str, str] = {}
    for ancestor in reversed(type(configuration).__mro__[:-1]):
        try:
            source = textwrap.dedent(inspect.getsource(ancestor))
        except (OSError, TypeError):
            continue
        found |= _help_of_fields(source)
    return found


def _help_of_fields(source: str) -> dict[str, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = " ".join(str(below.value.value).split())
            elif field.end_lineno in comments:
                found[field.target.id] = comments[field.end_lineno]
    return found
