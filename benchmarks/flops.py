"""Multiply-adds of a frame, by part of the method and by call, and the parts' parameters: a Markdown table.

    python benchmarks/flops.py --method ttvos
    python benchmarks/flops.py --method ttvos-lite --objects 5 --set update=false

Counted as papers do: a multiplication and the addition that follows are one. Only convolutions and matrix products
count. A part is a module of the method; what is multiplied outside of layers (similarities, solvers) has a line of its
own. The figures are of frame `--frame` after the annotated one, for what a method does in some frames only. Weights
are random: no figure depends on them.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from onemask.labels import aggregate
from onemask.methods import DEFAULT, configuration
from onemask.methods.method import Method
from onemask.methods.options import parse_assignments

CALLS = ("encode", "segment", "update")
OUTSIDE = "outside of layers"


class Call(nn.Module):
    """Any call of a method as a forward pass, for the counter names modules from the first that it sees."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, call: str, *values: Any) -> Any:
        """What `method.call(*values)` gives."""
        return getattr(self.method, call)(*values)


def counted(method: Method, call: str, *values: Any) -> tuple[Any, Counter[str]]:
    """What a call gives, and its multiply-adds by part."""
    with FlopCounterMode(display=False) as counter:
        result = Call(method)(call, *values)
    by_module = {name: sum(operations.values()) // 2 for name, operations in counter.get_flop_counts().items()}
    parts: Counter[str] = Counter()
    for part, module in method.named_children():
        # Where the part itself was called, that holds all; where some of its layers were, those are to be summed up.
        layers = [f"{part}.{name}".rstrip(".") for name, layer in module.named_modules() if not any(layer.children())]
        whole, summed = (
            by_module.get(f"Call.method.{part}", 0),
            sum(by_module.get(f"Call.method.{n}", 0) for n in layers),
        )
        parts[part] = max(whole, summed)
    parts[OUTSIDE] = by_module.get("Global", 0) - parts.total()
    return result, parts


@torch.no_grad()
def of_frame(method: Method, size: tuple[int, int], objects: int, frame: int) -> dict[str, Counter[str]]:
    """Multiply-adds of each call in that frame, with as many objects."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 3, *size, generator=generator)
    memory = method.memorize(method.encode(frames), blocks(size, objects))
    counts: dict[str, Counter[str]] = {}
    for _ in range(frame):
        features, counts["encode"] = counted(method, "encode", frames)
        prediction, counts["segment"] = counted(method, "segment", features, memory)
        masks, _ = aggregate(prediction.logits.sigmoid())
        memory, counts["update"] = counted(method, "update", memory, features, prediction, masks)
    return counts


def blocks(size: tuple[int, int], objects: int) -> Tensor:
    """Masks (N, 1, H, W) of objects side by side."""
    height, width = size
    masks = torch.zeros(objects, 1, height, width)
    for row in range(objects):
        left = row * width // objects
        masks[row, :, height // 4 : height // 2, left : left + max(1, width // (2 * objects))] = 1
    return masks


def table(method: Method, counts: Mapping[str, Counter[str]]) -> str:
    """Markdown: a line a part; billions of multiply-adds, millions of parameters."""
    parameters: Counter[str] = Counter()
    for name, parameter in method.named_parameters():
        parameters[name.split(".")[0]] += parameter.numel()
    parts = [name for name, _ in method.named_children() if parameters[name]] + [OUTSIDE]
    lines = ["| part | " + " | ".join(CALLS) + " | a frame | parameters |", "|---|" + "---:|" * (len(CALLS) + 2)]
    for part in [*parts, "all"]:
        of_calls = [counts[call].total() if part == "all" else counts[call][part] for call in CALLS]
        figures = [f"{value / 1e9:.3f}" for value in (*of_calls, sum(of_calls))]
        own = parameters.total() if part == "all" else parameters[part]
        lines.append(f"| {part} | {' | '.join(figures)} | {own / 1e6:.3f} |")
    return "\n".join(lines)


def size_of(text: str) -> tuple[int, int]:
    """`480x864` as height and width."""
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default=DEFAULT)
    parser.add_argument("--set", action="append", metavar="NAME=VALUE")
    parser.add_argument("--size", type=size_of, default=(480, 864), help="height x width, multiples of the stride")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--frame", type=int, default=2)
    arguments = parser.parse_args()
    options = parse_assignments(arguments.set or [])
    method = configuration(arguments.method, options).build(pretrained=False).eval()
    counts = of_frame(method, arguments.size, arguments.objects, arguments.frame)
    height, width = arguments.size
    print(f"{arguments.method}, {width}x{height}, objects: {arguments.objects}; billions of multiply-adds\n")
    print(table(method, counts))


if __name__ == "__main__":
    main()
