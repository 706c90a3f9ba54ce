"""A single network within a method, computed by the requested runtime, or by PyTorch if that fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from ..blocks.folding import state_of
from ..blocks.replacing import replaced
from ..errors import is_out_of_memory
from ..methods.method import Method
from .computation import GRAPHS, Computation, short
from .engines import problem_with
from .graphs import Given, Run, for_tracing, key_of, traced

log = logging.getLogger(__name__)

_states: ContextVar[dict[int, Any] | None] = ContextVar("states", default=None)  # of the parts, within one call
PLACES = 4  # input shapes that a part keeps graphs for; within a session they are always the same


def with_parts(method: Method, names: tuple[str, ...], runtime: str, precision: str = "float32") -> Method:
    """A method whose networks `names` (see `Method.graph_part`) are computed by a runtime; unchanged if none can be.

    precision: precision of the graphs.
    """
    if runtime == "torch" or (runtime == "auto" and all(problem_with(graph) for graph in GRAPHS)):
        return method
    there = [(name, method.graph_part(name)) for name in names]
    parts = {name: Part(part, name, runtime, precision) for name, part in there if part is not None}
    through = replaced(method, parts)
    placed = {module._name for module in through.modules() if isinstance(module, Part)}
    if lost := [name for name in parts if name not in placed]:
        log.warning(
            "%s has no part %s, so PyTorch computes it; register a part of that name that is None",
            *(type(method).__name__, ", ".join(lost)),
        )
    return through


@contextmanager
def weights_looked_at_once() -> Iterator[None]:
    """Check a part's weights for changes only at its first call in the block, not for every object of a frame."""
    token = _states.set({})
    try:
        yield
    finally:
        _states.reset(token)


def tell_unused(method: Method) -> None:
    """Log those parts of a method from `with_parts` that were not used by the call that just ended."""
    for part in method.modules():
        if isinstance(part, Part) and not part.is_used:
            log.info("the part %s has a runtime, but the method did not call it in its first frame", part._name)


def runtimes_of_parts(method: Method) -> list[str]:
    """The runtimes in use by those parts of a method from `with_parts` that were called, each once."""
    used = [part.runtime for part in method.modules() if isinstance(part, Part) and part.is_used]
    return list(dict.fromkeys(used)) or ["torch"]


class Part(nn.Module):
    """A network of a method, computed by a runtime; all other attributes are those of the network itself."""

    def __init__(self, network: nn.Module, name: str, asked: str, precision: str):
        super().__init__()
        self.training = False
        self._wrapped = network  # not `network`, a name that backbones use themselves
        self._name, self._asked, self._precision, self.is_used = name, asked, precision, False
        self.runtime = "torch"  # in use
        self._made: dict[Any, tuple[Run | None, Any]] = {}
        self._making = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        """The network's attribute, if this module has none of that name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_wrapped"), name)

    def forward(self, *values: Any, **named: Any) -> Any:
        """The network's outputs."""
        self.is_used = True
        leaves, outline = _pytree.tree_flatten((values, named))
        given = {f"x{place}": leaf for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in given.items())
        others = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        state = self._state()
        if state is None:
            return self._wrapped(*values, **named)
        place = shapes, others, outline, torch.get_num_threads(), state
        with self._making:
            if place not in self._made:
                while len(self._made) >= PLACES:
                    del self._made[next(iter(self._made))]
                self._made[place] = self._make(leaves, given, outline, (shapes, others, str(outline)))
            run, shape_of_results = self._made[place]
        if run is None:
            return self._wrapped(*values, **named)
        try:
            return _pytree.tree_unflatten(list(run(given)), shape_of_results)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.warning("the runtime failed in %s (%s); PyTorch continues, in float32", self._name, short(error))
            self._made[place], self.runtime = (None, None), "torch"
            return self._wrapped(*values, **named)

    def _state(self) -> Any:
        """The state of the weights, see `state_of`."""
        known = _states.get()
        if known is None:
            return state_of(self._wrapped)
        if id(self) not in known:
            known[id(self)] = state_of(self._wrapped)
        return known[id(self)]

    def _make(self, leaves: list[Any], given: Given, outline: Any, shapes: Any) -> tuple[Run | None, Any]:
        """The engine, checked with the given inputs, and the structure of the network's outputs."""

        def through(network: nn.Module, tensors: Given) -> Any:
            filled = [tensors.get(f"x{place}", leaf) for place, leaf in enumerate(leaves)]
            values, named = _pytree.tree_unflatten(filled, outline)
            return network(*values, **named)

        def computed(network: nn.Module, tensors: Given) -> list[Tensor]:
            return _pytree.tree_leaves(through(network, tensors))

        def graph() -> bytes:
            network = for_tracing(self._wrapped)
            outputs = [f"y{place}" for place in range(len(results))]
            return traced(network, lambda tensors: computed(network, tensors), given, outputs)

        results, shape_of_results = _pytree.tree_flatten(through(self._wrapped, given))
        key = f"{key_of(self._wrapped, self._name, shapes)}-{self._name}"
        task = Computation(self._name, key, lambda tensors: computed(self._wrapped, tensors), graph, self._precision)
        self.runtime, run = task.runtime(self._asked, [given, _mirrored(given)], torch.get_num_threads())
        return run, shape_of_results


def _mirrored(given: Given) -> Given:
    """The inputs with maps mirrored horizontally and everything else unchanged."""
    return {name: tensor.flip(-1) if tensor.ndim == 4 else tensor for name, tensor in given.items()}
