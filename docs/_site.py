"""MkDocs hooks: pages from outside docs/, links that hold in the repository and on the site, the commands' own output.

A link in a page is written as the repository has it, `../benchmarks/frtm.md`; here it is turned into the site's. A line
`<!-- onemask run --help -->` is replaced by what that command prints, so that the reference cannot go stale.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from onemask.cli import main

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/*.md", "recipes/**/*.yaml")
MOVED = {"README.md": "index.md"}  # a page in the repository -> the one that stands for it on the site
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
COMMAND = re.compile(r"^<!-- onemask (.+) -->$", re.MULTILINE)
COLUMNS = "100"  # of the terminal that help is wrapped for


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and recipes that lie beside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Print commands, and resolve links as the repository has them."""
    markdown = COMMAND.sub(lambda match: _printed(match[1].split()), markdown)
    inside = Path(page.file.abs_src_path).is_relative_to(ROOT / "docs")
    folder = posixpath.dirname(f"docs/{page.file.src_uri}" if inside else page.file.src_uri)

    def resolved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        on_site = MOVED.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(on_site) is None:
            return match[0]  # MkDocs names it in its own error
        return match[1] + posixpath.relpath(on_site, posixpath.dirname(page.file.src_uri) or ".") + match[3]

    return LINK.sub(resolved, markdown)


def _printed(arguments: list[str]) -> str:
    """What `onemask ARGUMENTS` prints, as a block of code."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            code: Any = main(arguments)
    except SystemExit as end:  # argparse, after --help
        code = end.code
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if code:
        raise PluginError(f"`onemask {' '.join(arguments)}` ended with exit code {code}")
    return f"```text\n{printed.getvalue().rstrip()}\n```"
