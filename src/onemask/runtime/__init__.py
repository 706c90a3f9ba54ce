"""Runtimes: what computes `encode`, the part of a frame that does not depend on the objects, and most of its time.

    torch      PyTorch, as the method is written
    onnx       a graph of it in ONNX Runtime       (extra `onnx`)
    openvino   a graph of it in OpenVINO           (extra `openvino`)
    compiled   torch.compile, where a C++ compiler is at hand
    auto       the fastest of the first three that is installed and was checked on this machine

A graph is made for one size of frames, once, and kept on disk (`graphs`). Whatever computes it (`engines`) is compared
with PyTorch on the first frame of each session before its results are used (`encoder`); what "auto" chooses is timed
once on a machine and kept as well (`choice`). `segment`, `update` and `memorize` stay in PyTorch.
"""

from .encoder import Encoder, encoder_of, usable

__all__ = ["Encoder", "encoder_of", "usable"]
