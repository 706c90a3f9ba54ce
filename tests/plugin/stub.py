"""A plug-in's method without networks: milliseconds a frame, yet every frame depends on all before it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onemask.errors import InputError
from onemask.methods.method import Features, Memory, Method, Prediction


@dataclass
class StubMemory(Memory):
    logits: Tensor  # (N, 1, H, W)
    age: Tensor  # (N,) frames since the object was annotated


class Stub(Method):
    """The mask drifts to the right and takes up some of every frame."""

    stride = 16
    memory_type = StubMemory

    def __init__(self, gain: float, dies: str = ""):
        super().__init__()
        self.dies = dies
        self.gain = nn.Parameter(torch.tensor(gain))

    def encode(self, frames: Tensor, constant: object = None) -> Features:
        return Features(frames)

    def memorize(self, features: Features, masks: Tensor) -> StubMemory:
        return StubMemory(8 * (masks - 0.5), torch.zeros(len(masks), dtype=torch.long))

    def segment(self, features: Features, memory: Memory) -> Prediction:
        assert isinstance(memory, StubMemory)
        brightness = features.by_row(features.frames, len(memory)).mean(1, keepdim=True)
        return Prediction(memory.logits + self.gain * (brightness - 0.3))

    def update(self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor) -> StubMemory:
        assert isinstance(memory, StubMemory)
        if self.dies and memory.age.max() == 4 and not os.path.exists(self.dies):
            with open(self.dies, "w") as file:
                file.write(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return StubMemory(0.7 * prediction.logits.roll(1, -1) + 0.3 * memory.logits, memory.age + 1)


@dataclass(frozen=True)
class StubConfig:
    """Options of the stub."""

    gain: float = 2.0  # how much a bright picture counts
    capacity: int = 32  # of no effect
    first_samples: int = 5  # of no effect
    needs_weights: bool = False
    dies: str = ""  # a file: where it is not there, it is made in the fifth frame, and the process is killed

    def __post_init__(self):
        if self.capacity < self.first_samples:
            raise InputError("first_samples must be at most capacity")

    @property
    def architecture(self) -> dict[str, Any]:
        return {"gain": self.gain}

    def build(self, *, pretrained: bool = True) -> Stub:
        return Stub(self.gain, self.dies)


CONFIG = StubConfig()
