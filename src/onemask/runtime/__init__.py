"""Runtimes: what computes the networks of a method, which take most of its time.

    torch      PyTorch, as the method is written
    onnx       a graph of it in ONNX Runtime       (extra `onnx`)
    openvino   a graph of it in OpenVINO           (extra `openvino`)
    compiled   torch.compile, where a C++ compiler is at hand
    auto       the fastest of the first three that is installed and was checked on this machine

A graph is made for one size of frames, once, and kept on disk (`graphs`). Whatever computes it (`engines`) is compared
with PyTorch on the first frame of each session before it is used (`computation`); what "auto" chooses is timed
once on a machine and kept as well (`choice`). All of `encode` is one graph (`encoder`), and the networks in `segment`
are others (`segmenter`, `part`). What is left of `segment`, `update` and `memorize` stays in PyTorch.
"""

from .encoder import Encoder, encoder_of, usable
from .segmenter import Segmenter

__all__ = ["Encoder", "Segmenter", "encoder_of", "usable"]
