"""The table of formats: name, summary, file or folder, writer, and a reader if masks can be read back.

Nothing heavy is imported here, because the command line lists the table in its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Format:
    """An entry of the table."""

    summary: str
    file: str
    """Name of the output in the folder of a run; ends with a slash if it is a folder of files."""
    writer: str
    """module:function, called with a `Result`, a `Target` and `ExportOptions`."""
    reader: str | None = None
    """module:function, called with a path and the video, yields `Masks` in frame order; None: cannot be read back."""
    needs_video: bool = False
    """Whether the video's pictures are always needed."""
    has_alpha: bool = False
    """Whether it stores alpha, which --matte softens."""
    has_void: bool = False
    """Whether it stores label maps, one of whose values may be void: its reader also takes `void`."""

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder of files."""
        return self.file.endswith("/")

    def write(self, *arguments: Any) -> None:
        """Call the writer."""
        function(self.writer)(*arguments)


FORMATS = {
    "png": Format("label maps as indexed PNG, as in DAVIS", "png/", "pictures:write_indexed"),
    "youtube-vos": Format(
        "ZIP of indexed PNG of every fifth frame, for YouTube-VOS's server",
        "youtube-vos.zip",
        "pictures:write_youtube_vos",
    ),
    "binary": Format("a black and white PNG for each object and frame", "binary/", "pictures:write_binary"),
    "alpha": Format(
        "a matte for each object and frame, hard or soft: 8-bit grey PNG",
        "alpha/",
        "pictures:write_alpha",
        has_alpha=True,
    ),
    "alpha16": Format(
        "a matte for each object and frame, hard or soft: 16-bit grey PNG",
        "alpha16/",
        "pictures:write_alpha_16",
        has_alpha=True,
    ),
    "prores": Format(
        "the objects cut out, ProRes 4444 with alpha (MOV)",
        "cutout.mov",
        "cutout:write_prores",
        needs_video=True,
        has_alpha=True,
    ),
    "webm": Format(
        "the objects cut out, VP9 with alpha (WebM)",
        "cutout.webm",
        "cutout:write_webm",
        needs_video=True,
        has_alpha=True,
    ),
    "coco": Format("COCO JSON with run lengths", "coco.json", "coco:write_coco", "coco:read_coco"),
    "youtube-vis": Format(
        "YouTube-VIS JSON with run lengths", "youtube-vis.json", "coco:write_youtube_vis", "coco:read_youtube_vis"
    ),
    "cvat": Format("CVAT for video 1.1, XML", "cvat.xml", "cvat:write_cvat", "cvat:read_cvat"),
    "label-studio": Format(
        "Label Studio JSON with brush strokes",
        "label-studio.json",
        "label_studio:write_label_studio",
        "label_studio:read_label_studio",
    ),
    "polygons": Format(
        "outlines of every object, JSON", "polygons.json", "polygons:write_polygons", "polygons:read_polygons"
    ),
    "npz": Format(
        "all label maps in one NumPy archive", "label-maps.npz", "arrays:write_npz", "arrays:read_npz", has_void=True
    ),
    "exr": Format(
        "a matte for each object as a channel of OpenEXR, hard or soft", "exr/", "exr:write_exr", has_alpha=True
    ),
    "csv": Format("area, box, centre and confidence of every object in every frame", "objects.csv", "table:write_csv"),
    "parquet": Format(
        "area, box, centre and confidence of every object in every frame, as Parquet",
        "objects.parquet",
        "table:write_parquet",
    ),
}


NAMES_IN_UTF_8 = {  # formats that require UTF-8 -> which names must be
    "youtube-vos": ("video", "frames"),
    "parquet": ("frames",),
}


NEEDS_EXTRA = {  # format -> function that raises if a package is missing
    "coco": "coco:coder",
    "youtube-vis": "coco:coder",
    "exr": "exr:openexr",
    "parquet": "table:arrow",
}


def export_format(name: str) -> Format:
    """Look up a format by name. Raises InputError if there is none."""
    if name not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}; got {name!r}")
    return FORMATS[name]


def function(name: str) -> Any:
    """Import a function that a table names as "module:function"."""
    module, _, function = name.partition(":")
    return getattr(import_module(f".{module}", __package__), function)
