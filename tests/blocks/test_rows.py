"""Rows in batches: the same result however they are cut, and cut where it pays; graphs are traced without shortcuts."""

from dataclasses import dataclass
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.blocks.deconvolution import pixels_of_windows
from onemask.blocks.reach import connected, squared_distances, without_outliers
from onemask.blocks.rows import _together, batches_of_rows, in_row_batches, row_by_row, with_own_networks
from onemask.methods.method import Memory


@dataclass
class SomeMemory(Memory):
    value: Tensor


class TestInRowBatches:
    @pytest.fixture
    def seen(self):
        return []

    @pytest.fixture
    def add(self, seen):
        def compute(first, mapping, memory):
            seen.append(len(first))
            return first + mapping["a"] + memory.value

        return compute

    @pytest.mark.parametrize(("together", "batches"), [(False, [1, 1, 1]), (True, [3])])
    def test_tensors_mappings_and_records_are_cut_alike(self, add, seen, together, batches):
        first, other, third = torch.rand(3, 3, 2).unbind(0)
        result = in_row_batches(add, first, {"a": other}, SomeMemory(third), together=together)
        assert torch.equal(result, first + other + third)
        assert seen == batches

    def test_one_row_is_computed_as_it_is(self, add, seen):
        first = torch.rand(1, 2)
        assert torch.equal(in_row_batches(add, first, {"a": first}, SomeMemory(first)), first + first + first)
        assert seen == [1]

    def test_other_devices_compute_all_at_once(self, add, seen):
        first = torch.rand(3, 2, device="meta")
        in_row_batches(add, first, {"a": first}, SomeMemory(first))
        assert seen == [3]

    def test_results_other_than_tensors_are_joined_as_asked(self):
        assert in_row_batches(lambda x: x.tolist(), torch.arange(3), join=lambda parts: list(chain(*parts))) == [
            0,
            1,
            2,
        ]


class TestBatchesOfRows:
    def test_one_by_one_on_a_cpu(self):
        assert batches_of_rows([0, 2], torch.rand(3, 1)) == [slice(0, 1), slice(2, 3)]

    def test_at_once_elsewhere(self):
        like = torch.rand(3, 1, device="meta")
        assert batches_of_rows([0, 1, 2], like) == [slice(None)]
        assert batches_of_rows([0, 2], like) == [[0, 2]]


class TestWithOwnNetworks:
    @staticmethod
    def convolved(x: Tensor, maps: dict[str, Tensor], own: Tensor) -> Tensor:
        return F.conv2d(x + maps["a"].mean((2, 3), keepdim=True), own[0].view(4, 3, 3, 3), padding=1)

    @pytest.fixture
    def given(self):
        generator = torch.Generator().manual_seed(0)
        x, other, own = (torch.rand(3, *size, generator=generator) for size in ((3, 8, 9), (3, 8, 9), (108,)))
        return x, {"a": other}, own

    def test_one_by_one_on_a_cpu(self, given):
        seen = []
        with_own_networks(lambda *row: seen.append(len(row[0])) or self.convolved(*row), *given)
        assert seen == [1, 1, 1]

    def test_together_it_is_the_same(self, given):
        assert torch.allclose(_together(self.convolved, *given), row_by_row(self.convolved, *given), atol=1e-5)

    def test_together_autocast_is_obeyed(self, given):
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = _together(self.convolved, *given), row_by_row(self.convolved, *given)
        assert found.dtype == expected.dtype == torch.bfloat16
        assert torch.allclose(found, expected, rtol=0.05)


NEAR = torch.zeros(2, 1, 6, 8, dtype=torch.bool)
NEAR[:, :, 1:3, 2:4] = True


@pytest.mark.parametrize(
    ("computed", "traced_with", "run_with"),
    [
        (lambda mask: squared_distances(mask > 0.5), NEAR.float(), NEAR.flip(-1).float()),
        (lambda mask: connected(mask > 0.5, mask > 0.7), NEAR * 0.6, NEAR * 0.8),
        (lambda logits: without_outliers(logits, NEAR), torch.zeros(2, 1, 24, 32), torch.ones(2, 1, 24, 32)),
        (lambda windows: pixels_of_windows(windows, 2), torch.zeros(1, 8, 3, 5), torch.rand(1, 8, 3, 5)),
    ],
    ids=["distances", "connected", "outliers", "pixels"],
)
def test_a_graph_is_not_of_the_values_that_it_was_traced_with(computed, traced_with, run_with):
    graph = torch.jit.trace(computed, traced_with, check_trace=False)
    assert torch.allclose(graph(run_with).float(), computed(run_with).float(), atol=1e-6)
