"""A speed-accuracy chart with one labelled point per method, as PNG and SVG. Needs matplotlib, the extra `plot`.

Matplotlib's global state is left unchanged, a user's style is not read, and the same points give the same files.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..extras import how_to_install
from ..files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
INK, FAINT = "#222222", "#757575"
SMALL = 9  # font size of labels, points
# Okabe and Ito's colours, which the colour-blind can distinguish too; markers distinguish without any colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = "osD^vPX"
STYLE = {
    "svg.hashsalt": "onemask",
    "font.size": 10,
    "text.parse_math": False,  # a $ in a label is a $
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Point:
    """A method in the chart."""

    label: str
    speed: float  # frames per second, above 0
    accuracy: float  # in the unit of the axis


@dataclass(frozen=True)
class Box:
    """A rectangle in points, its sides parallel to the axes."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Box:
        """The box of that size with (x, y) in its middle."""
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def overlap(self, other: Box) -> float:
        """The area that both boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def is_crossed(self, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Whether the straight line from start to end goes through the box."""
        first, last = 0.0, 1.0  # the part of the line between the sides checked so far
        for low, high, a, b in zip((self.left, self.bottom), (self.right, self.top), start, end, strict=True):
            if a == b:
                if not low < a < high:
                    return False
                continue
            enters, leaves = sorted(((low - a) / (b - a), (high - a) / (b - a)))
            first, last = max(first, enters), min(last, leaves)
        return first < last

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def check_installed() -> None:
    """Raise InputError if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise InputError(f"the chart needs the package matplotlib: {how_to_install('plot')}")


def write_chart(
    stem: Path, points: Sequence[Point], *, title: str, conditions: str, speed: str, accuracy: str
) -> list[Path]:
    """Write STEM.png and STEM.svg, accuracy over speed on a logarithmic axis, and return their paths.

    title, conditions: text above the chart, large and small. speed, accuracy: labels of the axes.
    Raises InputError if matplotlib is missing, OutputError if a file cannot be written.
    """
    check_installed()
    from matplotlib import style

    written = []
    with style.context(["default", STYLE]):
        figure = _figure(points, title, conditions, speed, accuracy)
        for suffix in SUFFIXES:
            path = stem.with_name(stem.name + suffix)
            with written_whole(path) as temporary:
                figure.savefig(temporary, metadata={"Date": None} if suffix == ".svg" else {"Software": None})
            written.append(path)
    return written


def _figure(points: Sequence[Point], title: str, conditions: str, speed: str, accuracy: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=200)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.125, 0.87, 0.735))
    _set_axes(axes, points)
    axes.set_xlabel(speed)
    axes.set_ylabel(accuracy)
    axes.annotate(title, (0, 1), (0, 22), "axes fraction", "offset points", color=INK, size=13, weight="bold")
    axes.annotate(conditions, (0, 1), (0, 8), "axes fraction", "offset points", color=FAINT, size=SMALL)
    for index, point in enumerate(points):
        marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        axes.plot(point.speed, point.accuracy, marker, color=_colour(index), ms=8, mec="white", mew=0.8, zorder=3)
    _write_labels(axes, points)
    return figure


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _set_axes(axes: Axes, points: Sequence[Point]) -> None:
    """Set limits with room for labels, and ticks at 1, 2 and 5 of every decade, or closer, without exponents."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xscale("log")
    low, high = _range([math.log10(point.speed) for point in points], least=0.5)
    axes.set_xlim(10**low, 10**high)
    axes.set_ylim(*_range([point.accuracy for point in points], least=2))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low > 1 else (1, 1.5, 2, 3, 4, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, pad=6)


def _range(values: Sequence[float], least: float) -> tuple[float, float]:
    """Limits of an axis: the values with a margin of a seventh on either side, at least `least` apart."""
    low, high = min(values), max(values)
    margin = max(high - low, least) / 7 + max(0.0, least - (high - low)) / 2
    return low - margin, high + margin


# Labels that do not overlap -------------------------------------------------------------------------------------------

