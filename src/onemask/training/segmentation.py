"""Training task of a method: it is unrolled over clips with its own four calls, and validated on videos."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..blocks.backbone import Backbone
from ..data.sources import data_fingerprint
from ..errors import InputError
from ..methods import configuration, load
from ..methods.method import Method
from ..weights.checkpoint import Checkpoint
from ..weights.store import SUFFIX, read
from .cache import ClipCache
from .losses import LOSSES
from .recipe import StageConfig
from .task import StepResult, Task
from .unroll import ClipBatch, Unroll, Unrolled
from .validation import VideoValidator

log = logging.getLogger(__name__)

SHOWN = 4  # rows shown in a picture
TRUTH, PREDICTED = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)


class Segmentation(Task):
    """Training of a method with the same calls as at inference."""

    def begin(self, given: Method | None) -> Method:
        """The method of the recipe, or the given one if its configuration is the recipe's."""
        recipe = self.recipe
        if given is not None:
            if recipe.weights or recipe.initial:
                raise InputError("an initial method was given, so weights and initial of the recipe must be empty")
            if getattr(given, "config", None) != configuration(recipe.method, recipe.options):
                raise InputError(
                    f"the method that was given is not {recipe.method} with the recipe's options; make the recipe "
                    "match how it was built"
                )
            return given
        if recipe.weights:
            method = load(recipe.method, weights=self.file_of(recipe.weights), **recipe.options)
        else:
            method = configuration(recipe.method, recipe.options).build()
        for module, source in recipe.initial.items():
            _take_over(method, module, self.file_of(source))
        return method

    def loss_names(self, network: nn.Module) -> tuple[str, ...]:
        """The losses of a segmented frame, and the method's own."""
        return (*LOSSES, *_method(network).own_losses)

    def check_stage(self, network: nn.Module, stage: StageConfig, where: str) -> None:
        """Refuse sizes that are not multiples of the stride, invalid `batch_norm`, and a cache of what is trained."""
        method = _method(network)
        if any(side % method.stride for side in stage.size):
            raise InputError(f"{where}.size must be multiples of the method's stride {method.stride}, got {stage.size}")
        _measure(method, stage, where)
        if not stage.cache:
            return
        backbone = _backbone(method)
        if backbone is None:
            raise InputError(f"{where}: the method has no backbone whose features could be cached; set cache=false")
        kept = {"the backbone": backbone} | {f"the network of {k}": part for k, part in method.constant_parts().items()}
        for what, part in kept.items():
            if any(parameter.requires_grad for parameter in part.parameters()):
                raise InputError(
                    f"{where} trains {what}, so its output cannot be cached; freeze it in optimiser.groups, or set "
                    "cache=false"
                )

    def step(self, network: nn.Module, stage: StageConfig) -> Unroll:
        """A module that unrolls the method over a batch of clips."""
        _measure(_method(network), stage, stage.name)
        return Unroll(_method(network), list(stage.losses), update=stage.update, bootstrap=stage.bootstrap)

    def cache(self, folder: Path, network: nn.Module, stage: StageConfig) -> ClipCache:
        """Cache of features, and of memories of reference frames if these are not trained."""
        return ClipCache(folder, _method(network), self.recipe, stage, data_fingerprint(stage.data, self.base))

    def validator(self) -> VideoValidator | None:
        """Validator on the videos of a split; None if the recipe names none."""
        recipe = self.recipe
        if not recipe.validation.root:
            return None
        options = {**recipe.options, **recipe.validation.options}
        method = configuration(recipe.method, options).build(pretrained=False)
        return VideoValidator(recipe.validation, self.base, method)

    def picture(self, batch: ClipBatch, result: StepResult) -> np.ndarray:
        """References and last frames, with the given mask, the ground truth and the prediction."""
        return picture(batch, cast(Unrolled, result))


def _method(network: nn.Module) -> Method:
    return cast(Method, network)


def _backbone(method: Method) -> Backbone | None:
    """The backbone; None for methods of other packages that have none."""
    return getattr(method, "backbone", None)


def _measure(method: Method, stage: StageConfig, where: str) -> None:
    """Let batch norm measure statistics in the modules that a stage names, and nowhere else."""
    if outside := [part for part in stage.batch_norm if not part.startswith("backbone.")]:
        raise InputError(f"{where}.batch_norm names modules of the backbone, backbone.NAME, got {outside[0]!r}")
    if stage.cache and stage.batch_norm:
        raise InputError(f"{where}.batch_norm changes the backbone, so its features cannot be cached; set cache=false")
    backbone = _backbone(method)
    if backbone is not None:
        backbone.measure([part.removeprefix("backbone.") for part in stage.batch_norm])
    elif stage.batch_norm:
        raise InputError(f"{where}.batch_norm names modules of the backbone, and the method has none")


