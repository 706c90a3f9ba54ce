"""Comparison of several methods on a dataset: an evaluation of each, one table, and the speed-accuracy chart.

OUT/methods.json                      label and folder of every method that was ever requested, in order
OUT/evaluations/FOLDER/               output of `evaluate` for one method; resumed, and reused once it is finished
OUT/comparison.md, .csv, .json        the table: for reading (with the chart), as numbers, as numbers with failures
OUT/comparison.png, .svg              the chart

Scores and times come only from the files of the evaluations; parameters and the size of the weights are those of the
method and the file on this machine. So table and chart can be rewritten without running anything (`redraw`), even with
evaluations that were made elsewhere and copied into OUT/evaluations.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..data.sequence import SequenceDataset
from ..errors import InputError, Interrupted, OnemaskError
from ..files import inside, write_json
from ..jobs.results import ResultFolder
from ..methods import configuration
from ..methods.options import by_todays_names, parse_assignments
from ..progress import Progress, silent
from ..settings import Settings, by_todays_keys
from ..workers.cluster import connected
from .chart import check_installed
from .comparison import NAME, Comparison, Row
from .evaluate import asked_of, evaluate, evaluation_folder, opened, refuse_changed_input
from .protocols import protocol as protocol_of
from .rows import of_earlier_versions, read, row_of

T = TypeVar("T")

log = logging.getLogger(__name__)

FILES = tuple(f"{NAME}{suffix}" for suffix in (".json", ".csv", ".md", ".png", ".svg"))
METHODS = "methods.json"
LONGEST = 80  # characters of a label


# What is compared -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A method with its options, under a label chosen by the user."""

    label: str
    settings: Settings

    def __post_init__(self):
        """Refuse a label that cannot name a folder and a point."""
        if not self.folder or len(self.label) > LONGEST or not self.label.isprintable():
            raise InputError(
                f"a label must contain letters or digits and have at most {LONGEST} characters, got {self.label!r}; "
                "give another: 'LABEL: METHOD NAME=VALUE'"
            )

    @classmethod
    def of(cls, label: str, method: str, options: Mapping[str, Any], shared: Settings) -> Variant:
        """Make a variant of a method's name and options; `shared` has everything else, and options of all methods.

        Raises InputError for an option of `shared` that the method does not have.
        """
        return cls(label, replace(shared, method=method, options=_with_shared(shared.options, options, method)))

    @classmethod
    def parse(cls, text: str, shared: Settings) -> Variant:
        """Parse a method as a user types it: `[LABEL:] METHOD [NAME=VALUE ...]`, quoted as in a shell.

        NAME: an option of the method, or weights, short_side, precision or runtime, which default to those of `shared`.
        Without a label, the text is the label. Raises InputError for text that cannot be parsed, and as `of` does.
        """
        label, colon, rest = text.partition(":")
        labelled = bool(colon) and "=" not in label  # otherwise the colon belongs to a value
        try:
            name, *assignments = shlex.split(rest if labelled else text) or [""]
        except ValueError as error:
            raise InputError(f"{text!r} cannot be read: {error}") from error
        if not name or "=" in name:
            raise InputError(
                f"a variant must be '[LABEL:] METHOD [NAME=VALUE ...]', got {text!r}, which names no method"
            )
        options = by_todays_keys(parse_assignments(assignments))
        running = ("weights", "short_side", "precision", "runtime")
        own: dict[str, Any] = {key: options.pop(key) for key in running if key in options}
        if "short_side" in own:
            if not re.fullmatch(r"[0-9]+", own["short_side"]):
                raise InputError(f"{text!r}: short_side must be a whole number of pixels, got {own['short_side']!r}")
            own["short_side"] = int(own["short_side"]) or None
        return cls.of(label.strip() if labelled else " ".join(text.split()), name, options, replace(shared, **own))

    @property
    def folder(self) -> str:
        """Name of the folder, derived from the label."""
        return re.sub(r"[^\w.=+,-]+", "-", self.label).strip("-.")


def _with_shared(shared: Mapping[str, Any], own: Mapping[str, Any], method: str) -> dict[str, Any]:
    """A method's options: those shared by all methods, and its own. Raises InputError if it lacks one of the former."""
    if not shared:
        return dict(own)
    chosen: Any = configuration(method)
    of_all, its = by_todays_names(chosen, shared), by_todays_names(chosen, own)
    known = {field.name for field in fields(chosen)}
    if unknown := [name for name in of_all if name not in known]:
        raise InputError(
            f"option {unknown[0]!r} is set for all methods, but {method} does not have it (see `onemask methods "
            f"{method}`); set it only for methods that do, in their variants: 'LABEL: METHOD {unknown[0]}=VALUE'"
        )
    return of_all | its


# Running, and reading what ran ----------------------------------------------------------------------------------------


