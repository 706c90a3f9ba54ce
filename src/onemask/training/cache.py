"""Disk cache of what training does not change: features of a frozen backbone, memories of reference frames.

A stage with `distinct` clips sees each of them many times. With a frozen backbone, its features are the same every
time. So is the memory of the reference frame, if no part of it is learned offline (FRTM's target models, section 3.3).
A step then only has to compute the trained part. Each clip is a file, so recipes that agree on everything that the
cache depends on share it, and an interrupted cache is continued. Other data under the same names has another cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as encoded
from torch import Tensor, nn

from ..data.sources import recorded_values
from ..errors import InputError
from ..files import read_json, write_bytes, write_json
from ..methods.method import Memory, Method
from ..methods.options import newer_options
from .recipe import Recipe, StageConfig
from .unroll import ClipBatch, as_it_runs

log = logging.getLogger(__name__)

CLIPS = 1  # increased whenever a seed gives a different clip than before, or the contents of a file change
NOT_OF_CLIPS = {
    *("name", "batch", "accumulate", "iterations", "epochs", "distinct", "cache", "update", "losses", "bootstrap"),
    *("optimiser", "schedule", "clip_gradient", "batch_norm"),
}  # options of a stage that do not affect its clips


class ClipCache:
    """A folder with one file per clip.

    Features are kept in half precision, memories as they are.

    data: fingerprint of the data that clips are made of, see `data_fingerprint`. A cache of an earlier version, which
    did not record it, is taken for one of this data, with a warning; from then on it is recorded.
    """

    def __init__(self, folder: Path, method: Method, recipe: Recipe, stage: StageConfig, data: str = ""):
        self.method = method
        self.with_memory = not method.memory_depends_on_weights
        self.constant_type, self.memory_type = method.constant_type, method.memory_type
        depends_on = _depends_on(method, recipe, stage)
        of_data = {**depends_on, "data": data}
        # New caches are named after their data too, so that trainings that begin together never choose the same one.
        self.folder, earlier = folder / _name(of_data), folder / _name(depends_on)
        recorded = _recorded(self.folder)
        if recorded is None and (of_earlier := _recorded(earlier)) and of_earlier.get("data", data) == data:
            self.folder, recorded = earlier, of_earlier
            if "data" not in of_earlier:
                log.warning(
                    "%s is of an earlier version, which did not record its data, and is used as if it were of today's; "
                    "if the data have changed since, delete it, and start over with --overwrite",
                    earlier,
                )
        if recorded is None or "data" not in recorded:
            write_json(self.folder / "clips.json", of_data)

    def __getstate__(self) -> dict[str, Any]:
        """State without the method, which workers do not need: they only read."""
        return {**self.__dict__, "method": None}

    def __contains__(self, index: int) -> bool:
        return self.path(index).exists()

    def path(self, index: int) -> Path:
        """The file of clip `index`."""
        return self.folder / f"{index // 1000:03}" / f"{index % 1000:03}.safetensors"

    @torch.no_grad()
    def fill(self, index: int, batch: ClipBatch) -> None:
        """Compute the cached tensors of a clip (a batch of one) with the method in evaluation mode, and write them."""
        with as_it_runs(self.method):  # the batch norm of a method that was just built is in training mode
            tensors = self._computed(batch)
        # If safetensors wrote to the file itself, a full disk would raise an error of its own.
        write_bytes(self.path(index), encoded({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))

    def _computed(self, batch: ClipBatch) -> dict[str, Tensor]:
        begins = 1 if self.with_memory and not self.method.renews else 0
        constant = self.method.constant(batch.frames[0].float() / 255)
        tensors = {"frames": batch.frames, "labels": batch.labels, "objects": batch.objects}
        tensors |= {f"pyramid.{name}": tensor[None, begins:].half() for name, tensor in constant.tensors().items()}
        if self.with_memory:
            reference = constant.map(lambda tensor: tensor[:1])
            rows = batch.frame_of_row
            memory = self.method.memorize(
                self.method.encode(batch.pictures(0), reference).for_rows(rows), batch.masks(0)[0]
            )
            tensors |= {f"memory.{name}": tensor for name, tensor in memory.tensors().items()}
        return tensors

    def read(self, index: int) -> ClipBatch:
        """Read what `fill` wrote, as a batch of one. Raises InputError if the file is damaged."""
        path = self.path(index)
        try:
            tensors = load_file(path)
            constant = self.constant_type.of(_below("pyramid.", tensors))
            of_memory = _below("memory.", tensors)
            memory: Memory | None = self.memory_type(**of_memory) if of_memory else None
            return ClipBatch(tensors["frames"], tensors["labels"], tensors["objects"], constant, memory)
        except (OSError, SafetensorError, LookupError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); delete it, and it will be created again") from error


def _name(depends_on: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]


def _recorded(folder: Path) -> dict[str, Any] | None:
    """Read what a cache says that it depends on; None if there is no cache yet."""
    path = folder / "clips.json"
    return read_json(path, f"delete {folder}, and it will be created again") if path.exists() else None


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _depends_on(method: Method, recipe: Recipe, stage: StageConfig) -> dict[str, Any]:
    """Everything that determines the cached tensors of clip i, as plain values."""
    others = {f"weights of {name}": _fingerprint(part) for name, part in method.constant_parts().items()}
    of_clips = {key: value for key, value in asdict(stage).items() if key not in NOT_OF_CLIPS}
    of_clips["data"] = [recorded_values(source) for source in of_clips["data"]]
    config = method.config
    before = {now: then for then, now in getattr(config, "renamed", {}).items()}  # caches outlive new names
    newer = newer_options(config)  # and new options
    # Version 1 is omitted: its caches were written before there were versions.
    version = {} if CLIPS == 1 else {"version": CLIPS}
    if not method.memory_depends_on_weights and method.memory_version:
        version["version of memories"] = method.memory_version
    renewed = {"reference": "kept"} if not method.memory_depends_on_weights and method.renews else {}
    held_out = {"held out": recipe.held_out} if recipe.held_out else {}
    return {
        **version,
        **renewed,
        **held_out,
        "seed": recipe.seed,
        "stage": of_clips,
        "method": {}
        if config is None
        else {
            before.get(k, k): repr(v)
            for k, v in asdict(config).items()
            if k in _of_memory(method) and (k not in newer or v != newer[k])
        },
        "strides": list(method.backbone.strides),
        "backbone": method.backbone.name,
        "backbone's weights": _fingerprint(method.backbone),
        **others,
    }


def _fingerprint(part: nn.Module) -> str:
    """Fingerprint of a network's weights; treats -0 as 0, since a moving average can turn one into the other."""
    weights = hashlib.sha256()
    for name, tensor in sorted(part.state_dict().items()):
        weights.update(name.encode())
        weights.update((tensor.detach().cpu() + 0).contiguous().numpy().tobytes())
    return weights.hexdigest()[:16]


def _of_memory(method: Method) -> set[str]:
    """Options that the cached memory depends on: all but the method's `not_of_memory`; none if it is not cached."""
    if method.memory_depends_on_weights or method.config is None:
        return set()
    return {field.name for field in fields(method.config)} - set(method.not_of_memory)
