"""Top-level calls of `onemask`: the commands of the command line, for paths, arrays and loaded methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import explaining
from .errors import InputError
from .jobs import running
from .jobs.run_folder import RunReport
from .methods import DEFAULT
from .methods.method import Method
from .progress import Progress, silent
from .propagation import Annotation, label_maps_of
from .settings import Settings
from .video import writer
from .video.frames import Video
from .video.label_maps import palette
from .video.reader import Source, open_video

if TYPE_CHECKING:  # scores and charts are only imported when needed
    from .evaluation.comparison import Comparison
    from .evaluation.evaluate import Evaluation
    from .training.processes import Hardware
    from .training.recipe import Recipe
    from .training.train import Trained


def run(
    video: Source | Video,
    annotations: Mapping[int, Annotation],
    out: str | Path,
    *,
    method: str | Method = DEFAULT,
    weights: str | Path | None = None,
    short_side: int | None = 480,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    direction: str = "both",
    void: int | None = None,
    save: Sequence[str] = running.SAVED,
    overwrite: bool = False,
    resume: bool = False,
    reuse: str | Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> RunReport:
    """Segment a video and write label maps, an overlay and a contact sheet into a folder, as `onemask run` does.

        onemask.run("clip.mp4", {0: "mask.png"}, "out")

    Args:
        video: see `propagate`.
        annotations: see `propagate`.
        method: see `propagate`.
        short_side: see `propagate`.
        device: see `propagate`.
        precision: see `propagate`.
        runtime: see `propagate`.
        direction: see `propagate`.
        void: see `propagate`.
        options: see `propagate`.
        out: the folder of the results.
        weights: a file of the method's weights; None: the weights found under its name.
        save: outputs to write: "masks", "overlay", "contact-sheet" and the names of `exports.FORMATS`.
        overwrite: replace the results of an earlier run.
        resume: continue an interrupted run, with exactly the same result; start a new one if there is none.
        reuse: the folder of a finished run of the same video with some of these annotations: frames that the other
            annotations do not affect are taken from it, and the result is the same.
        progress: wraps the frames, to show progress.

    Returns:
        The files that were written, and the time taken.

    Raises:
        InputError: an argument is invalid, or does not fit the others.
        OutputError: something cannot be written, or would be overwritten.
        Interrupted: Ctrl-C was pressed; `resume` continues from there.
    """
    return running.run(
        open_video(video),
        label_maps_of(annotations, void),
        out,
        Settings(method, options, weights, short_side, device, precision, runtime),
        direction=direction,
        save=save,
        overwrite=overwrite,
        resume=resume,
        reuse=reuse,
        progress=progress,
    )


def explain(
    video: Source | Video,
    annotations: Mapping[int, Annotation],
    out: str | Path,
    *,
    method: str | Method = DEFAULT,
    weights: str | Path | None = None,
    short_side: int | None = 480,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    object_id: int | None = None,
    frames: int = 6,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Write a picture of what a method matched in some frames, as `onemask explain` does.

    Args:
        video: see `propagate`.
        annotations: see `propagate`.
        method: see `propagate`.
        short_side: see `propagate`.
        device: see `propagate`.
        precision: see `propagate`.
        runtime: see `propagate`.
        options: see `propagate`.
        out: the picture's file, .png or .jpg.
        weights: see `run`.
        object_id: an object of the first annotated frame; None: the one with the lowest id.
        frames: number of frames to show, including the annotated one; 2 or more.
        overwrite: replace the file.

    Raises:
        InputError: an argument is invalid, or does not fit the others.
        OutputError: the file already exists, or cannot be written.
    """
    settings = Settings(method, options, weights, short_side, device, precision, runtime)
    explaining.explain(
        open_video(video),
        label_maps_of(annotations, None),
        out,
        settings,
        object_id=object_id,
        frames=frames,
        overwrite=overwrite,
    )


