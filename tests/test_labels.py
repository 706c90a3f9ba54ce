"""Label maps, rows, and objects set against each other: what must hold whatever the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onemask.errors import InputError
from onemask.labels import (
    LARGEST_ID,
    Objects,
    _argmax,
    aggregate,
    checked_label_map,
    checked_label_tensor,
    label_argmax,
    resize,
)


def random_probabilities(seed: int, rows: int, size: tuple[int, int] = (6, 9)) -> Tensor:
    """With many values near 0 and 1, and some exactly there."""
    generator = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(rows, 1, *size, generator=generator)
    p = logits.sigmoid()
    return torch.where(logits > 12, 1.0, torch.where(logits < -12, 0.0, p))


class TestObjects:
    def test_rows_are_in_the_order_of_ids(self):
        objects = Objects((7, 3, 200))
        assert [objects.row(i) for i in (7, 3, 200)] == [0, 1, 2]
        assert len(objects) == 3
        assert 3 in objects
        assert 4 not in objects

    def test_select_join_and_without(self):
        objects = Objects((7, 3, 200))
        assert objects.rows_without((3, 99)) == [0, 2]
        assert objects.select([2, 0]).ids == (200, 7)
        assert objects.join([5]).ids == (7, 3, 200, 5)
        assert objects.ids == (7, 3, 200)

    @pytest.mark.parametrize("bad", [0, -1, LARGEST_ID + 1])
    def test_an_id_that_no_map_can_hold(self, bad):
        with pytest.raises(InputError, match=rf"1\.\.65534, got \[{bad}\]"):
            Objects((1, bad))

    def test_an_id_twice(self):
        with pytest.raises(InputError, match=r"its own id, got \[1, 2, 1\]"):
            Objects((1, 2)).join([1])

    def test_an_unknown_id_names_the_known(self):
        with pytest.raises(InputError, match=r"object 4 is not known; known: \[7, 3\]"):
            Objects((7, 3)).row(4)
        with pytest.raises(InputError, match="known: none"):
            Objects().row(4)

    @pytest.mark.parametrize(
        ("ids", "dtype"), [((), np.uint8), ((254, 1), np.uint8), ((1, 255), np.uint16), ((LARGEST_ID,), np.uint16)]
    )
    def test_label_maps_are_8_bit_where_the_ids_allow(self, ids, dtype):
        rows = np.arange(len(ids) + 1).reshape(1, -1)
        label_map = Objects(ids).label_map(rows)
        assert label_map.dtype == dtype
        assert label_map.tolist() == [[0, *ids]]

    @pytest.mark.parametrize("seed", range(10))
    def test_masks_and_label_map_are_inverse(self, seed):
        rng = np.random.default_rng(seed)
        ids = rng.choice(np.arange(1, LARGEST_ID + 1), size=rng.integers(1, 9), replace=False).tolist()
        label_map = rng.choice(np.array([0, *ids], np.uint16), size=(5, 8))
        masks = (label_map == np.reshape(ids, (-1, 1, 1))).astype(np.float32)
        background = (masks.sum(0, keepdims=True) == 0).astype(np.float32)
        back = Objects(tuple(ids)).label_map(np.concatenate([background, masks]).argmax(0))
        assert (back == label_map).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.complex64])
@pytest.mark.parametrize("check", [checked_label_map, checked_label_tensor])
def test_a_tensor_that_is_no_label_map_is_refused(dtype, check):
    with pytest.raises(InputError, match=rf"\(2, 3\) {str(dtype)[6:]}"):
        check(torch.zeros(2, 3, dtype=dtype, requires_grad=True))


class TestAggregate:
    @pytest.mark.parametrize("rows", [1, 2, 10])
    @pytest.mark.parametrize("seed", range(5))
    def test_sums_to_one_in_every_pixel(self, rows, seed):
        objects, background = aggregate(random_probabilities(seed, rows))
        assert objects.shape == (rows, 1, 6, 9)
        assert background.shape == (1, 1, 6, 9)
        assert torch.allclose(objects.sum(0) + background[0], torch.ones(1, 6, 9), atol=1e-5)
        assert (objects >= 0).all()
        assert (background >= 0).all()

    def test_one_object_against_its_own_background(self):
        """Odds p / (1 - p) against (1 - p) / p: p^2 / (p^2 + (1 - p)^2)."""
        p = torch.linspace(0.001, 0.999, 101).view(1, 1, 1, -1)
        objects, background = aggregate(p)
        assert torch.allclose(objects, p**2 / (p**2 + (1 - p) ** 2), atol=1e-5)
        assert torch.equal(objects > background, p > 0.5)

    def test_two_objects_by_hand(self):
        """Odds 4, 1, and background 0.1 : 0.9."""
        objects, background = aggregate(torch.tensor([0.8, 0.5]).view(2, 1, 1, 1))
        total = 4 + 1 + 1 / 9
        assert objects.flatten().tolist() == pytest.approx([4 / total, 1 / total], abs=1e-6)
        assert background.item() == pytest.approx(1 / 9 / total, abs=1e-6)

    def test_the_least_background_by_hand(self):
        """Odds 4, 1, and background 0.2 : 0.8."""
        objects, background = aggregate(torch.tensor([0.8, 0.5]).view(2, 1, 1, 1), background="least")
        assert objects.flatten().tolist() == pytest.approx([4 / 5.25, 1 / 5.25], abs=1e-6)
        assert background.item() == pytest.approx(0.25 / 5.25, abs=1e-6)

    def test_the_softmax_of_odds_by_hand(self):
        """Odds 4, 1, and background 1 : 4. Then 1.5, 1.4, and 2 : 3, where the first wins with less than one half."""
        p = torch.tensor([[0.8, 0.6], [0.5, 7 / 12]]).view(2, 1, 1, 2)
        objects, background = aggregate(p, background="softmax")
        certain = math.exp(4) / (math.exp(4) + math.exp(1) + math.exp(0.25))
        close = math.exp(1.5) / (math.exp(1.5) + math.exp(1.4) + math.exp(2 / 3))
        assert objects[0].flatten().tolist() == pytest.approx([certain, close], abs=1e-5)
        assert objects[1].count_nonzero() == 0
        assert background.flatten().tolist() == pytest.approx([1 - certain, 1 - close], abs=1e-5)
        assert label_argmax(objects, background, (1, 2)).tolist() == [[1, 0]]

    def test_certain_values_stay_finite(self):
        objects, background = aggregate(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).view(2, 1, 1, 3))
        assert objects[:, 0, 0].T.tolist() == [pytest.approx(pair, abs=1e-5) for pair in ([0.5, 0.5], [1, 0], [0, 0])]
        assert background.flatten().tolist() == pytest.approx([0, 0, 1], abs=1e-5)

    @pytest.mark.parametrize("seed", range(5))
    def test_order_of_objects_does_not_matter(self, seed):
        p = random_probabilities(seed, 5)
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        objects, background = aggregate(p)
        shuffled, same_background = aggregate(p[order])
        assert torch.allclose(shuffled, objects[order], atol=1e-6)
        assert torch.allclose(same_background, background, atol=1e-6)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("kind", ["product", "least", "softmax"])
    def test_rows_of_several_frames_equal_separate_calls(self, seed, kind):
        p = random_probabilities(seed, 7)
        frame_of_row = torch.tensor([2, 0, 0, 3, 2, 0, 2])  # nothing in frame 1
        objects, background = aggregate(p, frame_of_row, 4, kind)
        assert background.shape[0] == 4
        for frame in (0, 2, 3):
            rows = frame_of_row == frame
            alone, alone_background = aggregate(p[rows], background=kind)
            assert torch.allclose(objects[rows], alone, atol=1e-6)
            assert torch.allclose(background[frame], alone_background[0], atol=1e-6)
        assert torch.allclose(background[1], torch.ones(1, 6, 9), atol=1e-6)

    def test_is_float32_and_differentiable_whatever_comes_in(self):
        p = random_probabilities(0, 3).clamp(0.01, 0.99).bfloat16().requires_grad_()
        objects, _ = aggregate(p)
        assert objects.dtype == torch.float32
        objects[0].sum().backward()
        assert p.grad is not None
        assert (p.grad[0] > 0).all()  # more of oneself
        assert p.grad.isfinite().all()

    @pytest.mark.parametrize("kind", ["product", "least"])
    @pytest.mark.parametrize("rows", [2, 10])
    def test_without_gradients_it_is_the_same(self, rows, kind):
        """To the last bit in frames of whole strides; else sums of many rows end otherwise."""
        for size, close in (((56, 80), 0), ((53, 70), 1e-6)):
            p = torch.rand(rows, 1, *size, generator=torch.Generator().manual_seed(0))
            wanted = aggregate(p, background=kind)
            with torch.no_grad():
                found = aggregate(p, background=kind)
            assert all(torch.allclose(a, b, rtol=close, atol=close) for a, b in zip(wanted, found, strict=True))


class TestWinners:
    @pytest.mark.parametrize("rows", [1, 3, 10])
    @pytest.mark.parametrize("size", [(6, 9), (24, 36), (17, 23)], ids=str)
    def test_equals_argmax_of_all_at_once(self, rows, size):
        objects, background = aggregate(random_probabilities(rows, rows))
        everything = resize(torch.cat([background, objects]), size)[:, 0]
        found = label_argmax(objects, background, size)
        assert found.dtype == torch.int16
        assert torch.equal(found.long(), everything.argmax(0))

    def test_a_graph_of_it_is_of_what_it_is_given(self):
        one, other = (random_probabilities(seed, 2) for seed in (1, 2))
        background = 1 - one.amax(0, keepdim=True)
        graph = torch.jit.trace(lambda p: label_argmax(p, background, (12, 18)), one)
        assert torch.equal(graph(other), label_argmax(other, background, (12, 18)))

    def test_in_half_precision(self):
        objects, background = aggregate(random_probabilities(2, 2))
        wanted = label_argmax(objects.bfloat16().float(), background, (24, 36))
        assert (label_argmax(objects.bfloat16(), background, (24, 36)) == wanted).float().mean() > 0.99

    @pytest.mark.parametrize("rows", [1, 3])
    def test_on_a_cpu_and_without_gradients_nothing_is_other(self, rows):
        given = random_probabilities(rows, rows)
        objects, background = aggregate(given)
        with torch.no_grad():
            assert all(map(torch.equal, aggregate(given), (objects, background)))
        assert torch.equal(given, random_probabilities(rows, rows))  # what is given is not written to
        assert torch.equal(
            label_argmax(objects, background, (24, 36)), _argmax(objects, resize(background, (24, 36))[0, 0])
        )

    def test_a_tie_goes_to_background_then_to_the_first(self):
        half = torch.full((2, 1, 1, 1), 0.5)
        assert label_argmax(half, half[:1], (1, 1)).item() == 0
        assert label_argmax(half, half[:1] / 2, (1, 1)).item() == 1


def test_resize_gives_back_what_has_the_size_already():
    maps = torch.rand(2, 1, 4, 5)
    assert resize(maps, (4, 5)) is maps
    assert resize(maps, (8, 10)).shape == (2, 1, 8, 10)


@pytest.mark.parametrize("ids", [(1, 2), (2, 1), (1, 300), (7,)])
def test_label_maps_have_the_ids_of_rows(ids):
    rows = np.array([[0, 1], [len(ids), 0]], np.int16)
    label_map = Objects(ids).label_map(rows)
    assert label_map.tolist() == [[0, ids[0]], [ids[-1], 0]]
    assert label_map.dtype == (np.uint8 if max(ids) < 255 else np.uint16)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("gradients", [False, True])
def test_aggregation_under_vmap_is_that_of_each_frame(rows, gradients):
    frames = torch.stack([random_probabilities(seed, rows) for seed in range(4)])
    with torch.set_grad_enabled(gradients):
        objects, background = torch.func.vmap(aggregate)(frames)
        labels = torch.func.vmap(lambda p, b: label_argmax(p, b, (12, 18)))(objects, background)
    for frame, own, rest, found in zip(frames, objects, background, labels, strict=True):
        wanted = aggregate(frame)
        assert torch.allclose(own, wanted[0])
        assert torch.allclose(rest, wanted[1])
        assert torch.equal(found, label_argmax(own, rest, (12, 18)))
