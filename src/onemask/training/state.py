"""The state of a training that its checkpoint holds besides weights, and checkpoints that no longer fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, is_out_of_memory, one_line


@dataclass
class TrainingProgress:
    """How far training has come."""

    stage: int = 0
    step: int = 0  # the next step of the stage
    steps: int = 0  # completed steps of all stages
    best: float = -1.0  # criterion of the best validation
    of_best: dict[str, float] = field(default_factory=dict)  # its scores, in percent


@contextmanager
def taking_up(folder: Path) -> Iterator[None]:
    """Raise an InputError if the block, which loads the checkpoint in `folder`, finds that it does not fit.

    A network that an upgrade changed has parameters with other names or shapes than those in the checkpoint.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(
            f"the checkpoint in {folder} does not fit what this version of onemask trains ({reason}); resume with the "
            "version that began the training, or start over with --overwrite or in another folder"
        ) from error
