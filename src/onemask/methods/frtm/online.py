"""Base of methods with FRTM's target model, which is fitted to annotated frames and to masks of later frames.

FRTM is one such method, Fusion another. Each uses the model's scores in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...blocks.backbone import Backbone
from ...blocks.first_frame import first_frame_samples, published_samples
from ...blocks.reach import area
from ...blocks.rows import batches_of_rows
from ...blocks.transition import transition_loss
from ...eager import eager_on_cpu
from ..method import ON_CPU, Features, Memory, Method, Prediction
from .gauss_newton import Samples, fit_last_layer, fit_two_layers, label_terms, scores
from .options import FRTMOptions
from .segmentation_network import SegmentationNetwork

ENCODED_AT_ONCE = 4  # warped first frames per batch: bounds memory, whatever the number of objects
ENCODED_AT_ONCE_ON_CPU = 1  # a batch of four takes twice as long there: it does not fit the cache


@dataclass
class FRTMFeatures(Features):
    """Features of each frame for the target model, and the segmentation network's part that all objects share."""

    target: Tensor = field(kw_only=True)  # (B, C, h, w), h = H / target_stride
    shared: dict[str, Tensor] = field(kw_only=True)  # see SegmentationNetwork.prepare; empty without one


@dataclass
class FRTMMemory(Memory):
    """Target model of each object, and the samples that it is fitted to."""

    first: Tensor  # (N, c, C): w1
    last: Tensor  # (N, c, 9): w2
    projected: Tensor  # (N, K, c, h, w): samples under w1
    quadratic: Tensor  # (N, K, 9, h, w) and
    linear: Tensor  # (N, K, h, w): their labels, see methods.frtm.gauss_newton
    weights: Tensor  # (N, K): gamma, sum 1; 0 where there is no sample yet
    next_weight: Tensor  # (N,): weight of the next sample, before normalisation
    age: Tensor = field(metadata=ON_CPU)  # (N,) int64: frames since the object was annotated
    previous: Tensor  # (N, 1, H, W): the last estimate, where a transition map is learned; else (N, 0, 0, 0)
    network: Tensor  # (N, P): parameters of each object's own network, see `refiners`; (N, 0): all share one


@dataclass
class FRTMPrediction(Prediction):
    """Logits, the target model's scores, and the projected features that these were computed from."""

    scores: Tensor  # (N, 1, h, w): about 1 on the target, 0 elsewhere
    projected: Tensor  # (N, c, h, w)
    transition: Tensor | None = None  # (N, 2, H/4, W/4) in training, where one is learned, and
    previous: Tensor | None = None  # (N, 1, H, W): the estimate that it corrects


FeaturesT = TypeVar("FeaturesT", bound=FRTMFeatures)
MemoryT = TypeVar("MemoryT", bound=FRTMMemory)
PredictionT = TypeVar("PredictionT", bound=FRTMPrediction)
M = TypeVar("M", bound=FRTMMemory)
S = TypeVar("S", Tensor, Samples)


