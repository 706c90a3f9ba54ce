"""Computations that a graph may do instead of PyTorch: checked before use, and timed for "auto"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import is_out_of_memory, one_line
from .cache import kept
from .choice import choose, kept_choice
from .engines import compiled_engine, onnx_engine, openvino_engine, problem_with
from .graphs import Given, Run
from .quantisation import cosine

log = logging.getLogger(__name__)

GRAPHS = ("onnx", "openvino")  # runtimes that "auto" chooses from, besides PyTorch
TOLERANCE = 1e-3  # error relative to the largest value of an output; measured: 3e-6
LEAST_COSINE = 0.9  # between a lower-precision output and PyTorch's; measured: 0.98 in int8, 0.997 in bfloat16


@dataclass(frozen=True)
class Computation:
    """A function of named tensors that PyTorch or a graph can compute."""

    what: str
    """Name of the result, for the log."""
    key: str
    """The name under which its graph is cached, see `graphs.key_of`."""
    torch: Run
    """The computation in PyTorch."""
    graph: Callable[[], bytes]
    """Makes its ONNX file."""
    precision: str = "float32"
    """Precision of the graph: float32, or bfloat16, which only OpenVINO supports."""

    def runtime(self, asked: str, examples: Sequence[Given], threads: int) -> tuple[str, Run | None]:
        """The runtime for this computation and its function; None: PyTorch computes it, which is logged.

        Args:
            asked: a runtime, or "auto": the fastest that is installed.
            examples: example inputs; the first is used for timing. The others expose graphs in which tracing turned
                values of an example into constants.
            threads: number of threads to compute with.
        """
        auto = asked == "auto"
        names = [name for name in GRAPHS if problem_with(name) is None] if auto else [asked]
        if auto and names and (earlier := kept_choice(self.key, threads)) is not None:
            name, measured = earlier
            log.info(
                "auto chooses %s for %s, the fastest when checked on this machine; measured then: %s",
                *(name, self.what, measured),
            )
            if name not in names:
                return "torch", None
            names, auto = [name], False
        instead = "auto chooses among the others" if len(names) > 1 else "PyTorch computes it, in float32"
        engines = {name: run for name in names if (run := self._engine(name, examples, threads, instead)) is not None}
        if not engines:
            if auto and names:
                log.info("auto chooses torch for %s: no runtime gives its result", self.what)
            return "torch", None
        ways = {"torch": self.torch, **engines}
        chosen = choose(ways, examples[0], self.what, self.key, threads) if auto else names[0]
        return chosen, engines.get(chosen)

    def _engine(self, name: str, examples: Sequence[Given], threads: int, instead: str) -> Run | None:
        """An engine whose results match PyTorch's; None if it fails or differs, and the log says what happens instead.

        instead: what happens then.
        """
        try:
            if name == "compiled":
                log.warning("compiling %s, which takes a minute or more", self.what)
                run = compiled_engine(self.torch, examples[0])
            else:
                run = self._compiled(name, threads)
            if self.precision != "float32":
                return run if is_near(self.torch, run, examples, self.what, self.precision) else None
            error = max(_error(self.torch(given), run(given)) for given in examples)
        except Exception as failure:
            if is_out_of_memory(failure):
                raise
            log.warning("runtime %s cannot compute %s (%s); %s", name, self.what, short(failure), instead)
            return None
        if error > TOLERANCE:
            log.warning("runtime %s is off by %.2g of its range in %s; %s", name, error, self.what, instead)
            return None
        log.info("runtime %s gives PyTorch's result for %s to %.1g of its range", name, self.what, error)
        return run

    def _compiled(self, name: str, threads: int) -> Run:
        graph = kept(self.key, self.graph)
        return onnx_engine(graph, threads) if name == "onnx" else openvino_engine(graph, threads, self.precision)


def is_near(torch: Run, run: Run, examples: Sequence[Given], what: str, precision: str) -> bool:
    """Whether a graph of lower precision is close enough to PyTorch; the result is logged."""
    cosines = [cosine(a, b) for given in examples for a, b in zip(torch(given), run(given), strict=True)]
    least = min(cosines)
    if not all(of_output >= LEAST_COSINE for of_output in cosines):  # False for NaN
        log.warning(
            "%s in %s: cosine to PyTorch's result is only %.2f in this video; PyTorch computes it, in float32",
            *(what, precision, least),
        )
        return False
    log.info("%s in %s: cosine to PyTorch's result is %.3f", what, precision, least)
    return True


def _error(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference in any output, relative to the output's largest absolute value."""
    worst = 0.0
    for ours, theirs in zip(wanted, found, strict=True):
        if ours.shape != theirs.shape:
            return float("inf")
        if ours.numel():
            difference = (ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-12)
            worst = max(worst, float(difference.nan_to_num(nan=float("inf"))))
    return worst


def short(error: Exception) -> str:
    """Format an error in one line, with its type."""
    return f"{type(error).__name__}: {one_line(error)}"
