"""A project as the page sees it: its state, its frames, the methods, and the equivalent command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from .. import __version__
from ..methods import METHODS, names
from . import exporting, jobs
from .project import RUN, Project

Event = dict[str, Any]


def project(of: Project) -> Event:
    """Return the "state" event without the fields that the desk adds: job, problem and command."""
    info = of.video.info
    return {
        "type": "state",
        "version": __version__,
        "video": {
            "id": of.video_id,
            "name": of.name,
            "width": info.width,
            "height": info.height,
            "frames": of.frames,
            "fps": float(info.fps) if info.fps else None,
        },
        "objects": [asdict(thing) for thing in of.objects],
        "method": asdict(of.method),
        "methods": methods(),
        "keys": sorted(of.keys),
        "undo": of.to_undo,
        "redo": of.to_redo,
        "exports": [
            {
                "name": name,
                "summary": summary,
                "has_alpha": exporting.has_alpha(name),
                "group": exporting.group(name),
            }
            for name, summary in exporting.formats().items()
        ],
        "edges": exporting.edges(),
    }


def frames(of: Project, indices: Iterable[int]) -> Event:
    """Return the "frames" event: rows [frame, status, lowest confidence of objects in it or None, doubt, ids in it]."""
    rows, listed = [], list(indices)
    for index, status in zip(listed, jobs.statuses(of, listed), strict=True):
        made, key = of.made.get(index), of.keys.get(index)
        seen = {} if made is None else {i: c for i, c in made.confidence.items() if c > 0}
        doubt = "" if made is None or key is not None else made.doubt
        ids = sorted(seen.keys() | (set() if key is None else key.ids))
        rows.append([index, status, min(seen.values(), default=None), doubt, ids])
    return {"type": "frames", "frames": rows}


def command_line(of: Project, *, goes_on: bool) -> str | None:
    """Return the command line that computes the same label maps; None without annotations. goes_on: with --resume."""
    if not of.keys:
        return None
    parts = ["onemask", "run", str(of.path_of_video)]
    for index, path in of.annotation_files().items():
        parts += ["--mask", f"{index}:{path}"]
    for setting in fields(of.method):
        value = getattr(of.method, setting.name)
        if value != setting.default:
            parts += [f"--{setting.name.replace('_', '-')}", "0" if value is None else str(value)]
    return shlex.join([*parts, "--out", str(of.folder / RUN), "--resume" if goes_on else "--overwrite"])


def methods() -> list[dict[str, str]]:
    """List the methods that can run without further setup: those whose weights ship, and those of other packages."""
    return [
        {"name": name, "summary": summary}
        for name, summary in names().items()
        if name not in METHODS or METHODS[name].ships
    ]
