from __future__ import annotations

import numpy as np
import pytest

from onemask.data.clip import Clip, ClipRequest
from onemask.data.mixture import Mixture
from onemask.errors import InputError

REQUEST = ClipRequest(length=2, size=(4, 6))


class Noise:
    """A source whose clips tell from which picture they are, and are noise otherwise."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count

    def __len__(self) -> int:
        return self.count

    def clip(self, index: int, request: ClipRequest, rng: np.random.Generator) -> Clip:
        shape = (request.length, *request.size)
        frames = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        return Clip(f"{self.name}/{index}", frames, np.zeros(shape, np.uint8), 0)


def fingerprint(clip: Clip) -> tuple[str, bytes]:
    return clip.name, clip.frames.tobytes()


def mixture(seed: int = 5) -> Mixture:
    return Mixture([(Noise("a", 4), 3.0), (Noise("b", 7), 1.0)], seed)


def test_a_clip_is_the_same_in_whatever_order_and_by_whomever_it_is_made():
    one = mixture()
    forwards = [fingerprint(one.clip(number, REQUEST)) for number in range(20)]
    backwards = [fingerprint(one.clip(number, REQUEST)) for number in reversed(range(20))][::-1]
    anew = [fingerprint(mixture().clip(number, REQUEST)) for number in range(20)]
    assert forwards == backwards == anew


def test_numbers_and_seeds_give_different_clips():
    clips = {fingerprint(mixture(seed).clip(number, REQUEST)) for seed in (5, 6) for number in range(20)}
    assert len(clips) == 40


def test_shares_are_kept_and_pictures_are_drawn_evenly():
    names = [mixture().clip(number, REQUEST).name for number in range(2000)]
    of_a = [name for name in names if name.startswith("a")]
    assert len(of_a) / len(names) == pytest.approx(0.75, abs=0.04)
    for index in range(4):
        assert of_a.count(f"a/{index}") / len(of_a) == pytest.approx(1 / 4, abs=0.04)
    assert {name for name in names if name.startswith("b")} == {f"b/{index}" for index in range(7)}


def test_a_source_of_share_zero_is_never_drawn():
    some = Mixture([(Noise("a", 1), 0.0), (Noise("b", 1), 0.2)], seed=0)
    assert {some.clip(number, REQUEST).name for number in range(100)} == {"b/0"}


@pytest.mark.parametrize(
    ("sources", "seed", "message"),
    [
        ([], 0, "at least one source"),
        ([(Noise("a", 0), 1.0)], 0, "one is empty"),
        ([(Noise("a", 1), -1.0), (Noise("b", 1), 1.0)], 0, "shares must be 0 or more and not all 0, got -1, 1"),
        ([(Noise("a", 1), 0.0)], 0, "not all 0, got 0"),
        ([(Noise("a", 1), float("nan"))], 0, "got nan"),
        ([(Noise("a", 1), 1.0)], -1, "seed must be 0 or more, got -1"),
    ],
)
def test_refusals(sources, seed, message):
    with pytest.raises(InputError, match=message):
        Mixture(sources, seed)
