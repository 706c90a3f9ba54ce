"""Training task of `maskrcnn-lite`, the network that proposes boxes and masks of objects, on the frames of clips.

Clips come from the same sources as in any other training: synthetic clips of stills, in which every object is annotated
and others are pasted over, and videos. Each frame is an image of its own, and all its objects belong to one class. The
losses are torchvision's; weights are judged by average recall, on held-out stills and on frames of videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from ..data.clip import VOID
from ..data.davis import DavisDataset, VideoSequence
from ..data.stills import StillImages
from ..errors import InputError, one_line
from ..evaluation.recall import average_recall, box_overlaps, objects_found
from ..methods import trainable
from ..methods.dmn_aoa.proposals import LOSSES, ProposalGenerator, detection_losses
from ..methods.dmn_aoa.regions import first_and_end
from ..methods.method import Method
from ..video.images import read_image
from ..weights.store import read
from .recipe import StageConfig, ValidationConfig
from .task import Task, Validation
from .unroll import ClipBatch

COUNTS = (10, 30)  # numbers of proposals at which recall is reported; the last is the criterion
VALIDATED = 5  # every n-th annotated frame of the validation videos is used
UNUSED = ("cache", "update", "bootstrap")  # options of a stage that have no meaning here

Picture = tuple[np.ndarray, np.ndarray]  # (H, W, 3) uint8 RGB, and its label map (H, W) uint8: 0, 1..N, 255 void


class Proposing(Task):
    """A network that proposes objects, before it is part of a method."""

    def begin(self, given: Method | None) -> MaskRCNN:
        """The network with an ImageNet backbone, or with the weights of a file."""
        recipe = self.recipe
        if given is not None or recipe.initial:
            what = "initial" if given is None else "an initial method"
            raise InputError(f"{what} does not apply to {recipe.method}; name a file of its weights in weights")
        network = trainable(recipe.method, recipe.options).build(pretrained=not recipe.weights)
        if recipe.weights:
            try:
                network.load_state_dict(read(self.file_of(recipe.weights)))
            except RuntimeError as error:
                reason = one_line(error)
                raise InputError(
                    f"{recipe.weights} does not hold weights of {recipe.method} as built here: {reason}"
                ) from error
        return cast(MaskRCNN, network)

    def loss_names(self, network: nn.Module) -> tuple[str, ...]:
        """Names of Mask R-CNN's losses."""
        return LOSSES

    def check_stage(self, network: nn.Module, stage: StageConfig, where: str) -> None:
        """Refuse options that have no meaning when frames are seen one at a time."""
        plain = StageConfig(data=[])
        if unused := [name for name in UNUSED if getattr(stage, name) != getattr(plain, name)]:
            raise InputError(f"{where}.{unused[0]} does not apply to {self.recipe.method}; leave it out")

    def step(self, network: nn.Module, stage: StageConfig) -> Detection:
        """A module that computes Mask R-CNN's losses on each frame."""
        return Detection(cast(MaskRCNN, network), tuple(stage.losses))

    def validator(self) -> RecallValidator | None:
        """Validator on held-out stills and on frames of a split; None if the recipe has neither.

        Raises InputError if no picture of them has an object.
        """
        recipe, base = self.recipe, self.base
        pictures: dict[str, list[Callable[[], Picture]]] = {}
        if recipe.held_out:
            stills = [source.root for stage in recipe.stages for source in stage.data if source.kind == "stills"]
            roots = list(dict.fromkeys(stills))
            distinct = len({Path(root).name for root in roots}) == len(roots)
            for root in roots:
                name = Path(root).name if distinct else root
                pictures[f"held-out {name}"] = held_out(base / root, recipe.held_out)
        if recipe.validation.root:
            pictures[recipe.validation.split] = frames_of(recipe.validation, base)
        if not pictures:
            return None
        return RecallValidator(trainable(recipe.method, recipe.options).build(pretrained=False), pictures)


@dataclass
class Detected:
    """The result of a step."""

    losses: dict[str, Tensor]


class Detection(nn.Module):
    """Mask R-CNN with its losses, over all frames of a batch of clips."""

    def __init__(self, network: MaskRCNN, losses: tuple[str, ...]):
        super().__init__()
        self.network, self.names = network, losses

    def forward(self, opened: Callable[[], ClipBatch], progress: float) -> Detected:
        """Losses of a `sealed` batch, means over its frames."""
        batch = opened()
        frames = list(batch.frames.flatten(0, 1).float() / 255)
        targets = [objects_of(labels) for labels in batch.labels.flatten(0, 1)]
        losses = detection_losses(self.network, frames, targets)
        return Detected({name: losses[name] for name in self.names})