def compare(
    root: str | Path,
    out: str | Path,
    variants: Sequence[Variant],
    *,
    protocol: str = "davis2016",
    split: str = "val",
    sequences: Sequence[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    ray: str | None = None,
    progress: Progress = silent,
    say: Callable[[str], object] = log.info,
) -> Comparison:
    """Evaluate each method, then write a table and a chart of all into `out`.

    A method that fails, for whatever reason, is left out of table and chart and listed in `failures`.

    Args:
        root: see `evaluate`.
        protocol: see `evaluate`.
        split: see `evaluate`.
        sequences: see `evaluate`.
        out: the folder of evaluations, table and chart.
        variants: the methods, each with a label of its own.
        overwrite: start everything anew.
        resume: continue an earlier comparison in `out`, or add methods to it; what finished with the same settings is
            not run again, and methods of earlier calls stay in the table if they were evaluated on the same sequences.
        ray: see `evaluate`. Whether a method can be loaded is then known only when its turn comes.
        progress: see `evaluate`.
        say: called with a message for each evaluation that begins, is reused, or fails.

    Returns:
        The table, in the order in which methods were first requested.

    Raises:
        InputError: something does not fit, such as a method that cannot be loaded, other settings in an earlier call,
            or missing matplotlib; raised before anything runs.
        OutputError: `out` holds something else.
        OnemaskError: every method failed.
    """
    out, how = Path(out), {"overwrite": overwrite, "resume": resume}
    check_installed()
    _refuse_alike(variants)
    results = _comparison_folder(out)
    results.check({}, **how)
    known = {} if overwrite else _folders(out)
    folders = {c.label: out / "evaluations" / c.folder for c in variants}
    given: dict[str, Any] = {"protocol": protocol, "split": split, "sequences": sequences}
    finished, asked = [], {}
    for variant in variants:
        with _named(variant.label):
            variant.settings.described()
    dataset = opened(root, **given)
    _refuse_without_speed(dataset)
    if not protocol_of(protocol).judges(dataset):
        raise InputError("there is nothing to score in this dataset, so nothing to compare; use `onemask evaluate`")
    for variant in variants:
        asked[variant.label] = asked_of(dataset, variant.settings, protocol)
        evaluation = evaluation_folder(folders[variant.label])
        if evaluation.check(asked[variant.label], overwrite=overwrite, resume=not overwrite):
            refuse_changed_input(evaluation, dataset)
        names = [sequence.name for sequence in dataset.sequences]
        if not overwrite and _is_finished(folders[variant.label], names):
            finished.append(variant.label)
        elif ray is None:
            with _named(variant.label):
                variant.settings.session()  # fails before anything runs if it cannot be loaded; is not kept

    with results.opened({}, **how, discard=lambda: None):  # existing files are replaced, or kept for --redraw
        for label, folder in folders.items() if overwrite else ():
            with evaluation_folder(folder).opened(asked[label], overwrite=True, resume=False):
                pass  # old results are removed now, not when their turn comes, so that this comparison can be resumed
        with results.writing(METHODS) as path:
            write_json(path, known | {label: folder.name for label, folder in folders.items()})
        with nullcontext() if ray is None else connected(ray):  # once, not for each method
            failures = _evaluated(root, variants, folders, finished, given, ray, progress, say)
        rows = {v.label: row_of(v.label, folders[v.label], v.settings) for v in variants if v.label not in failures}
        these = {folder.name for folder in folders.values()}
        earlier = {label: out / "evaluations" / folder for label, folder in known.items() if folder not in these}
        rows |= _comparable(earlier, dataset, asked[variants[0].label], next(iter(rows.values())), say)
        order = [label for label in dict.fromkeys((*known, *folders)) if label in rows]
        comparison = Comparison(tuple(rows[label] for label in order), failures)
        _write(comparison, results)
        results.finish()
    return comparison


def _evaluated(
    root: str | Path,
    variants: Sequence[Variant],
    folders: Mapping[str, Path],
    finished: Sequence[str],
    given: Mapping[str, Any],
    ray: str | None,
    progress: Progress,
    say: Callable[[str], object],
) -> dict[str, str]:
    """Evaluate what is not finished, one after the other, and return error messages by label.

    Raises OnemaskError if all failed.
    """
    failures: dict[str, str] = {}
    for number, variant in enumerate(variants, 1):
        label, folder = variant.label, folders[variant.label]
        place = f"{number} of {len(variants)}, {label}"
        if label in finished:
            say(f"{place}: already finished, taken from {folder}")
            continue
        say(f"{place}: {'continues' if (folder / 'predictions').exists() else 'begins'} in {folder}")
        try:
            shown = _labelled(progress, label)
            evaluate(root, folder, variant.settings, **given, resume=True, ray=ray, progress=shown)
        except Interrupted:
            raise
        except Exception as error:  # an error of any kind in one method must not cost the others' results
            log.info("%s failed", label, exc_info=True)
            failures[label] = str(error) if isinstance(error, OnemaskError) else f"{type(error).__name__}: {error}"
            say(f"{place}: failed: {failures[label]}")
    if len(failures) == len(variants):
        raise OnemaskError(f"no method could be evaluated; {_listed(failures)}")
    return failures


def _comparable(
    earlier: Mapping[str, Path],
    dataset: SequenceDataset,
    asked: Mapping[str, Any],
    beside: Row,
    say: Callable[[str], object],
) -> dict[str, Row]:
    """The rows of methods of earlier calls that were evaluated in the same way, and say which others there are.

    earlier: label -> folder. dataset, asked: those of a method of this call, whose row is `beside`.
    """
    rows = {}
    for label, folder in earlier.items():
        try:
            if not (folder / "scores.json").exists():
                raise InputError("its evaluation is not finished")
            row, its = row_of(label, folder), of_earlier_versions(read(folder / "scores.json")["asked"])
            if differing := [name for name in ("dataset", "protocol", "split") if its.get(name) != asked[name]]:
                raise InputError(f"it was evaluated with another {' and '.join(differing)}")
            if set(row.sequences) != set(beside.sequences) or list(row.figures) != list(beside.figures):
                raise InputError("it was evaluated on other sequences, or by other figures")
            refuse_changed_input(evaluation_folder(folder), dataset)
        except OnemaskError as error:
            say(f"{label}, of an earlier call, is not in the table: {error}")
        else:
            rows[label] = row
    return rows


def redraw(out: str | Path) -> Comparison:
    """Rewrite table and chart from all finished evaluations in `out`, without running anything.

    Methods come in the order in which they were requested, then folders that were put there by hand, by name.
    Raises InputError if there are none, or if they cannot be compared.
    """
    out = Path(out)
    check_installed()
    labels = {folder: label for label, folder in _folders(out).items()}
    there = sorted(path.name for path in (out / "evaluations").glob("*") if _is_evaluation(path))
    order = [folder for folder in labels if folder in there] + [folder for folder in there if folder not in labels]
    folders = {labels.get(folder, folder): out / "evaluations" / folder for folder in order}
    failures = {
        label: "its evaluation is not finished"
        for label, folder in folders.items()
        if not (folder / "scores.json").exists()
    }
    if len(failures) == len(folders):
        raise InputError(
            f"{out / 'evaluations'} holds no finished evaluation; give the --out of an earlier comparison, or put "
            "there what `onemask evaluate` wrote, a folder a method"
        )
    rows = (row_of(label, folder) for label, folder in folders.items() if label not in failures)
    comparison = Comparison(tuple(rows), failures)
    results = _comparison_folder(out)
    with results.held():
        _write(comparison, results)
    return comparison


def _comparison_folder(out: Path) -> ResultFolder:
    return ResultFolder(out, "a comparison", (METHODS, *FILES))


def _write(comparison: Comparison, results: ResultFolder) -> None:
    results.claim(*FILES)
    comparison.write(results.path)


def _refuse_without_speed(dataset: SequenceDataset) -> None:
    if all(len(sequence) < 2 for sequence in dataset):
        raise InputError("no sequence has a second frame, so there is no speed to compare; use `onemask evaluate`")


def _is_evaluation(folder: Path) -> bool:
    return evaluation_folder(folder).begun or (folder / "scores.json").exists()


def _refuse_alike(variants: Sequence[Variant]) -> None:
    if not variants:
        raise InputError("no method is given; give one or more")
    seen: dict[str, str] = {}
    for variant in variants:
        key = variant.folder.casefold()
        if key in seen:
            raise InputError(
                f"two methods have the same label, {seen[key]!r} and {variant.label!r}; give each its own: 'LABEL: "
                "METHOD NAME=VALUE'"
            )
        seen[key] = variant.label


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Prefix an InputError of the block with the label."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{label}: {error}") from error


def _labelled(progress: Progress, label: str) -> Progress:
    """Progress that shows the method's label."""

    def shown(items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
        return progress(items, total, f"{label}: {what}")

    return shown


def _folders(out: Path) -> dict[str, str]:
    """Label -> folder, as recorded by earlier calls."""
    record = out / METHODS
    if not record.exists():
        return {}
    folders = read(record)
    if not isinstance(folders, dict):
        raise InputError(f"{record} is not a table of labels and folders; delete it, or pass --overwrite to start over")
    for folder in folders.values():
        inside(out / "evaluations", folder, str(record))
    return folders


def _is_finished(folder: Path, names: Sequence[str]) -> bool:
    """Whether an evaluation was scored on exactly these sequences; `ResultFolder.check` compares its settings."""
    scores = folder / "scores.json"
    if not scores.exists():
        return False
    report = read(scores)
    return isinstance(report, dict) and list(report.get("times", ())) == list(names)


def _listed(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{label}: {message}" for label, message in failures.items())
