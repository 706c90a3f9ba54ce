"""Export of a method as files that run without onemask and PyTorch: `onemask export`.

    encode      frame                              -> features
    memorize    features, mask                     -> memory       in frames where an object is annotated
    segment     features, memory                   -> prediction   includes "prediction.logits"
    update      features, memory, prediction, mask -> memory       mask: its probability after soft aggregation

Each graph is for one frame and one object; the caller keeps the memory, one set of tensors per object. Tensors are
identified by name, and the output of one graph is the input of another under the same name.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..errors import InputError, OutputError, is_out_of_memory
from ..files import (
    fingerprint,
    fingerprint_of,
    read_json,
    refuse_existing,
    remove,
    remove_temporaries,
    write_bytes,
    write_json,
)
from ..geometry import Geometry
from ..labels import aggregate
from ..methods.method import Method, Record
from .engines import onnx_engine, openvino_engine, problem_with
from .graphs import Given, for_tracing, onnx_of, ordinary_tensors, refuse_without_backbone, traced
from .manifest import described, manifest_of

log = logging.getLogger(__name__)

FORMATS = ("onnx", "openvino")
LOOP = ("memorize", "segment", "update")
CHECKED_FRAMES = 3
DIFFERING = 1e-3  # largest share of pixels that may differ
MANIFEST, PROGRAM_NAME = "manifest.json", "run.py"
NAMES = (PROGRAM_NAME, *(f"{graph}{suffix}" for graph in ("encode", *LOOP) for suffix in (".onnx", ".xml", ".bin")))
PROGRAM = Path(__file__).with_name("reference_program.py")
UNFINISHED = "this export was interrupted; run onemask export again, with --overwrite"


@dataclass(frozen=True)
class Exported:
    """The result of `export`."""

    graphs: tuple[str, ...]
    files: dict[str, str]
    missing: str | None
    """The reason why the graphs of the loop are missing; None: they are not."""


def export(
    method: Method,
    out: str | Path,
    *,
    name: str,
    frame_size: tuple[int, int],
    format: str,
    short_side: int | None = 480,
    overwrite: bool = False,
) -> Exported:
    """Write a method's graphs, a manifest that explains them, and a program that segments a video with them.

    The manifest is complete when all else is written. Until then it says that the export is unfinished, and which files
    belong to it, so that `overwrite` also replaces what an interrupted export left.

    If the graphs of objects do not reproduce PyTorch's masks, as for methods that solve or sort depending on the frame,
    only `encode` is written, and the manifest says why.

    Args:
        method: in evaluation mode, on a CPU.
        out: the folder.
        name: the method's name, for the manifest.
        frame_size: height and width of the frames that the program is for.
        format: one of `FORMATS`.
        short_side: short side of the graphs' working size, as in `Session`; None: frames keep their size.
        overwrite: replace an earlier export; nothing else is replaced.

    Raises:
        InputError: the format is not known, its package is not installed, or the method has no backbone of its own.
        OutputError: the folder is not empty, or cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"format must be {' or '.join(FORMATS)}, got {format!r}")
    for needed in ("onnx", format):  # onnx also checks the graphs
        if problem := problem_with(needed):
            raise InputError(f"an export to {format} {problem}")
    refuse_without_backbone(method, name, "exported")
    folder = Path(out)
    refuse_existing(folder, overwrite)
    earlier = _earlier(folder)
    enlarged = method.least_side, method.magnify
    geometry = Geometry.of(frame_size, short_side, method.stride, method.padding, *enlarged)
    models = {"encode": onnx_of(method, geometry.padded)}
    missing = None
    try:
        loop = _loop_of(for_tracing(method), geometry.padded) if method.traceable else None
        missing = "what it computes depends on what a frame shows" if loop is None else None
        if loop is not None:
            differing = _differing(method, geometry.padded, models | loop, format)
            if differing > DIFFERING:
                missing = f"their masks differ from PyTorch's in {100 * differing:.2g} % of the pixels"
            else:
                models |= loop
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        missing = f"PyTorch's exporter cannot trace what the method computes for an object ({reason})"
    write = _write_onnx if format == "onnx" else _write_openvino
    parts = {graph: write(graph, model) for graph, model in models.items()}
    if missing is None:
        parts["program"] = {PROGRAM_NAME: PROGRAM.read_bytes()}
    manifest = manifest_of(method, name, geometry, format, models, missing)
    fingerprints = {path: fingerprint_of(data) for contents in parts.values() for path, data in contents.items()}
    remove_temporaries(folder, (MANIFEST, *NAMES))
    begun = {"onemask": __version__, "unfinished": UNFINISHED, "files": fingerprints, "replaced files": earlier}
    write_json(folder / MANIFEST, begun)
    files = {"manifest": str(folder / MANIFEST)}
    for part, contents in parts.items():
        for path, data in contents.items():
            write_bytes(folder / path, data)
            files.setdefault(part, str(folder / path))
    for left in set(earlier).difference(fingerprints):  # graphs that this method does not have
        remove(folder / left)
    write_json(folder / MANIFEST, manifest | {"files": fingerprints})
    return Exported(tuple(models), files, missing)