def objects_of(labels: Tensor) -> dict[str, Tensor]:
    """Convert a label map (H, W) uint8 to torchvision's targets, without objects less than 2 pixels wide or high.

    boxes (G, 4) float32, the pixels' outer edges; labels (G,), all 1; masks (G, H, W) uint8.
    """
    ids = [value for value in labels.unique().tolist() if value not in (0, VOID)]
    masks = labels == torch.tensor(ids, dtype=labels.dtype, device=labels.device).view(-1, 1, 1)
    (left, right), (top, bottom) = first_and_end(masks.any(1)), first_and_end(masks.any(2))
    boxes = torch.stack([left, top, right, bottom], 1).float()
    large = ((right - left) > 1) & ((bottom - top) > 1)
    boxes, masks = boxes[large], masks[large]
    return {"boxes": boxes, "labels": boxes.new_ones(len(boxes), dtype=torch.long), "masks": masks.to(torch.uint8)}


# Validation -----------------------------------------------------------------------------------------------------------


class RecallValidator:
    """Average recall of boxes at COUNTS proposals, over all objects of sets of pictures, which are read one by one.

    network: a network that the trained weights fit. pictures: name of a set -> functions that each read a picture.
    Raises InputError if no picture has an object; pictures are read until one has.
    """

    def __init__(self, network: nn.Module, pictures: dict[str, list[Callable[[], Picture]]]):
        self.generator, self.pictures = ProposalGenerator(cast(MaskRCNN, network)), pictures
        if not any(_shows_object(reader()) for of_set in pictures.values() for reader in of_set):
            raise InputError(
                f"no picture of {', '.join(pictures)} has an object, so there is no recall to validate by; "
                "annotate some, or leave out validation.root and held_out"
            )

    def scores(self, trained: nn.Module, rank: int = 0, of: int = 1) -> np.ndarray:
        """(pictures, counts + 1): objects found at each count, the mean over thresholds, then the number of objects."""
        self.generator.network.load_state_dict(trained.state_dict())
        self.generator.to(next(trained.parameters()).device)
        readers = [reader for of_set in self.pictures.values() for reader in of_set]
        scores = np.zeros((len(readers), len(COUNTS) + 1))
        for index in range(rank, len(readers), of):
            scores[index] = found_of(self.generator, *readers[index]())
        return scores

    def validation(self, scores: np.ndarray) -> Validation:
        """Average recall of every set; the criterion is the mean over sets at the largest count."""
        ends = np.cumsum([len(of_set) for of_set in self.pictures.values()])
        figures: dict[str, float] = {}
        for name, of_set in zip(self.pictures, np.split(scores, ends[:-1]), strict=True):
            *found, objects = of_set.T
            if objects.any():  # a set without objects has no recall
                figures |= {f"{name} AR@{n}": average_recall(f, objects) for n, f in zip(COUNTS, found, strict=True)}
        most = [value for name, value in figures.items() if name.endswith(f"AR@{COUNTS[-1]}")]
        return Validation(
            criterion=float(np.mean(most)),
            figures=figures,
            scores={name: round(100 * value, 2) for name, value in figures.items()},
            by_item={},
        )


def _shows_object(picture: Picture) -> bool:
    _, labels = picture
    return len(objects_of(torch.from_numpy(labels))["boxes"]) > 0


def found_of(generator: ProposalGenerator, image: np.ndarray, labels: np.ndarray) -> list[float]:
    """Objects of a picture found by the first COUNTS proposals, means over thresholds; then its number of objects."""
    frames = torch.from_numpy(image).to(next(generator.parameters()).device).permute(2, 0, 1)[None].float() / 255
    proposals = generator(frames)
    boxes = proposals.boxes[0][proposals.scores[0] > 0]
    truth = objects_of(torch.from_numpy(labels))["boxes"]
    overlap = box_overlaps(boxes.cpu().numpy(), truth.numpy())
    return [*(objects_found(overlap, count) for count in COUNTS), len(truth)]


def held_out(root: Path, every: int) -> list[Callable[[], Picture]]:
    """Readers of the stills that `StillImages.without` leaves out."""
    stills = StillImages(root)
    return [partial(stills.read, index) for index in range(0, len(stills), every)]


def frames_of(config: ValidationConfig, base: Path) -> list[Callable[[], Picture]]:
    """Readers of every `VALIDATED`-th annotated frame of the videos of a split."""
    dataset = DavisDataset(base / config.root, config.year, config.split)
    chosen = dataset.select(config.sequences) if config.sequences else dataset
    return [partial(_frame, sequence, index) for sequence in chosen for index in sequence.annotated[::VALIDATED]]


def _frame(sequence: VideoSequence, index: int) -> Picture:
    labels = sequence.labels(index)
    if labels is None:  # its file has since been removed
        raise InputError(f"frame {index} of {sequence.name} no longer has an annotation")
    return read_image(sequence.frames[index]), labels
