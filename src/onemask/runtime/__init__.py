"""Runtimes that compute the networks of a method, which take most of its time.

    torch      PyTorch, as the method is written
    onnx       a graph of it in ONNX Runtime       (extra `onnx`)
    openvino   a graph of it in OpenVINO           (extra `openvino`)
    compiled   torch.compile, if a C++ compiler is available
    auto       the fastest of the first three that is installed and was checked on this machine

A graph is made once per frame size and cached on disk (`graphs`). An engine (`engines`) is compared with PyTorch on the
first frame of each session before it is used (`computation`); "auto" times the engines once per machine and caches its
choice (`choice`). All of `encode` is one graph (`encoder`), and the networks in `segment` are others (`segmenter`,
`part`). The rest of `segment`, and `update` and `memorize`, stay in PyTorch.
"""

from .encoder import Encoder, encoder_of, usable
from .segmenter import Segmenter

__all__ = ["Encoder", "Segmenter", "encoder_of", "usable"]
