"""The loop over a batch of clips: rows, batches, what is known already, updates, gradients."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from onemask.data.clip import VOID, Clip
from onemask.labels import aggregate
from onemask.methods.method import Constant, Features, Memory, Method, Prediction
from onemask.training.segmentation import picture
from onemask.training.unroll import ClipBatch, Unroll, as_it_runs, batch_of, joined


def a_clip(make_clip, objects: int, length: int = 3, seed: int = 0) -> Clip:
    made = make_clip(length, objects, seed=seed)
    labels = np.stack(made.label_maps).astype(np.uint8)
    labels[:, :4] = VOID
    return Clip(f"clip{seed}", np.stack(made.frames), labels, objects)


@pytest.fixture
def clips(make_clip) -> list[Clip]:
    return [a_clip(make_clip, objects, seed=objects) for objects in (2, 1, 3)]


def test_each_module_is_set_back_to_the_mode_that_it_was_in():
    network = nn.Sequential(nn.BatchNorm2d(1).eval(), nn.Dropout())
    with contextlib.suppress(KeyError), as_it_runs(network):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == [True, False, True]


@dataclass
class Sum(Memory):
    mean: torch.Tensor  # (N, 1, 1, 1)


class Brightness(Method):
    """An object is what is brighter than what is remembered; writes into its memory when it updates."""

    stride = 16
    memory_type = Sum
    own_losses = ("reach", "unused")

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(2.0))
        self.updates: list[torch.Tensor] = []

    def encode(self, frames, constant=None):
        return Features(frames)

    def memorize(self, features, masks):
        grey = features.by_row(features.frames, len(masks)).mean(1, keepdim=True)
        return Sum((grey * masks).mean((1, 2, 3), keepdim=True))

    def segment(self, features, memory):
        grey = features.by_row(features.frames, len(memory)).mean(1, keepdim=True)
        return Prediction(self.slope * (grey - memory.mean) * memory.mean)

    @torch.no_grad()
    def update(self, memory, features, prediction, masks):
        self.updates.append(masks.clone())
        memory.mean += 0.1
        return memory

    def losses(self, prediction, masks, known):
        return {"reach": (prediction.logits**2).mean((1, 2, 3)), "unused": torch.full((len(masks),), torch.nan)}


class TestBatches:
    def test_rows(self, clips):
        batch = batch_of(clips)
        assert batch.frame_of_row.tolist() == [0, 0, 1, 2, 2, 2]
        assert batch.object_of_row.tolist() == [1, 2, 1, 1, 2, 3]
        masks, known = batch.masks(1)
        assert masks.shape == known.shape == (6, 1, 64, 96)
        for row, (clip, label) in enumerate([(0, 1), (0, 2), (1, 1), (2, 1), (2, 2), (2, 3)]):
            assert np.array_equal(masks[row, 0].numpy(), clips[clip].labels[1] == label)
            assert np.array_equal(known[row, 0].numpy(), clips[clip].labels[1] != VOID)

    def test_pictures(self, clips):
        pictures = batch_of(clips).pictures(2)
        assert pictures.shape == (3, 3, 64, 96)
        assert np.array_equal((255 * pictures[1, :, 5, 7]).round().numpy(), clips[1].frames[2, 5, 7])

    def test_joined_as_if_made_together(self, clips):
        together, one_by_one = batch_of(clips), joined([batch_of([clip]) for clip in clips])
        for name in ("frames", "labels", "objects"):
            assert torch.equal(getattr(together, name), getattr(one_by_one, name))
        assert one_by_one.constant is None
        assert one_by_one.memory is None

    def test_joined_with_what_is_known(self, clips):
        made = []
        for number, clip in enumerate(clips):
            known = {4: torch.full((1, 2, 3, 1, 1), float(number))}
            made.append(
                replace(batch_of([clip]), constant=Constant(known), memory=Sum(torch.full((clip.objects, 1), number)))
            )
        batch = joined(made)
        assert batch.constant_at(1).pyramid[4][:, 0, 0, 0].tolist() == [0, 1, 2]
        assert batch.constant_at(0) is None  # the reference is in the memory
        assert batch.memory.mean[:, 0].tolist() == [0, 0, 1, 2, 2, 2]

    @pytest.mark.parametrize("remembered", [False, True])
    def test_what_is_known_of_a_frame_is_that_frames(self, clips, remembered):
        times = range(1 if remembered else 0, 3)  # the reference is in the memory
        known = {4: torch.tensor([[float(time) for time in times]] * 3)}
        batch = replace(batch_of(clips), constant=Constant(known), memory=Sum(torch.ones(6, 1)) if remembered else None)
        for time in times:
            assert batch.constant_at(time).pyramid[4].tolist() == [time] * 3

    def test_changed_as_a_whole(self, clips):
        batch = replace(
            batch_of(clips), constant=Constant({4: torch.ones(3, 3, 1, 1, 1)}), memory=Sum(torch.ones(6, 1))
        )
        doubled = batch.map(lambda tensor: 2 * tensor)
        assert doubled.constant.pyramid[4].unique().tolist() == [2]
        assert doubled.memory.mean.unique().tolist() == [2]
        assert torch.equal(doubled.objects, 2 * batch.objects)


class TestUnrolling:
    LOSSES = ("cross_entropy", "soft_jaccard", "binary_cross_entropy", "bootstrapped_cross_entropy")

    @pytest.mark.parametrize("update", [False, True])
    def test_a_batch_is_its_clips(self, clips, make_frtm, update):
        unroll = Unroll(make_frtm(update_every=1).train(), self.LOSSES, update=update, bootstrap=0.3)
        together = unroll.unrolled(batch_of(clips))
        alone = [unroll.unrolled(batch_of([clip])) for clip in clips]
        for name in self.LOSSES:
            mean = sum(each.losses[name].item() for each in alone) / 3
            assert together.losses[name].item() == pytest.approx(mean, abs=1e-5)
        for time in range(2):
            rows = torch.cat([each.probabilities[time] for each in alone])
            assert torch.allclose(together.probabilities[time], rows, atol=1e-4)  # conjugate gradient enlarges rounding

    def test_what_is_trained_is_what_runs(self, clips, make_frtm):
        method = make_frtm(update_every=1).train()
        clip = clips[0]
        unrolled = Unroll(method, ["cross_entropy"], update=True).unrolled(batch_of([clip]))
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 255
        masks = torch.stack([torch.from_numpy(clip.labels[0] == i) for i in (1, 2)])[:, None].float()
        memory = method.memorize(method.encode(frames[:1]), masks)
        for time in (1, 2):
            features = method.encode(frames[time : time + 1])
            prediction = method.segment(features, memory)
            probabilities, _ = aggregate(prediction.logits.sigmoid())
            assert torch.allclose(unrolled.probabilities[time - 1], probabilities, atol=1e-5)
            memory = method.update(memory, features, prediction, probabilities)

    def test_updates_come_between_frames(self, make_clip):
        batch = batch_of([a_clip(make_clip, 2, length=4)])
        for update, count in ((False, 0), (True, 2)):  # after the last frame nobody would see it
            method = Brightness()
            unrolled = Unroll(method, ["cross_entropy"], update=update).unrolled(batch)
            assert len(unrolled.probabilities) == 3
            assert len(method.updates) == count
        assert torch.equal(method.updates[1], unrolled.probabilities[1])

    def test_an_update_leaves_the_batch_and_the_gradient_alone(self, make_clip):
        method = Brightness()
        batch = replace(batch_of([a_clip(make_clip, 1, length=3)]), memory=Sum(torch.full((1, 1, 1, 1), 0.3)))
        unrolled = Unroll(method, ["cross_entropy"], update=True).unrolled(batch)
        assert batch.memory.mean.item() == pytest.approx(0.3)
        unrolled.losses["cross_entropy"].backward()  # raises where what it needs was written again
        assert method.slope.grad is not None

    def test_clips_without_an_object_teach_nothing(self, make_clip):
        clip = a_clip(make_clip, 1)
        empty = replace(clip, labels=np.where(clip.labels == VOID, VOID, 0).astype(np.uint8), objects=0)
        method = Brightness()
        unrolled = Unroll(method, ["reach", "cross_entropy"], update=True).unrolled(batch_of([empty, empty]))
        assert [masks.shape for masks in unrolled.probabilities] == [(0, 1, 64, 96)] * 2
        assert picture(batch_of([empty]), unrolled).shape == (3, 64, 96)
        assert {name: loss.item() for name, loss in unrolled.losses.items()} == {"reach": 0, "cross_entropy": 0}
        unrolled.losses["cross_entropy"].backward()
        assert method.slope.grad == 0

    def test_a_methods_own_losses(self, clips):
        method = Brightness()
        unrolled = Unroll(method, ["reach", "cross_entropy"], update=False).unrolled(batch_of(clips))
        assert set(unrolled.losses) == {"reach", "cross_entropy"}
        rows = torch.stack([(p.logits**2).mean((1, 2, 3)) for p in unrolled.predictions]).mean(0)
        expected = (rows[:2].mean() + rows[2] + rows[3:].mean()) / 3
        assert unrolled.losses["reach"].item() == pytest.approx(expected.item(), rel=1e-5)

    @pytest.mark.parametrize("backbone", [False, True])
    def test_gradients_reach_what_is_trained(self, clips, make_frtm, backbone):
        method = make_frtm(update_every=1)
        method.backbone.requires_grad_(backbone)
        unrolled = Unroll(method.train(), ["cross_entropy"], update=True).unrolled(batch_of(clips))
        unrolled.losses["cross_entropy"].backward()
        for name, parameter in method.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.grad is None or parameter.grad.isfinite().all()

    def test_batch_norm_of_the_backbone_stays(self, clips, make_frtm):
        method = make_frtm().train()
        before = {name: tensor.clone() for name, tensor in method.named_buffers()}
        Unroll(method, ["cross_entropy"], update=False).unrolled(batch_of(clips))
        assert all(torch.equal(tensor, before[name]) for name, tensor in method.named_buffers())


class TestWhatIsKnown:
    def test_features_and_memory_instead_of_computing_them(self, clips, make_frtm):
        method = make_frtm().train()
        for parameter in method.network.parameters():  # as it is built, its output does not depend on features
            nn.init.normal_(parameter, std=0.3)
        batch = batch_of(clips)
        unroll = Unroll(method, ["cross_entropy"], update=False)
        live = unroll.unrolled(batch)
        pyramids = [method.backbone(batch.pictures(time)) for time in range(3)]
        all_frames = {stride: torch.stack([p[stride] for p in pyramids], 1) for stride in pyramids[0]}
        with_features: ClipBatch = replace(batch, constant=Constant(all_frames))
        reference = method.encode(batch.pictures(0)).for_rows(batch.frame_of_row)
        memory = method.memorize(reference, batch.masks(0)[0])
        later = {stride: tensor[:, 1:] for stride, tensor in all_frames.items()}
        with_both: ClipBatch = replace(batch, constant=Constant(later), memory=memory)
        calls = []
        method.backbone.register_forward_hook(lambda *_: calls.append(1))
        expected = pytest.approx(live.losses["cross_entropy"].item())
        assert unroll.unrolled(with_both).losses["cross_entropy"].item() == expected
        assert not calls
        assert unroll.unrolled(with_features).losses["cross_entropy"].item() == expected
        of_other_frames = {stride: tensor.roll(1, dims=1) for stride, tensor in all_frames.items()}
        others: ClipBatch = replace(batch, constant=Constant(of_other_frames))
        assert unroll.unrolled(others).losses["cross_entropy"].item() != expected
