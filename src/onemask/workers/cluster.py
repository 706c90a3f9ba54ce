"""Worker processes on a Ray cluster, on other machines or on this one.

Each process is an actor with a CPU or a GPU of its own, and needs onemask installed. A process that is lost, alone or
with its node, is restarted when the cluster has room for it; the caller has to send its job again.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from .. import __version__
from ..errors import InputError, Interrupted, OnemaskError, one_line
from ..extras import how_to_install
from .pool import POLL_SECONDS

T = TypeVar("T")
CONNECT_SECONDS = 5.0
LOSSES = 5  # losses of one job after which the job itself is blamed
STARTS = 3  # failed starts in a row after which the cluster is blamed


class HandLost(OnemaskError):
    """A process was lost, alone or with its node."""


class _Worker:
    """The process on the cluster."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def version(self) -> str:
        return __version__

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function; its first argument is a dictionary that lives as long as the process."""
        return function(self._kept, *arguments)


class Hand:
    """A process on the cluster, see `pool`."""

    def __init__(self, ray: Any, device: str):
        self.device = device
        self._ray = ray
        needed = {"num_gpus": 1} if device == "cuda" else {"num_cpus": 1}
        self._actor_class = ray.remote(**needed)(_Worker)
        self._actor: Any = None
        self._version: Any = None
        self._failed = 0  # starts, one after the other

    def ready(self) -> bool:
        """Whether the process runs. Raises InputError if it has another version of onemask, or none."""
        if self._actor is None:
            self._actor = self._actor_class.remote()
            self._version = self._actor.version.remote()
        if self._version is None:
            return True
        if not self._ray.wait([self._version], timeout=0)[0]:
            return False
        try:
            version = self._got(self._version)
        except Exception as error:
            self.close()
            self._failed += 1
            if self._failed < STARTS:
                return False
            raise InputError(
                f"no process could be started on the cluster ({one_line(error)}); make sure that all its nodes have "
                f"onemask {__version__}"
            ) from error
        self._failed = 0
        if version != __version__:
            raise InputError(
                f"the cluster has onemask {version}, but this is {__version__}; install the same version on all its "
                "nodes"
            )
        self._version = None
        return True

    def call(self, stop: threading.Event, function: Callable[..., T], *arguments: Any) -> T:
        """Call a module-level function in the process; its first argument is a dictionary kept between calls.

        Raises HandLost if the process is lost, Interrupted if `stop` is set before there is an answer, and whatever
        the function raises.
        """
        answer = self._actor.call.remote(function, *arguments)
        while not self._ray.wait([answer], timeout=POLL_SECONDS)[0]:
            if stop.is_set():
                self.close()
                raise Interrupted("stopped")
        return self._got(answer)

    def close(self) -> None:
        """End the process."""
        if self._actor is not None:
            self._ray.kill(self._actor)
        self._actor = self._version = None

    def _got(self, answer: Any) -> Any:
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the function raised
        except self._ray.exceptions.RayError as error:
            self.close()
            raise HandLost(f"its process on the cluster was lost ({one_line(error)})") from error


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The package ray, connected to a cluster for the block, unless it is connected already.

    address: `HOST:PORT` or `ray://HOST:PORT`; empty: the cluster that RAY_ADDRESS names, else one already running on
    this machine, else one started for the block. Raises InputError if Ray is not installed or the address does not
    answer.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise InputError(f"--ray needs the package ray; {how_to_install('ray')}") from error
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def hands_of(
    address: str, devices: Sequence[str] = ("auto",), most: int | None = None, *, every: bool = False
) -> Iterator[list[Hand]]:
    """Processes on a Ray cluster, for the block.

    Args:
        address: see `connected`.
        devices: cuda or cpu for each process; auto: one process per GPU, or per CPU if there is no GPU.
        most: the largest number of processes that can be of use.
        every: cuda and cpu stand for all GPUs or CPUs of the cluster.

    Raises:
        InputError: see `connected`; or the cluster has no such devices.
    """
    if wrong := [device for device in devices if device not in ("auto", "cpu", "cuda")]:
        raise InputError(f"on a cluster a device must be auto, cpu or cuda (Ray chooses which one); got {wrong[0]!r}")
    with connected(address) as ray:
        yield [Hand(ray, device) for device in _each(devices, ray.cluster_resources(), every)[:most]]


def _connect(ray: Any, address: str) -> None:
    """Connect, or start a cluster. Raises InputError."""
    wanted = address or os.environ.get("RAY_ADDRESS", "")
    _refuse_silent(wanted)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here sends no usage statistics
    try:
        ray.init(address=address or None, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (Exception, SystemExit) as error:
        raise InputError(
            f"--ray {address}: no Ray cluster could be reached there, or started here ({one_line(error)})"
        ) from error


def _refuse_silent(address: str) -> None:
    """Raise InputError if nothing answers: Ray itself would wait for minutes, then end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto" or "local"; Ray itself rejects anything else
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"--ray {address}: nothing answers there ({error}); expected HOST:PORT of `ray start --head`"
        ) from error


def _each(devices: Sequence[str], resources: dict[str, float], every: bool) -> list[str]:
    """A device for each process. Raises InputError if the cluster does not have that many."""
    there = {"cuda": int(resources.get("GPU", 0)), "cpu": int(resources.get("CPU", 0))}
    found: list[str] = []
    for device in devices:
        kind = ("cuda" if there["cuda"] else "cpu") if device == "auto" else device
        found += [kind] * (max(1, there[kind]) if every or device == "auto" else 1)
    for kind, number in there.items():
        if found.count(kind) > number:
            raise InputError(
                f"the cluster has {number} {kind} devices, but {found.count(kind)} were asked for; ask for fewer"
            )
    return found