class OnlineTarget(Method[FeaturesT, MemoryT, PredictionT]):
    """A method with a target model that is fitted online; only `network` is trained offline."""

    config: FRTMOptions
    traceable = True
    graph_parts = ("network",)
    memory_depends_on_weights = False
    first_in_double = False  # fit both layers in float64 on the annotated frame, whatever the options say
    not_of_memory: tuple[str, ...] = (
        *("width", "fine_width", "update_every", "update_iterations", "least_side", "magnify"),
        *("refiner", "finetune_iterations", "finetune_samples", "finetune_batch", "finetune_lr", "finetune_share"),
    )

    def __init__(self, config: FRTMOptions, *, pretrained: bool = True):
        super().__init__()
        self.config = config
        strides = () if config.target_only else config.strides
        self.backbone = Backbone(config.backbone, sorted({*strides, config.target_stride}), pretrained=pretrained)
        self.backbone.requires_grad_(False)
        self.stride = self.stride_before = max(self.backbone.strides)
        # With version 1 the fit to the annotated frame is in float64, or its warped copies are different.
        self.memory_version = int(self.first_in_double or config.published or config.first_anywhere)
        channels = {stride: self.backbone.channels[stride] for stride in strides}
        self.network = (
            None
            if config.target_only
            else SegmentationNetwork(
                channels, config.width, config.fine_width, transition=config.transition, published=config.published
            )
        )
        self.background, self.reach = config.background, config.reach
        self.least_side, self.magnify = config.least_side, config.magnify
        self.own_losses = ("transition",) if config.transition else ()

    def prepared(self, pyramid: dict[int, Tensor]) -> dict[str, Tensor]:
        """Everything computed from a frame's features that all objects share, except the target model's input."""
        assert self.network is not None
        return self.network.prepare(pyramid)

    @torch.no_grad()
    def fitted(self, features: FeaturesT, masks: Tensor) -> FRTMMemory:
        """Fit a model to each of N annotated objects: masks (N, 1, H, W) in [0, 1] (Algorithm 1, lines 1 and 2)."""
        memory = self.learned(self._first_samples(features, masks))
        return replace(memory, previous=masks) if self.config.transition else memory

    @torch.no_grad()
    def followed(self, memory: MemoryT, prediction: PredictionT, masks: Tensor) -> MemoryT:
        """Store the frame (Algorithm 1, line 7) and refit the last layer of objects that are due (line 9)."""
        if memory.previous.numel():
            memory.previous = masks
        memory.age = memory.age + 1
        if self.config.update_every == 0:
            return memory
        with full_precision(masks):
            self._remember(memory, prediction, masks[:, 0])
            due = memory.age % self.config.update_every == 0
            if self.config.published and due.any():
                due = due & self._large_enough(masks[:, 0] > 0.5).cpu()
            rows = [row for row, is_due in enumerate(due.tolist()) if is_due]
            self._fit_last(memory, rows, self.config.update_iterations)
        return memory

    def losses(self, prediction: PredictionT, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss "transition", if a transition map is learned."""
        if prediction.transition is None or prediction.previous is None:
            return {}
        return {"transition": transition_loss(prediction.transition, prediction.previous, masks, known)}

    def diagnostics(self, features: FeaturesT, memory: MemoryT, prediction: PredictionT) -> dict[str, Tensor]:
        """The target model's scores, before and after refinement, and how much the annotated frame still weighs."""
        first = self._solving_weights(memory.weights)[:, : self.config.first_samples].sum(1)
        return {
            "target model's score": prediction.scores.clamp(0, 1),
            "refined": prediction.logits.sigmoid(),
            "share of first frame": first,
        }

    # The annotated frame ---------------------------------------------------------------------------------------------

    def _first_samples(self, features: FeaturesT, masks: Tensor) -> Samples:
        """Samples of the annotated frame: the frame itself, then warped copies of it."""
        rows, copies = len(masks), self.config.first_samples - 1
        frames = features.by_row(features.frames, rows)
        warped = [self.warped(frame, mask[0] > 0.5, copies) for frame, mask in zip(frames, masks, strict=True)]
        images = torch.cat([images for images, _ in warped])
        encoded = [self.backbone(part)[self.config.target_stride].float() for part in encoded_at_once(images)]
        original = features.by_row(features.target.float(), rows)[:, None]
        copied = torch.cat(encoded).unflatten(0, (rows, copies)) if encoded and copies else original[:, :0]
        labels = torch.stack([torch.cat([mask > 0.5, m]) for mask, (_, m) in zip(masks, warped, strict=True)])
        quadratic, linear = self.label_terms_of(labels.flatten(0, 1), original.shape[-2:])
        return Samples(
            torch.cat([original, copied], 1),
            quadratic.unflatten(0, (rows, copies + 1)),
            linear.unflatten(0, (rows, copies + 1)),
            first_sample_weights(copies + 1, masks).expand(rows, -1),
        )

    def warped(self, frame: Tensor, mask: Tensor, copies: int) -> tuple[Tensor, Tensor]:
        """Warp a frame (3, H, W) and its mask (H, W): copies (k, 3, H, W) in [0, 1] and (k, H, W) bool."""
        image = np.ascontiguousarray((frame.float() * 255).round().byte().permute(1, 2, 0).cpu().numpy())
        label, seed = mask.cpu().numpy(), self.config.seed
        if self.config.published or self.config.first_anywhere:
            images, masks = published_samples(image, label, copies, seed)
        else:
            images, masks = first_frame_samples(
                image, label, copies, seed, self.config.first_shift, self.config.first_background
            )
        frames = torch.from_numpy(images).to(frame.device).permute(0, 3, 1, 2)
        return frames.to(frame.dtype) / 255, torch.from_numpy(masks).to(mask.device)

    def initial_model(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Initial w1 and w2, as PyTorch initialises convolutions; the same for each row of features (N, K, C, h, w)."""
        generator = torch.Generator().manual_seed(self.config.seed)
        shapes = (self.config.channels, features.shape[2]), (self.config.channels, 9)
        inputs = features.shape[2], self.config.channels * 9
        first, last = (
            ((torch.rand(shape, generator=generator) * 2 - 1) / fan_in**0.5).to(features.device)
            for shape, fan_in in zip(shapes, inputs, strict=True)
        )
        return first.expand(len(features), -1, -1), last.expand(len(features), -1, -1)

    def learned(self, samples: Samples) -> FRTMMemory:
        """Fit models to the annotated frame's samples."""
        config = self.config
        with full_precision(samples.features):
            first, last = self.initial_model(samples.features)
            exact = config.double or (self.first_in_double and first.device.type != "mps")  # MPS has no float64
            first, last = fit_two_layers(
                *((samples.double(), first.double(), last.double()) if exact else (samples, first, last)),
                config.penalties,
                config.first_iterations,
                config.regularisation,
                guarded=not config.published,
            )
            memory = self.memory_of(samples, first.to(samples.features), last.to(samples.features))
            self._fit_last(memory, range(len(first)), config.first_last_iterations)
        return memory

    def _as_solved(self, known: S) -> S:
        """Cast samples or layers to the precision in which the target model is fitted."""
        return known.double() if self.config.double else known

    def memory_of(self, samples: Samples, first: Tensor, last: Tensor) -> FRTMMemory:
        """Create a memory whose first slots hold the annotated frame's samples."""
        rows, used = samples.weights.shape
        empty, rate = self.config.capacity - used, self.config.learning_rate
        projected = (first[:, None] @ samples.features.flatten(3)).unflatten(-1, samples.features.shape[-2:])

        def with_space(tensor: Tensor) -> Tensor:
            return torch.cat([tensor, tensor.new_zeros(rows, empty, *tensor.shape[2:])], 1)

        return FRTMMemory(
            first=first,
            last=last.clone(),  # it is updated in place
            projected=with_space(projected),
            quadratic=with_space(samples.quadratic),
            linear=with_space(samples.linear),
            weights=with_space(samples.weights),
            next_weight=samples.weights.new_full((rows,), rate * (1 - rate) if self.config.published else rate),
            age=torch.zeros(rows, dtype=torch.long),
            previous=first.new_zeros(rows, 0, 0, 0),
            network=first.new_zeros(rows, 0),
        )

    # Later frames ----------------------------------------------------------------------------------------------------

    def _remember(self, memory: FRTMMemory, prediction: FRTMPrediction, masks: Tensor) -> None:
        """Replace each row's sample of least weight with the frame and its masks (N, H, W), probabilities.

        Rows with too few target pixels are not changed. Labels are the masks thresholded at one half; with `published`,
        scores are compared with the soft masks, and the labels only determine the pixels' weights.

        Weights (section 3.4): the new sample weighs 1 / (1 - eta) times the one before, then all are normalised.
        """
        labels = masks > 0.5
        rows = torch.arange(len(labels), device=labels.device)
        learned = self._large_enough(labels)
        kept_places = self.config.first_samples if self.config.first_share else 0
        place = kept_places + memory.weights[:, kept_places:].argmin(1)

        def put(store: Tensor, new: Tensor) -> None:
            if eager_on_cpu(new):  # copy only the rows that change
                for row in learned.nonzero()[:, 0].tolist():
                    store[row, int(place[row])] = new[row]
                return
            choose = learned.view(-1, *[1] * (new.ndim - 1))
            store[rows, place] = torch.where(choose, new, store[rows, place])

        soft = masks.float() if self.config.published else None
        quadratic, linear = self.label_terms_of(labels, prediction.projected.shape[-2:], soft)
        put(memory.projected, prediction.projected)
        put(memory.quadratic, quadratic)
        put(memory.linear, linear)
        put(memory.weights, memory.next_weight)
        total = memory.weights.sum(1)
        memory.weights = memory.weights / total[:, None]
        following = memory.next_weight / total / (1 - self.config.learning_rate)
        memory.next_weight = torch.where(learned, following, memory.next_weight)

    def _large_enough(self, labels: Tensor) -> Tensor:
        """Whether enough of the target is visible to learn from: labels (N, H, W) bool -> (N,) bool."""
        return area(labels) >= self.config.minimum_pixels

    def _fit_last(self, memory: FRTMMemory, rows: Sequence[int], iterations: int) -> None:
        """Fit the last layer of the given rows to their samples, in place."""
        if not rows:
            return
        config, weights = self.config, self._solving_weights(memory.weights)
        for part in batches_of_rows(rows, memory.last):
            samples = Samples(memory.projected[part], memory.quadratic[part], memory.linear[part], weights[part])
            memory.last[part] = fit_last_layer(
                self._as_solved(samples),
                self._as_solved(memory.last[part]),
                config.penalties[1],
                iterations,
                preconditioner=config.regularisation[1],
                whiten=config.whiten,
            ).to(memory.last)

    def _solving_weights(self, weights: Tensor) -> Tensor:
        """The samples' weights (N, K), with the annotated frame's total raised to `first_share` where it fell below.

        That frame's own weights decay to zero in the end, so its total is distributed over its samples anew.
        """
        count, least = self.config.first_samples, self.config.first_share
        if not least:
            return weights
        first, later = weights.split([count, weights.shape[1] - count], 1)
        share = first.sum(1, keepdim=True).clamp(min=least)
        rest = (1 - share) / later.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return torch.cat([share * first_sample_weights(count, weights), later * rest], 1)

    def label_terms_of(self, labels: Tensor, grid: torch.Size, soft: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data term for labels (N, H, W) bool on the scores' grid, see gauss_newton.label_terms."""
        config = self.config
        with full_precision(labels):
            return label_terms(
                labels.float(),
                (grid[0], grid[1]),
                config.minimum_influence,
                minimum_pixels=config.minimum_pixels,
                soft=soft,
            )


def first_sample_weights(count: int, like: Tensor) -> Tensor:
    """Weights (count,) of the annotated frame's samples, summing to 1; the first, the frame itself, counts twice."""
    weights = like.new_full((count,), 1 / (count + 1), dtype=torch.float32)
    weights[0] *= 2
    return weights


def target_model(x: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Apply D (equation 1) with w1 (N, c, C), w2 (N, c, 9) to x (N, C, h, w) float32: s (N, 1, h, w) and w1 * x."""
    with full_precision(x):
        projected = (first @ x.flatten(2)).unflatten(-1, x.shape[-2:])
        return scores(projected[:, None], last), projected


def encoded_at_once(frames: Tensor) -> tuple[Tensor, ...]:
    """Split frames (B, 3, H, W) into batches for the backbone."""
    return frames.split(ENCODED_AT_ONCE_ON_CPU if frames.device.type == "cpu" else ENCODED_AT_ONCE)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Disable autocast: the target model is fitted in float32, whatever precision the networks run in."""
    return torch.autocast(tensor.device.type, enabled=False)
