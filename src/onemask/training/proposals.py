"""Training of `maskrcnn-lite`, the network that proposes boxes and masks of things, on the frames of training clips.

OUT/recipe.yaml                  what was asked for, every value
OUT/maskrcnn-lite.safetensors    the weights, and maskrcnn-lite.json: their card, with average recall
OUT/history.jsonl                a line a step: losses, rate
OUT/checkpoint.pt                what is needed to go on

Clips come as in any other training: synthetic ones of stills, in which every object is known and others are pasted
over, and videos. Each of their frames is a picture by itself, and every object in it is a thing of the one class.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from ..data.clip import VOID, ClipSource
from ..data.davis import DavisDataset
from ..data.mixture import Mixture
from ..data.sources import open_source
from ..data.stills import StillImages
from ..data.synthetic import StillClips
from ..errors import InputError, Interrupted
from ..evaluation.recall import average_recall, box_overlaps
from ..files import write_bytes, written_whole
from ..interruption import stop_asked
from ..methods.dmn_aoa.proposals import LITE, LiteConfig, ProposalGenerator, detection_losses, maskrcnn_lite
from ..methods.dmn_aoa.regions import first_and_end
from ..results import ResultFolder
from ..settings import Progress, silent
from ..video.images import read_image
from ..weights.card import Card
from ..weights.store import save
from .feed import Feed, Order, Parts
from .folder import commit
from .optimisers import optimiser, rate_at, set_rate, trained_parameters
from .processes import Hardware
from .recipe import StageConfig, ValidationConfig, check_stage, read_structured, to_yaml
from .unroll import ClipBatch

log = logging.getLogger(__name__)

COUNTS = (10, 30)  # proposals at which recall is told
VALIDATED = 5  # every so many-th annotated frame of the validation's videos
UNUSED = ("cache", "update", "accumulate", "distinct", "bootstrap")  # of a stage, in which these have no meaning


@dataclass
class ProposalRecipe:
    """A complete training of the proposal network, from a backbone's ImageNet weights."""

    stages: list[StageConfig] = MISSING  # their losses are torchvision's; frames of a clip: `length`
    seed: int = 0
    precision: str = "float32"  # of the backbone and its pyramid: float32, bfloat16
    workers: int = 1  # processes that read and make clips
    held_out: int = 25  # every so many-th of the stills is never trained on: recall is measured there; 0: none
    checkpoint_every: int = 100  # iterations
    validation: ValidationConfig = field(default_factory=ValidationConfig)  # its root, split and sequences
    attribution: list[str] = field(default_factory=list)  # for the card
    licence: str = ""  # for the card
    note: str = ""  # for the card


def read_proposal_recipe(path: str | Path, assignments: Sequence[str] = ()) -> ProposalRecipe:
    """A recipe from a YAML file, with values set by `key=value` texts. Raises InputError that names the key."""
    recipe = read_structured(path, ProposalRecipe, assignments)
    if recipe.precision not in ("float32", "bfloat16"):
        raise InputError(f"precision is float32 or bfloat16, got {recipe.precision!r}")
    if min(recipe.seed, recipe.workers, recipe.held_out) < 0 or recipe.checkpoint_every < 1:
        raise InputError("seed, workers and held_out must be 0 or more, checkpoint_every 1 or more")
    if not recipe.stages:
        raise InputError("stages is empty; a recipe needs at least one stage")
    plain = StageConfig(data=[])
    for number, stage in enumerate(recipe.stages):
        check_stage(stage, f"stages.{number}")
        if unused := [name for name in UNUSED if getattr(stage, name) != getattr(plain, name)]:
            raise InputError(f"stages.{number}.{unused[0]} has no meaning for proposals; leave it out")
        if not stage.iterations:
            raise InputError(f"stages.{number} needs iterations, not epochs")
    return recipe


