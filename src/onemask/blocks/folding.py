"""Fold batch norm into the preceding convolution for inference, which saves a third of a network's time on a CPU.

A frozen batch norm scales and shifts each channel, which the convolution's own weights can do as well, with one pass
over memory less. The network that is trained, saved and loaded is not modified; a folded copy replaces it where no
gradient is needed, and is rebuilt whenever a weight has changed. Under autocast the copy's weights have its precision:
autocast keeps no casts of weights that need no gradient, and would cast each of them anew in every frame.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

log = logging.getLogger(__name__)

PICTURE = 64  # side, in pixels, of the picture that a folded network is checked with
TOLERANCE = 1e-3  # largest difference, as a share of the largest value of an output


class Folded:
    """Cache of a network's folded copies, one for each precision in which it runs."""

    def __init__(self) -> None:
        # State of the network, and the copies; one value, so that threads never see half of a change.
        self._kept: tuple[Any, dict[torch.dtype | None, nn.Module]] = None, {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the folded networks: a copy builds its own."""
        return {"_kept": (None, {})}

    def of(self, network: nn.Module) -> nn.Module:
        """The folded copy of a network as it is now, without the batch norms that can be folded.

        Returns the network itself if its weights were created in inference mode, as their changes cannot be detected.
        """
        state = state_of(network)
        if state is None:
            return network
        of_state, kept = self._kept
        device, dtype = next(network.parameters()).device.type, None
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        if state != of_state or dtype not in kept:
            of_dtype = _cast(folded(network), dtype)
            kept = {**kept, dtype: of_dtype} if state == of_state else {dtype: of_dtype}
            self._kept = state, kept
        return kept[dtype]


def state_of(network: nn.Module) -> tuple[tuple[int, int], ...] | None:
    """A value that changes whenever a network's weights do; None for inference tensors, which track no changes."""
    state, modules = [], [network]
    while modules:  # runs in each frame, and `parameters()` and `buffers()` take almost three times as long
        module = modules.pop()
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None:
                continue
            if tensor.is_inference():
                return None
            state.append((tensor.data_ptr(), tensor._version))
        modules += [child for child in module._modules.values() if child is not None]
    return tuple(state)


@torch.inference_mode(False)
@torch.no_grad()
def folded(network: nn.Module) -> nn.Module:
    """Copy an image network and fold its batch norms; where that changes the output, return a plain copy.

    A network's modules do not tell for certain which convolution precedes a batch norm, so the result is checked: on
    the CPU, as convolutions of a GPU round more (TF32) than folding changes.
    """
    device = next(network.parameters()).device
    plain = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    copied, before = copy.deepcopy(plain), None
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.Conv2d):
            before = module
        elif isinstance(module, nn.BatchNorm2d):
            if before is not None and before.out_channels == module.num_features and module.running_mean is not None:
                _fold(before, module)
                parent, _, own = name.rpartition(".")
                # timm's batch norms hold the activation that follows them.
                setattr(copied.get_submodule(parent), own, getattr(module, "act", nn.Identity()))
            before = None
    if _same(plain, copied):
        return copied.to(device)
    log.warning("batch norm of %s is not where folding expects it; the network runs unfolded", type(network).__name__)
    return plain.to(device)


def _cast(network: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Cast the weights of plain convolutions and linear layers, in place, as autocast would; None: it would not."""
    for module in network.modules():
        if dtype is not None and type(module) in (nn.Conv2d, Conv2dSame, nn.Linear):
            module.to(dtype)
    return network


def folded_into(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what it and the batch norm after it do, with stored statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    weight, bias = folded_into(convolution, norm)
    convolution.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)


def _same(plain: nn.Module, copied: nn.Module) -> bool:
    dtype = next(plain.parameters()).dtype
    picture = torch.linspace(-2, 2, 3 * PICTURE**2, dtype=dtype).view(1, 3, PICTURE, PICTURE)
    with torch.autocast("cpu", enabled=False):
        wanted, found = (_outputs(each(picture)) for each in (plain, copied))
    return all(bool((a - b).abs().max() <= TOLERANCE * a.abs().max()) for a, b in zip(wanted, found, strict=True))


def _outputs(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)
