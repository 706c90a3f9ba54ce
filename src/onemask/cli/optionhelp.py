"""Help for the options of a method, taken from the comments beside them in the code."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from typing import Any


def option_comments(configuration: Any) -> dict[str, str]:
    """Option -> the comment on its line in the configuration's dataclass; none where the source is not there."""
    comments: dict[str, str] = {}
    for ancestor in reversed(type(configuration).__mro__[:-1]):
        try:
            source = textwrap.dedent(inspect.getsource(ancestor))
        except (OSError, TypeError):
            continue
        comments |= _comments_of_fields(source)
    return comments


def _comments_of_fields(source: str) -> dict[str, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: by_line[field.end_lineno]
        for field in definition.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.end_lineno in by_line
    }
