"""Advice for installing a missing package of an extra."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit


def how_to_install(extra: str) -> str:
    """The command that adds an extra to onemask, from the source it was installed from.

    The package index is only suggested if onemask came from it: the name there may belong to another project.
    """
    folder = _folder()
    if folder is None:
        return f"install onemask again, from where you have it, with the extra [{extra}]"
    return f"pip install '{folder}[{extra}]'"


def _folder() -> str | None:
    """The folder that pip recorded if it installed onemask from a folder."""
    try:
        address = urlsplit(json.loads(distribution("onemask").read_text("direct_url.json") or "{}")["url"])
    except (PackageNotFoundError, ValueError, KeyError, TypeError):
        return None
    return unquote(address.path) if address.scheme == "file" else None