def evaluate(
    root: str | Path,
    out: str | Path,
    *,
    method: str | Method = DEFAULT,
    weights: str | Path | None = None,
    short_side: int | None = 480,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    protocol: str = "davis2016",
    split: str = "val",
    sequences: Sequence[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    ray: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Evaluation:
    """Run a method over a dataset and score it, as `onemask evaluate` does.

    Args:
        root: the dataset's folder, in its own layout, see `onemask evaluate --help`.
        out: the folder of the results.
        protocol: davis2016, davis2017, youtube-vos, jumpcut, jumpcut-online or youtube-objects.
        split: a split of DAVIS or YouTube-VOS; the other datasets have none.
        sequences: names of sequences of the split or dataset; None: all.
        overwrite: start over.
        resume: continue an earlier evaluation with the same settings; finished sequences are not run again.
        ray: the address of a Ray cluster to run on; empty: the cluster that RAY_ADDRESS names, else one already
            running on this machine, else one started for this call; None: run in this process.
        progress: see `run`.
        method: see `propagate`.
        short_side: see `propagate`.
        device: see `propagate`.
        precision: see `propagate`.
        runtime: see `propagate`.
        options: see `propagate`.
        weights: see `run`.

    Returns:
        The scores, and the time per frame.

    Raises:
        InputError: an argument is invalid, or does not fit the others.
        OutputError: `out` holds something else.
    """
    from .evaluation import evaluate as evaluating

    settings = Settings(method, options, weights, short_side, device, precision, runtime)
    return evaluating.evaluate(
        root,
        out,
        settings,
        protocol=protocol,
        split=split,
        sequences=sequences,
        overwrite=overwrite,
        resume=resume,
        ray=ray,
        progress=progress,
    )


def compare(
    root: str | Path,
    out: str | Path,
    methods: Mapping[str, str | Method] | Sequence[str],
    *,
    short_side: int | None = 480,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    protocol: str = "davis2016",
    split: str = "val",
    sequences: Sequence[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    ray: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Comparison:
    """Evaluate several methods, and write a table and a chart of speed and accuracy, as `onemask compare` does.

    Args:
        root: see `evaluate`.
        protocol: see `evaluate`.
        split: see `evaluate`.
        sequences: see `evaluate`.
        out: the folder for evaluations, table and chart.
        overwrite: start over.
        resume: continue an earlier comparison in `out`, or add methods to it.
        ray: see `evaluate`.
        progress: see `run`.
        methods: label -> a method, or a string "METHOD [NAME=VALUE ...]"; or a list of such strings, each optionally
            preceded by "LABEL: ", and otherwise its own label.
        short_side: see `propagate`; for methods whose string does not set it.
        device: see `propagate`; for methods whose string does not set it.
        precision: see `propagate`; for methods whose string does not set it.
        runtime: see `propagate`; for methods whose string does not set it.
        options: options that all methods have; for methods whose string does not set them.

    Returns:
        The contents of the table.

    Raises:
        InputError: an argument is invalid, or does not fit the others.
        OutputError: `out` holds something else.
        OnemaskError: every method failed.
    """
    from .evaluation import compare as comparing

    shared = Settings(options=options, short_side=short_side, device=device, precision=precision, runtime=runtime)
    if isinstance(methods, str):
        raise InputError(f"methods must be a list, or a mapping of labels to methods, got the text {methods!r}")
    named = methods.items() if isinstance(methods, Mapping) else ((None, text) for text in methods)
    variants = [_variant(label, method, shared) for label, method in named]
    return comparing.compare(
        root,
        out,
        variants,
        protocol=protocol,
        split=split,
        sequences=sequences,
        overwrite=overwrite,
        resume=resume,
        ray=ray,
        progress=progress,
    )


def train(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    method: Method | None = None,
    data: str | Path = ".",
    cache: str | Path | None = None,
    hardware: Hardware | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> Trained:
    """Train a method by a recipe, as `onemask train` does.

    Args:
        recipe: a `Recipe`, which is validated, or a YAML file.
        method: the method to start from, with the recipe's configuration; it is trained in place. None: built as the
            recipe says.
        out: the folder of the results.
        data: the folder that the recipe's roots are relative to.
        cache: the cache folder of stages with `cache`; None: `out/cache`. Several trainings may share it.
        hardware: devices and hosts; None: the best device of this host.
        overwrite: replace an earlier training in `out`.
        resume: continue from the newest checkpoint in `out`, with the same result; start a new training if there is
            none.
        progress: see `run`.

    Returns:
        The weights, and their scores.

    Raises:
        InputError: an argument is invalid, or does not fit the others; nothing was written.
        OutputError: `out` is not empty, or cannot be written.
        Interrupted: Ctrl-C was pressed; `resume` continues from there.
    """
    from .training import train as training
    from .training.recipe import read_recipe

    return training.train(
        read_recipe(recipe) if isinstance(recipe, (str, Path)) else recipe,
        out,
        method=method,
        data=data,
        cache=cache,
        hardware=hardware,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
    )


def write_overlay(
    video: Source | Video,
    label_maps: Iterable[np.ndarray],
    path: str | Path,
    *,
    colours: np.ndarray | None = None,
    alpha: float = 0.5,
) -> int:
    """Write a video with its label maps drawn over the frames, keeping its timing and sound.

    Args:
        video: see `open_video`.
        label_maps: (H, W) integer, of frames 0, 1, ...; the overlay ends with the last of them.
        path: the file; its suffix chooses the format, such as .mp4.
        colours: (n, 3) uint8 RGB, by label; None: the DAVIS palette.
        alpha: opacity of the colour inside objects, in [0, 1].

    Returns:
        The number of frames written.

    Raises:
        InputError: there are more label maps than frames, or they differ in size; or an argument is out of range.
        OutputError: the file cannot be written.
    """
    return writer.write_overlay(
        open_video(video), label_maps, path, palette() if colours is None else colours, alpha=alpha
    )


def _variant(label: str | None, method: str | Method, shared: Settings) -> Any:
    from dataclasses import replace

    from .evaluation.compare import Variant

    if isinstance(method, Method):
        return Variant(label or type(method).__name__, replace(shared, method=method))
    parsed = Variant.parse(method, shared)
    return parsed if label is None else Variant(label, parsed.settings)