def train_proposals(
    recipe: ProposalRecipe,
    out: str | Path,
    *,
    data: str | Path = ".",
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> Card:
    """Train `maskrcnn-lite` as a recipe says and write it into `out`; its card, with average recall in percent.

    data: the folder that the recipe's roots are relative to. resume: go on from the checkpoint in `out`.
    Raises InputError for what does not fit, OutputError where `out` holds something, Interrupted after Ctrl-C.
    """
    out, data = Path(out), Path(data)
    files = ("recipe.yaml", "checkpoint.pt", "history.jsonl", f"{LITE}.safetensors", f"{LITE}.json")
    results = ResultFolder(out, "a training of proposals", files)
    results.check(asdict(recipe), overwrite=overwrite, resume=resume)
    sources = [_sources(stage, recipe.held_out, data) for stage in recipe.stages]
    mixtures = [Mixture(of_stage, recipe.seed) for of_stage in sources]
    measured = _measured(recipe, data)
    torch.manual_seed(recipe.seed)
    network = maskrcnn_lite()
    training = _Training(recipe, network, mixtures, out, device, progress)
    with results.opened(asdict(recipe), overwrite=overwrite, resume=resume):
        results.adopt(*files)
        write_bytes(out / "recipe.yaml", to_yaml(recipe).encode())
        if (out / "checkpoint.pt").exists():
            training.take_up()
        training.run()
        card = _saved(recipe, network, measured, out, progress)
        results.finish()
    return card


def _saved(
    recipe: ProposalRecipe, network: MaskRCNN, measured: dict[str, Pictures], out: Path, progress: Progress
) -> Card:
    """Measure the recall and write the weights with their card."""
    scores: dict[str, float] = {}
    generator = ProposalGenerator(network)
    for name, pictures in measured.items():
        of_set = recall(generator, progress(pictures, len(pictures), f"recall on {name}"))
        scores |= {f"{name} AR@{count}": round(100 * value, 2) for count, value in of_set.items()}
    card = Card(
        method=LITE,
        architecture=asdict(LiteConfig()),
        data=recipe.attribution or [source.root for stage in recipe.stages for source in stage.data],
        recipe={"name": out.resolve().name, "text": to_yaml(recipe)},
        commit=commit(),
        date=date.today().isoformat(),
        scores={name: score for name, score in scores.items() if math.isfinite(score)},
        licence=recipe.licence or "see the data's own terms",
        notes=recipe.note,
    )
    return save(network, out / f"{LITE}.safetensors", card)


def recall(generator: ProposalGenerator, pictures: Any) -> dict[int, float]:
    """Average recall of boxes at COUNTS proposals, in [0, 1], over all objects of pictures.

    pictures: (H, W, 3) uint8 RGB, each with its label map (H, W) uint8: 0, 1..N, 255 void.
    """
    overlaps = []
    device = next(generator.network.parameters()).device
    for image, labels in pictures:
        frames = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255
        proposals = generator(frames)
        found = proposals.boxes[0][proposals.scores[0] > 0]
        truth = objects_of(torch.from_numpy(labels))["boxes"]
        overlaps.append(box_overlaps(found.cpu().numpy(), truth.numpy()))
    return {count: average_recall(overlaps, count) for count in COUNTS}


def objects_of(labels: Tensor) -> dict[str, Tensor]:
    """A label map (H, W) uint8 -> its objects as torchvision's networks learn from them, boxes of 2 pixels at least.

    boxes (G, 4) float32, the pixels' outer edges; labels (G,), all 1; masks (G, H, W) uint8.
    """
    ids = [value for value in labels.unique().tolist() if value not in (0, VOID)]
    masks = labels == torch.tensor(ids, dtype=labels.dtype, device=labels.device).view(-1, 1, 1)
    (left, right), (top, bottom) = first_and_end(masks.any(1)), first_and_end(masks.any(2))
    boxes = torch.stack([left, top, right, bottom], 1).float()
    large = ((right - left) > 1) & ((bottom - top) > 1)
    boxes, masks = boxes[large], masks[large]
    return {"boxes": boxes, "labels": boxes.new_ones(len(boxes), dtype=torch.long), "masks": masks.to(torch.uint8)}


class _Training:
    """The loop over stages and steps."""

    def __init__(
        self,
        recipe: ProposalRecipe,
        network: MaskRCNN,
        mixtures: list[Mixture],
        out: Path,
        device: str,
        progress: Progress,
    ):
        self.recipe, self.mixtures, self.out, self.progress = recipe, mixtures, out, progress
        self.fabric = Hardware(device, 1).fabric(recipe.precision)
        self.network = network.to(self.fabric.device).train()
        self.as_built = {name: p.requires_grad for name, p in network.named_parameters()}
        self.stage = self.step = 0
        self.optimiser_state: Any = None

    def run(self) -> None:
        """All stages, from where the checkpoint stands."""
        with stop_asked("step") as stop:
            for number in range(self.stage, len(self.recipe.stages)):
                self._run_stage(number, stop)
                self.stage, self.step, self.optimiser_state = number + 1, 0, None
                self._checkpoint()

    def take_up(self) -> None:
        """Go on from the checkpoint, unless it is of another recipe."""
        state = torch.load(self.out / "checkpoint.pt", map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.stage, self.step, self.optimiser_state = state["stage"], state["step"], state["optimiser"]
        taken = sum(stage.iterations for stage in self.recipe.stages[: self.stage]) + self.step
        lines = (self.out / "history.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        write_bytes(self.out / "history.jsonl", "".join(lines[:taken]).encode())  # later steps are taken again

    def _run_stage(self, number: int, stop: Event) -> None:
        stage = self.recipe.stages[number]
        optimise = optimiser(stage.optimiser, trained_parameters(self.network, stage.optimiser.groups, self.as_built))
        if self.optimiser_state is not None:
            optimise.load_state_dict(self.optimiser_state)
        seen = sum(earlier.iterations * earlier.batch for earlier in self.recipe.stages[:number])
        order = Order(stage.batch, 0, self.recipe.seed, first=seen)
        parts = Parts(self.mixtures[number], stage, stage.iterations, order)
        batches = iter(Feed(parts, self.step, self.recipe.workers))
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in self.progress(batches, stage.iterations - self.step, stage.name):
                self._learn(stage, batch, optimise)
                self.step += 1
                self.optimiser_state = optimise.state_dict()
                if stop.is_set() or self.step % self.recipe.checkpoint_every == 0:
                    self._checkpoint()
                if stop.is_set():
                    raise Interrupted(f"stopped after step {self.step} of {stage.name}; --resume goes on from there")

    def _learn(self, stage: StageConfig, batch: ClipBatch, optimise: torch.optim.Optimizer) -> None:
        """Take one optimisation step."""
        rate = rate_at(stage.schedule, stage.optimiser.rate, self.step / stage.iterations)
        set_rate(optimise, rate)
        optimise.zero_grad()
        # What is sampled for the losses depends on the step alone, so that a resumed training needs to know no more.
        torch.manual_seed(int(np.random.SeedSequence([self.recipe.seed, self.stage, self.step]).generate_state(1)[0]))
        frames = batch.frames.flatten(0, 1).to(self.fabric.device).float() / 255
        targets = [objects_of(labels) for labels in batch.labels.flatten(0, 1).to(self.fabric.device)]
        with self.fabric.autocast():
            losses = detection_losses(self.network, list(frames), targets)
        if unknown := sorted(set(stage.losses) ^ set(losses)):
            raise InputError(
                f"losses of {stage.name} must be {', '.join(losses)}, each with its weight; add or remove "
                f"{', '.join(unknown)}"
            )
        loss = torch.stack([stage.losses[name] * value for name, value in losses.items()]).sum()
        if not loss.isfinite():
            raise InputError(f"the loss is not finite in step {self.step} of {stage.name}; lower the rate")
        loss.backward()
        trained = [p for p in self.network.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, stage.clip_gradient or math.inf)
        optimise.step()
        figures = {name: round(float(value.detach()), 5) for name, value in {"loss": loss, **losses}.items()}
        with (self.out / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage.name, "step": self.step, "rate": rate, **figures}) + "\n")

    def _checkpoint(self) -> None:
        state = {
            "recipe": to_yaml(self.recipe),
            "stage": self.stage,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser_state,
        }
        with written_whole(self.out / "checkpoint.pt") as temporary:
            torch.save(state, temporary)


# Data -----------------------------------------------------------------------------------------------------------------


def _sources(stage: StageConfig, held_out: int, data: Path) -> list[tuple[ClipSource, float]]:
    """The sources of a stage with their shares, without what is held out."""
    sources = [(open_source(config, data), config.share) for config in stage.data]
    return [
        (StillClips(source.stills.without(held_out), source.cutouts, source.config), share)
        if isinstance(source, StillClips) and held_out
        else (source, share)
        for source, share in sources
    ]


def _measured(recipe: ProposalRecipe, data: Path) -> dict[str, Pictures]:
    """The pictures on which recall is measured, by what they are called in the card."""
    stills = dict.fromkeys(
        config.root for stage in recipe.stages for config in stage.data if config.kind == "stills" and recipe.held_out
    )
    measured: dict[str, Pictures] = {
        f"held-out {Path(root).name}": _Stills(data / root, recipe.held_out) for root in stills
    }
    if recipe.validation.root:
        measured[recipe.validation.split] = _Frames(recipe.validation, data)
    return measured


class Pictures(Protocol):
    """Pictures with label maps, read one by one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


class _Stills:
    """Those that are held out."""

    def __init__(self, root: Path, every: int):
        self.stills, self.every = StillImages(root), every

    def __len__(self) -> int:
        return len(range(0, len(self.stills), self.every))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.stills.read(index) for index in range(0, len(self.stills), self.every))


class _Frames:
    """Frames of a split, some of each video."""

    def __init__(self, config: ValidationConfig, data: Path):
        dataset = DavisDataset(data / config.root, config.year, config.split)
        chosen = dataset.select(config.sequences) if config.sequences else dataset
        self.frames = [(sequence, index) for sequence in chosen for index in sequence.annotated[::VALIDATED]]

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for sequence, index in self.frames:
            labels = sequence.labels(index)
            assert labels is not None
            yield read_image(sequence.frames[index]), labels
