"""`segment` for a session, with its networks in the requested runtime.

The computation per object is not one graph but several small ones, because matching, sorting and sharing between
objects depend on the contents of a frame. `Method.graph_parts` names the networks in it. Each is a function of tensors
of one row, including the memory's, and is called once per object.
"""

from __future__ import annotations

from ..methods.method import Features, Memory, Method, Prediction
from .encoder import WORTH_IT, Encoder
from .part import tell_unused, weights_looked_at_once, with_parts


class Segmenter:
    """Predictions for the sessions of one method; may be shared by sessions in several threads.

    Args:
        method: in evaluation mode, on the device.
        runtime: one of `RUNTIMES` that the session can use here.
        precision: precision of its graphs.
    """

    def __init__(self, method: Method, runtime: str, precision: str = "float32"):
        self._plain, self._auto = method, runtime == "auto"
        self._method, self._told = with_parts(method, method.graph_parts, runtime, precision), False

    @classmethod
    def beside(cls, encoder: Encoder) -> Segmenter:
        """A segmenter in the encoder's runtime; beside an int8 encoder it computes in float32."""
        return cls(encoder.method, encoder.asked, encoder.of_graphs)

    def __call__(self, features: Features, memory: Memory) -> Prediction:
        """See `Method.segment`."""
        height, width = features.size
        if self._auto and height * width < WORTH_IT:
            return self._plain.segment(features, memory)
        with weights_looked_at_once():
            prediction = self._method.segment(features, memory)
        if not self._told:
            self._told = True
            tell_unused(self._method)
        return prediction