def _take_over(method: Method, module: str, path: Path) -> None:
    """Load the weights of a method's module from the module of the same name in a file.

    A backbone in the file may lack the deepest stages, if its method does without them: these stay as they were built.
    It may also come from a checkpoint of another network, see `_backbone_of_another`.
    """
    expected = method.state_dict()
    foreign = module == "backbone" and path.suffix != SUFFIX
    stored = _backbone_of_another(path, expected) if foreign else read(path)
    names = [name for name in expected if name.startswith(f"{module}.")]
    if not names:
        raise InputError(f"initial.{module}: the method has no such module, or one without weights")
    absent = [name for name in names if name not in stored]
    if absent and (module != "backbone" or len(absent) == len(names)):
        raise InputError(f"initial.{module}: {path} has no {absent[0]}; expected weights with the same module")
    if absent:
        log.info("initial.backbone: %s ends before %s; deeper layers stay as they are", path.name, absent[0])
    names = [name for name in names if name in stored]
    for name in names:
        if stored[name].shape != expected[name].shape:
            shapes = f"{tuple(stored[name].shape)} there and {tuple(expected[name].shape)} here"
            raise InputError(f"initial.{module}: {name} is {shapes}; expected weights with the same module")
    method.load_state_dict({name: stored[name] for name in names}, strict=False)


def _backbone_of_another(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a backbone, under its names here, from a checkpoint of torch.save, such as a semantic segmentation network.

    The checkpoint has the names that timm and torchvision share, after "backbone.", "encoder." or nothing, or
    torchvision's of a MobileNet. No code in the file is run. Raises InputError if tensors are missing.
    """
    theirs, place = Checkpoint.read(path), "backbone.network."
    wanted = [name for name in expected if name.startswith(place)]
    counters = [name for name in wanted if name.endswith("num_batches_tracked")]  # older files have none
    weights = [name for name in wanted if name not in counters]
    for prefix in ("backbone.", "encoder.", ""):
        found = {place + name: tensor for name, tensor in theirs.take_under(prefix).items()}
        if all(name in found for name in weights):
            return {name: expected[name] for name in counters} | {name: found[name] for name in wanted if name in found}
    # torchvision names the layers of MobileNets differently from timm, but has them in the same order.
    in_order = list(theirs.take_under("features.").values())[: len(wanted)]
    if [tensor.shape for tensor in in_order] == [expected[name].shape for name in wanted]:
        return dict(zip(wanted, in_order, strict=True))
    raise InputError(
        f"initial.backbone: {path} has no {weights[0].removeprefix(place)} and so on, behind 'backbone.' or alone; "
        "expected a network of the same backbone with torchvision's names, such as deeplabv3_resnet101 "
        "(deeplabv3_resnet101_coco-586e9e4e.pth), put anywhere and named here"
    )


@torch.no_grad()
def picture(batch: ClipBatch, unrolled: Unrolled) -> np.ndarray:
    """Reference with its mask, last frame with the ground truth (green) and the prediction (red), one row per object.

    (3, height, width) float32 in [0, 1]; shows the first few rows of the batch.
    """
    rows, last = batch.frame_of_row[:SHOWN], batch.frames.shape[1] - 1
    if not len(rows):  # no object to show: the references alone
        return torch.cat(list(batch.pictures(0)[:SHOWN]), 1).float().cpu().numpy()
    predicted = unrolled.probabilities[-1][:SHOWN]
    columns = [
        _tinted(batch.pictures(0)[rows], batch.masks(0)[0][:SHOWN], TRUTH),
        _tinted(batch.pictures(last)[rows], batch.masks(last)[0][:SHOWN], TRUTH),
        _tinted(batch.pictures(last)[rows], predicted, PREDICTED),
    ]
    sheet: np.ndarray = torch.cat([torch.cat(list(column), 1) for column in columns], 2).float().cpu().numpy()
    return sheet


def _tinted(pictures: Tensor, masks: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Pictures (N, 3, H, W), tinted under masks (N, 1, H, W)."""
    tint = torch.tensor(colour, device=pictures.device).view(1, 3, 1, 1)
    return pictures + 0.5 * masks * (tint - pictures)
