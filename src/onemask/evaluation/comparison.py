"""The table of compared methods, as text, Markdown, CSV and JSON, and the points of its chart."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import write_json, write_text
from .chart import Point, write_chart
from .scores import aligned

NAME = "comparison"  # stem of its files


@dataclass(frozen=True)
class Row:
    """One method's evaluation, read from its folder."""

    label: str
    what: str  # the method and the options that are not its defaults
    figures: Mapping[str, float]  # of the protocol, the headline first; fractions
    seconds_per_frame: float  # after a sequence's first, including reading and writing files
    fastest: float  # the same for the fastest sequence
    slowest: float
    parameters: int | None  # of its networks, including the backbone; None: the method is not known here
    weights_bytes: int | None  # size of its weights; None: it has none besides its backbone's, or they are not here
    size: str  # working size
    ran: str  # device, precision and runtime
    dataset: str  # the protocol and the split
    sequences: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The methods whose evaluation is finished, in order, and why others are missing."""

    rows: tuple[Row, ...]
    failures: Mapping[str, str]  # label -> error message

    def __post_init__(self):
        """Refuse evaluations that cannot be compared."""
        if unscored := [row.label for row in self.rows if not row.figures]:
            raise InputError(
                f"{unscored[0]} has no scores, as its dataset has nothing to score; move its folder elsewhere"
            )
        first = self.rows[0]
        for row in self.rows[1:]:
            differ = set(first.sequences) ^ set(row.sequences)
            if first.dataset != row.dataset or list(first.figures) != list(row.figures):
                problem = f"{first.label} was evaluated on {first.dataset}, {row.label} on {row.dataset}"
            elif differ:
                problem = f"only one of {first.label} and {row.label} was evaluated on {', '.join(sorted(differ))}"
            else:
                continue
            raise InputError(
                f"{problem}, so they cannot be compared; evaluate both in the same way, or remove the folder of one"
            )

    @property
    def headline(self) -> str:
        """The name of the figure by which methods are ranked: the first of the protocol's."""
        return next(iter(self.rows[0].figures))

    @property
    def differing(self) -> list[str]:
        """Those of "size" and "ran" that differ between methods, and so are shown in each row."""
        return [name for name in ("size", "ran") if len({getattr(row, name) for row in self.rows}) > 1]

    def table(self) -> str:
        """The table as aligned text."""
        return aligned([self._titles(), *map(self._cells, self.rows)])

    def markdown(self) -> str:
        """The table as Markdown, with the chart and notes on what was measured and how."""
        count = len(self.rows[0].sequences)
        lines = [f"# {self.rows[0].dataset}: {_counted(len(self.rows), 'method')}, {_counted(count, 'sequence')}", ""]
        titles = self._titles()
        lines += [_line(titles), _line(["---", *["---:"] * (len(titles) - 1)])]
        lines += [_line(self._cells(row)) for row in self.rows]
        lines += ["", f"![{_plain(self.headline)} over frames per second]({NAME}.svg)", ""]
        lines += [f"- `{row.label}`: {row.what}" for row in self.rows if row.what != row.label]
        lines += [f"- `{label}` is not in the table: {message}" for label, message in self.failures.items()]
        return "\n".join([*lines, *([""] if lines[-1] else []), self._notes(), ""])

    def write(self, out: Path) -> list[Path]:
        """Write table and chart into `out`, each file atomically, and return their paths."""
        stem = out / NAME
        write_json(stem.with_suffix(".json"), self.to_json())
        write_text(stem.with_suffix(".csv"), self._csv())
        chart = write_chart(
            stem,
            [Point(row.label, 1 / row.seconds_per_frame, 100 * row.figures[self.headline]) for row in self.rows],
            title=f"{_plain(self.headline)} and speed, {self.rows[0].dataset}",
            conditions=f"{_counted(len(self.rows[0].sequences), 'sequence')}, {self._conditions()}",
            speed="frames per second (logarithmic)",
            accuracy=f"{_plain(self.headline)} ({'%, lower is better' if self.headline == 'Error' else '%'})",
        )
        write_text(stem.with_suffix(".md"), self.markdown())
        return [stem.with_suffix(suffix) for suffix in (".md", ".csv", ".json")] + chart

    def to_json(self) -> dict[str, Any]:
        """The whole comparison, for `json.dump`."""
        return {"onemask": __version__, "rows": [asdict(row) for row in self.rows], "failures": dict(self.failures)}

    def _csv(self) -> str:
        """One line per method; fractions and seconds rather than percent and milliseconds."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        numbers = ("seconds_per_frame", "fastest", "slowest", "parameters", "weights_bytes", "size", "ran")
        lines.writerow(("label", "what", *self.rows[0].figures, "frames_per_second", *numbers))
        for row in self.rows:
            values = [getattr(row, name) for name in numbers]
            lines.writerow((row.label, row.what, *row.figures.values(), 1 / row.seconds_per_frame, *values))
        return text.getvalue()

    def _titles(self) -> list[str]:
        figures = [_plain(name) for name in self.rows[0].figures]
        return [
            "method",
            *figures,
            "frames/s",
            "ms per frame",
            "ms by sequence",
            "parameters",
            "weights",
            *self.differing,
        ]

    def _cells(self, row: Row) -> list[str]:
        return [
            row.label,
            *(f"{100 * value:.1f}" for value in row.figures.values()),
            _brief(1 / row.seconds_per_frame),
            _brief(1000 * row.seconds_per_frame),
            f"{_brief(1000 * row.fastest)}-{_brief(1000 * row.slowest)}",
            "-" if row.parameters is None else f"{_brief(row.parameters / 1e6)} M",
            "-" if row.weights_bytes is None else f"{_brief(row.weights_bytes / 1e6)} MB",
            *(getattr(row, name) for name in self.differing),
        ]

    def _conditions(self) -> str:
        """The conditions that decide speed: those that all methods share, and those that differ."""
        words = {"size": "several sizes", "ran": "several devices, precisions or runtimes"}
        return ", ".join(words[name] if name in self.differing else getattr(self.rows[0], name) for name in words)

    def _notes(self) -> str:
        unlike = "; only speeds on the same device can be compared" if "ran" in self.differing else ""
        notes = (
            "Figures are percentages, averaged over the objects of all sequences. Speed covers all frames after a "
            "sequence's first and includes reading and writing files, as recorded by `onemask evaluate`; it was "
            f"measured with: {self._conditions()}{unlike}. *Ms by sequence* ranges from the fastest sequence to the "
            "slowest. Each method was measured once, while it ran, and other load on the machine affects the result, "
            "so differences of a few percent mean nothing. *Parameters* are those of the networks, including the "
            "backbone; *weights* is the size of the file that was trained for video, of which a variant may use only "
            "a part; - means there is none."
        )
        return textwrap.fill(notes, 120)


# Words ----------------------------------------------------------------------------------------------------------------


def _plain(figure: str) -> str:
    """A figure's name as a table's title: J-Mean is J, J-Recall stays."""
    return figure.removesuffix("-Mean")


def _brief(value: float) -> str:
    """Format a number with two decimals below 10, one below 100, and none above."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
