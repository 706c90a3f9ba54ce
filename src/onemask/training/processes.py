"""Devices and processes, started by Lightning Fabric, and communication between processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from torch import Tensor, distributed

from ..errors import InputError, OnemaskError
from .recipe import PRECISIONS

T = TypeVar("T")


@dataclass(frozen=True)
class Hardware:
    """Devices to train on, as Lightning Fabric names them. Under `torchrun`, its processes and hosts are used."""

    accelerator: str = "auto"  # cpu, cuda, mps, auto
    devices: int | str = "auto"  # devices per host, or "auto": all GPUs, or one process if there are none
    hosts: int = 1

    def fabric(self, precision: str) -> Fabric:
        """Start the processes, and return in each of them. Raises InputError for hardware that is not available."""
        devices, hosts = self.devices, self.hosts
        if TorchElasticEnvironment.detect():  # on a CPU, Fabric would take each process for the only one
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
            hosts = int(os.environ["WORLD_SIZE"]) // devices
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=devices,
                num_nodes=hosts,
                precision=PRECISIONS[precision],  # type: ignore[arg-type]
            )
        # Fabric has no error of its own for these; MisconfigurationException is a bare Exception.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.accelerator!r} with {devices} devices is not available here: {reason}") from error
        fabric.launch()
        return fabric


def is_first() -> bool:
    """Whether this is the first of the processes that train together, or the only one.

    Ranks that a scheduler gives to jobs that have nothing to do with each other do not count.
    """
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def is_first_of_host() -> bool:
    """Whether this is the first of those processes on its host; known before they are connected."""
    alone = int(os.environ.get("WORLD_SIZE") or 1) == 1
    return alone or os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def told_once(kind: type[OnemaskError] = OnemaskError, by: Callable[[], bool] = is_first) -> Iterator[None]:
    """Mark an error of the block, which every process raises, so that the user reads it once.

    kind: the errors that all processes raise alike. by: whether this process tells the user.
    """
    try:
        yield
    except kind as error:
        error.told_by_another = not by()
        raise


def in_each(fabric: Fabric, act: Callable[[], T]) -> T:
    """Call `act` in every process; all raise the OnemaskError of the first that it failed in, so that none hangs."""
    done: list[T] = []
    refusal: OnemaskError | None = None
    try:
        done.append(act())
    except OnemaskError as error:
        refusal = error
    for rank in range(fabric.world_size):
        of_rank = fabric.broadcast(refusal, src=rank) if fabric.world_size > 1 else refusal
        if of_rank is not None:
            with told_once():
                raise of_rank
    return done[0]


def by_the_first(fabric: Fabric, act: Callable[[], None]) -> None:
    """Call `act` in the first process while the others wait; all raise its OnemaskError, so that none hangs."""
    refusal: OnemaskError | None = None
    if fabric.is_global_zero:
        try:
            act()
        except OnemaskError as error:
            refusal = error
    if fabric.world_size > 1:
        refusal = fabric.broadcast(refusal)
    if refusal is not None:
        with told_once():
            raise refusal


def in_any(fabric: Fabric, here: bool) -> bool:
    """Whether a condition holds in any process."""
    return bool(total(fabric, torch.tensor(float(here)))) if fabric.world_size > 1 else here


def total(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over processes, on the CPU."""
    if fabric.world_size == 1:
        return values.cpu()
    summed: Tensor = fabric.all_reduce(values.to(fabric.device), reduce_op="sum")  # type: ignore[assignment]
    return summed.cpu()
