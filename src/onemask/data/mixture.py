"""An endless stream of clips from several sources, in which every clip can be made independently."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .clip import Clip, ClipRequest, ClipSource


class Mixture:
    """Clips from several sources in proportion to their shares; clip i is the same in any order and in any worker.

    Training that resumes at clip i continues as if it had not been interrupted, and the number of workers that read
    ahead changes nothing.
    """

    def __init__(self, sources: Sequence[tuple[ClipSource, float]], seed: int) -> None:
        """Mix sources, each with its share; shares need not add up to 1. seed: 0 or more.

        Raises InputError if there are no sources, for an empty one, for shares that are negative, not finite or all
        zero, and for a negative seed.
        """
        if not sources:
            raise InputError("a mixture needs at least one source")
        if any(len(source) == 0 for source, _ in sources):
            raise InputError("every source of a mixture needs at least one picture or video, but one is empty")
        shares = [float(share) for _, share in sources]
        if not all(math.isfinite(share) and share >= 0 for share in shares) or sum(shares) == 0:
            raise InputError(
                f"shares must be 0 or more and not all 0, got {', '.join(f'{share:g}' for share in shares)}"
            )
        if seed < 0:
            raise InputError(f"seed must be 0 or more, got {seed}")
        self.seed = seed
        self._sources = [source for source, _ in sources]
        self.shares = np.array(shares) / sum(shares)  # of each source; their sum is 1

    def __len__(self) -> int:
        """Number of pictures, videos and objects that clips are made of, in all sources together."""
        return sum(len(source) for source in self._sources)

    def clip(self, number: int, request: ClipRequest) -> Clip:
        """Make clip `number` (0 or more) of the stream, a function of the seed and the number alone.

        The source is drawn by the shares, its picture, video or object uniformly, and the clip with the same generator.
        """
        rng = np.random.default_rng([self.seed, number])
        source = self._sources[rng.choice(len(self._sources), p=self.shares)]
        return source.clip(int(rng.integers(len(source))), request, rng)
