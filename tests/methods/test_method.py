"""The contract's records: selected, joined and copied by row, looked at by frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from onemask.methods.method import Features, Memory, Method, Record


@dataclass
class SomeFeatures(Features):
    pyramid: dict[str, Tensor] = field(kw_only=True)
    extra: Tensor | None = field(kw_only=True, default=None)


@dataclass
class SomeMemory(Memory):
    keys: Tensor  # (N, 2)
    age: Tensor  # (N,)


@pytest.fixture
def features() -> SomeFeatures:
    return SomeFeatures(torch.rand(3, 3, 8, 12), pyramid={"4": torch.rand(3, 5, 2, 3), "8": torch.rand(3, 6, 1, 2)})


@pytest.fixture
def memory() -> SomeMemory:
    return SomeMemory(torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9]))


class TestRecord:
    def test_map_reaches_tensors_and_dictionaries_of_them(self, features):
        doubled = features.map(lambda tensor: 2 * tensor)
        assert torch.equal(doubled.frames, 2 * features.frames)
        assert torch.equal(doubled.pyramid["8"], 2 * features.pyramid["8"])
        assert doubled.extra is None
        assert type(doubled) is SomeFeatures

    def test_to_casts_everything(self, features):
        halved: Record = features.to(torch.bfloat16)
        assert isinstance(halved, SomeFeatures)
        assert {halved.frames.dtype, *(t.dtype for t in halved.pyramid.values())} == {torch.bfloat16}


class TestFeatures:
    def test_size(self, features):
        assert features.size == (8, 12)

    def test_one_frame_serves_any_number_of_rows(self, features):
        one = features.for_rows(torch.tensor([0, 1])).frame(2)
        assert one.frame_of_row is None
        assert torch.equal(one.pyramid["4"], features.pyramid["4"][2:])
        by_row = one.by_row(one.pyramid["4"], 4)
        assert by_row.shape == (4, 5, 2, 3)
        assert by_row.data_ptr() == one.pyramid["4"].data_ptr()  # no copy
        assert torch.equal(by_row[3], features.pyramid["4"][2])

    def test_rows_look_at_their_own_frames(self, features):
        looked_at = features.for_rows(torch.tensor([2, 0, 0, 1]))
        by_row = looked_at.by_row(looked_at.frames, 4)
        assert torch.equal(by_row, features.frames[[2, 0, 0, 1]])
        assert features.frame_of_row is None

    def test_several_frames_without_saying_which(self, features):
        with pytest.raises(ValueError, match=r"3 frames but no frame_of_row: use frame\(i\) or for_rows\(\.\.\.\)"):
            features.by_row(features.frames, 2)


class TestMemory:
    def test_length_is_the_number_of_rows(self, memory):
        assert len(memory) == 3
        assert len(memory.select([])) == 0

    def test_select_keeps_the_order_asked_for_and_copies(self, memory):
        chosen = memory.select([2, 0])
        assert chosen.age.tolist() == [9, 7]
        assert chosen.keys.tolist() == [[4, 5], [0, 1]]
        chosen.keys.zero_()
        assert memory.keys.sum() == 15

    def test_join_appends_rows(self, memory):
        joined = memory.select([0, 1]).join(memory.select([2]))
        assert torch.equal(joined.keys, memory.keys)
        assert torch.equal(joined.age, memory.age)

    def test_a_clone_shares_nothing(self, memory):
        clone = memory.clone()
        clone.keys.zero_()
        clone.age.zero_()
        assert memory.keys.sum() == 15
        assert memory.age.tolist() == [7, 8, 9]


def test_a_method_makes_all_four_calls():
    class Unfinished(Method):
        def encode(self, frames: Tensor) -> Features:
            return Features(frames)

    with pytest.raises(TypeError, match=r"memorize.*segment.*update"):
        Unfinished()  # type: ignore[abstract]