NEAR = 8.0  # distance from the middle of a marker to a label beside it, points
DISTANCES = (NEAR, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0, 92.0)
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))  # in order of preference


def _write_labels(axes: Axes, points: Sequence[Point]) -> None:
    """Write every label where there is room, with a line to its point unless that is the only point beside it."""
    texts = [textwrap.fill(point.label, 30) for point in points]
    scale = 72 / axes.figure.dpi
    at = [
        (float(x) * scale, float(y) * scale)
        for x, y in axes.transData.transform([(point.speed, point.accuracy) for point in points])
    ]
    sizes = [_size(axes, text) for text in texts]
    frame = axes.get_window_extent()
    inside = Box(*(float(side) * scale for side in (frame.x0, frame.y0, frame.x1, frame.y1)))
    for index, (point, size, middle) in enumerate(zip(points, sizes, placed(at, sizes, inside), strict=True)):
        line = {"arrowstyle": "-", "color": _colour(index), "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5}
        gaps = [_gap(each, middle, size) for each in at]
        is_beside = gaps[index] <= NEAR + 1 and all(gap > NEAR + 1 for gap in gaps[:index] + gaps[index + 1 :])
        axes.annotate(
            texts[index],
            (point.speed, point.accuracy),
            (middle[0] - at[index][0], middle[1] - at[index][1]),
            textcoords="offset points",
            ha="center",
            va="center",
            size=SMALL,
            color=INK,
            zorder=2.5,
            bbox={"color": "white", "linewidth": 0, "pad": 0.5},  # hides grid lines behind text
            arrowprops=None if is_beside else line,
        )


def _gap(point: tuple[float, float], middle: tuple[float, float], size: tuple[float, float]) -> float:
    """Distance of a label's box from a point."""
    return math.hypot(*(max(0.0, abs(p - m) - s / 2) for p, m, s in zip(point, middle, size, strict=True)))


def _size(axes: Axes, text: str) -> tuple[float, float]:
    """Width and height of a label in points."""
    probe = axes.text(0, 0, text, size=SMALL)
    extent = probe.get_window_extent()
    probe.remove()
    return extent.width * 72 / axes.figure.dpi, extent.height * 72 / axes.figure.dpi


def placed(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], inside: Box
) -> list[tuple[float, float]]:
    """Centres of labels of these sizes, each near its point, clear of points and of each other, and `inside`.

    In turn, each label moves to its best place given all others, until none moves or after ten rounds.
    """
    markers = [Box.around(x, y, 11, 11) for x, y in points]  # a little larger than the markers
    choices = [list(_choices(point, size)) for point, size in zip(points, sizes, strict=True)]
    chosen = [own[0][0] for own in choices]

    def cost(index: int, middle: tuple[float, float]) -> float:
        """Cost of a label there: its overlap with markers, labels and the outside, and line crossings."""
        box = Box.around(*middle, *sizes[index])
        total = 10 * (box.area - box.overlap(inside)) + 10 * box.overlap(markers[index])
        for other, point in enumerate(points):
            if other != index:
                label = Box.around(*chosen[other], *sizes[other])
                total += 10 * (box.overlap(label) + box.overlap(markers[other]))
                total += 200 * (label.is_crossed(points[index], middle) + box.is_crossed(point, chosen[other]))
                total += 60 * markers[other].is_crossed(points[index], middle)
        return total

    for _ in range(10):
        before = list(chosen)
        for index, own in enumerate(choices):
            chosen[index] = min(own, key=lambda choice: cost(index, choice[0]) + choice[1])[0]
        if chosen == before:
            break
    return chosen


def _choices(point: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[tuple[float, float], float]]:
    """Candidate centres of a label with their costs: far costs more than near, diagonal more than straight."""
    for distance in DISTANCES:
        for rank, (right, up) in enumerate(DIRECTIONS):
            gap = distance / math.hypot(right, up)
            middle = (point[0] + right * (gap + size[0] / 2), point[1] + up * (gap + size[1] / 2))
            yield middle, distance + rank