# Graphs of the loop ---------------------------------------------------------------------------------------------------


def named(kind: str, record: Record) -> dict[str, Tensor]:
    """The tensors of features, a memory or a prediction by name: "memory.long", "features.shared.16"."""
    found: dict[str, Tensor] = {}
    for field, value in vars(record).items():
        if isinstance(value, Mapping):
            found |= {f"{kind}.{field}.{key}": inner for key, inner in value.items() if isinstance(inner, Tensor)}
        elif isinstance(value, Tensor) and field not in ("frames", "frame_of_row"):
            found[f"{kind}.{field}"] = value
    return found


def _rebuilt(kind: str, outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `named`; values that it left out are taken from the outline."""
    changed: dict[str, Any] = {}
    for field, value in vars(outline).items():
        if isinstance(value, Mapping):
            changed[field] = {key: tensors.get(f"{kind}.{field}.{key}", inner) for key, inner in value.items()}
        elif f"{kind}.{field}" in tensors:
            changed[field] = tensors[f"{kind}.{field}"]
    return replace(outline, **changed)


def _loop_of(method: Method, size: tuple[int, int]) -> dict[str, bytes]:
    """Graphs of the calls that depend on the object, by name, as ONNX files."""
    with ordinary_tensors():
        frames = torch.rand(1, 3, *size)
        # As in training, each row states its frame, so that the method does not look for work shared between rows.
        features = method.encode(frames).for_rows(torch.zeros(1, dtype=torch.long))
        mask = torch.zeros(1, 1, *size)
        mask[..., size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 1
        memory = _without_numbers(method.memorize(features, mask))
        prediction = method.segment(features, memory)

        def memorize(of: Given) -> dict[str, Tensor]:
            return named("memory", _without_numbers(method.memorize(_rebuilt("features", features, of), of["mask"])))

        def segment(of: Given) -> dict[str, Tensor]:
            seen, known = _rebuilt("features", features, of), _rebuilt("memory", memory, of)
            return named("prediction", method.segment(seen, known))

        def update(of: Given) -> dict[str, Tensor]:
            seen, known = _rebuilt("features", features, of), _rebuilt("memory", memory, of)
            after = method.update(known, seen, _rebuilt("prediction", prediction, of), of["mask"])
            return named("memory", _without_numbers(after))

        of_frame, of_object = named("features", features), named("memory", memory)
        predicted = named("prediction", prediction)
        return {
            "memorize": _graph(method, memorize, {**of_frame, "mask": mask}),
            "segment": _graph(method, segment, of_frame | of_object),
            "update": _graph(method, update, {**of_frame, **of_object, **predicted, "mask": mask}),
        }


def _without_numbers(memory: Any) -> Any:
    """A memory without frame numbers, which only tell which rows share a frame."""
    return replace(memory, first_frame=None, last_frame=None)


def _graph(method: Method, function: Callable[[Given], dict[str, Tensor]], given: Given) -> bytes:
    # Names in a graph are unique, and an updated tensor is both input and output: outputs get a mark.
    names = [f"{name}'" for name in function({name: tensor.clone() for name, tensor in given.items()})]
    return traced(method, lambda tensors: list(function(tensors).values()), given, names)


# Check ----------------------------------------------------------------------------------------------------------------


def _differing(method: Method, size: tuple[int, int], models: Mapping[str, bytes], format: str) -> float:
    """The largest share of a frame's pixels in which the graphs' and the method's masks of a moving square differ.

    The graphs run in the runtime that they are for.
    """
    engine = onnx_engine if format == "onnx" else openvino_engine
    runs = {name: engine(model, torch.get_num_threads()) for name, model in models.items()}
    outputs = {name: described(model)["outputs"] for name, model in models.items()}

    def called(graph: str, tensors: Given) -> dict[str, Tensor]:
        shapes = {name.rstrip("'"): output["shape"] for name, output in outputs[graph].items()}
        found = zip(shapes.items(), runs[graph](tensors), strict=True)
        return {name: value if all(shape) else torch.zeros(shape) for (name, shape), value in found}

    generator = torch.Generator().manual_seed(0)
    grain = torch.rand(1, 3, *size, generator=generator) * 0.3
    worst, known, memory = 0.0, {}, None
    with torch.inference_mode():
        for number in range(CHECKED_FRAMES + 1):
            top, left = size[0] // 4 + 2 * number, size[1] // 4 + 3 * number
            square = torch.zeros(1, 1, *size)
            square[..., top : top + size[0] // 3, left : left + size[1] // 3] = 1
            frame = grain + 0.6 * square
            features, own = method.encode(frame), called("encode", {"frame": frame})
            own = {f"features.{name}": value for name, value in own.items()}
            if memory is None:
                memory = method.memorize(features, square)
                known = called("memorize", {**own, "mask": square})
                continue
            prediction = method.segment(features, memory)
            wanted = aggregate(prediction.logits.float().sigmoid(), background=method.background)[0]
            predicted = called("segment", own | known)
            found = aggregate(predicted["prediction.logits"].sigmoid(), background=method.background)[0]
            worst = max(worst, float(((wanted > 0.5) != (found > 0.5)).float().mean()))
            memory = method.update(memory, features, prediction, wanted)
            known |= called("update", {**own, **known, **predicted, "mask": found})
    return worst


# Files ----------------------------------------------------------------------------------------------------------------


def _earlier(folder: Path) -> dict[str, str]:
    """Fingerprints of an earlier export's files in a folder, without the manifest.

    Raises OutputError if a file that is to be replaced is not as an export wrote it.
    """
    manifest: Any = {}
    with suppress(InputError):  # then nothing is known about the files
        manifest = read_json(folder / MANIFEST, "")
    parts = [manifest.get(key) for key in ("files", "replaced files")] if isinstance(manifest, dict) else []
    known: list[dict[str, str]] = [files for files in parts if isinstance(files, dict)]
    there = {name: fingerprint(folder / name) for name in NAMES if known and (folder / name).is_file()}
    ours = {name: is_now for name, is_now in there.items() if is_now in [files.get(name) for files in known]}
    written = [*ours, MANIFEST] if known else []
    if foreign := [name for name in (MANIFEST, *NAMES) if name not in written and (folder / name).exists()]:
        raise OutputError(
            f"{folder / foreign[0]} was not written by an export, or was changed since, so it is not replaced; move "
            "it, or choose another place"
        )
    return ours


def _write_onnx(graph: str, model: bytes) -> dict[str, bytes]:
    return {f"{graph}.onnx": model}


def _write_openvino(graph: str, model: bytes) -> dict[str, bytes]:
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{graph}.xml"
        try:
            openvino.save_model(openvino.Core().read_model(model), path, compress_to_fp16=False)
        except RuntimeError as error:
            raise InputError(f"OpenVINO cannot read the graph {graph} of this method; export it as onnx") from error
        return {file.name: file.read_bytes() for file in (path, path.with_suffix(".bin"))}
