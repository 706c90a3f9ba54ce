"""HRNet for segmentation: its streams are fused bilinearly, at sizes that need not be multiples of 32.

timm's version is made for classification: finer streams take in coarser ones enlarged by fixed factors, which only fits
where each is exactly twice the size of the other. Tensors have the same names here as there.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..labels import resize


class BilinearFusion(nn.Module):
    """Module of timm's HRNet whose streams are fused bilinearly.

    module: timm's module, whose parts this one takes over.
    """

    def __init__(self, module: Any):
        super().__init__()
        self.branches, self.fuse_layers, self.fuse_act = module.branches, module.fuse_layers, module.fuse_act
        for layers in self.fuse_layers:
            for layer in layers:
                if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.Upsample):
                    layer[-1] = nn.Identity()

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        """Maps by stream, (B, C, h, w) each, the finest first -> the same shapes."""
        streams = [branch(stream) for branch, stream in zip(self.branches, streams, strict=True)]
        if len(streams) == 1:
            return streams
        joined = []
        for like, layers in zip(streams, self.fuse_layers, strict=False):
            size = (like.shape[2], like.shape[3])
            shares = [resize(layer(stream), size) for layer, stream in zip(layers, streams, strict=True)]
            joined.append(self.fuse_act(sum(shares[1:], shares[0])))
        return joined


def join_bilinearly(network: nn.Module) -> None:
    """Replace all of an HRNet's modules by `BilinearFusion`, in place."""
    from timm.models.hrnet import HighResolutionModule

    for name, module in list(network.named_modules()):
        if isinstance(module, HighResolutionModule):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, BilinearFusion(module))
