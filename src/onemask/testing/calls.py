"""Tests of every method's four calls: rows, gradients, weights and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..blocks.backbone import Backbone
from ..blocks.replacing import replaced
from ..labels import aggregate
from ..methods.method import Features, Memory, Method
from ..session import Session
from .known_clip import KnownClip

STEP = 0.1  # learning rate that moves parameters away from a zero initialisation


def pixels(frames: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def masks_of(label_map: np.ndarray, ids: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([label_map == i for i in ids])[:, None]).float()


def encoded_together(method: Method, clips: Sequence[KnownClip], frame_of_row: Tensor) -> list[Features]:
    """Encode the first frames of all clips as one batch, then the second ones, ..."""
    batches = zip(*(clip.frames for clip in clips), strict=True)
    return [method.encode(pixels(frames)).for_rows(frame_of_row) for frames in batches]


def unrolled(
    method: Method, frames: Sequence[Features], masks: Tensor, frame_of_row: Tensor | None = None, clips: int = 1
) -> tuple[list[Tensor], Memory]:
    """Memorize the first frame and follow through the others; returns the logits of each, and the final memory."""
    memory, logits = method.memorize(frames[0], masks), []
    for features in frames[1:]:
        prediction = method.segment(features, memory)
        logits.append(prediction.logits)
        probabilities, _ = aggregate(prediction.logits.sigmoid(), frame_of_row, clips)
        memory = method.update(memory, features, prediction, probabilities)
    return logits, memory


class _Unasked(nn.Module):
    """A network that must not be called."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, frames: Tensor) -> Tensor:
        raise AssertionError("the backbone was asked, though its maps are known")


@torch.no_grad()
def test_encode_takes_what_is_known_of_a_frame(method, make_clip):
    if not isinstance(getattr(method, "backbone", None), Backbone):
        pytest.skip("the method has no backbone of onemask.blocks")
    frames = pixels(make_clip(1).frames)
    known, expected = method.constant(frames), method.encode(frames)
    found = replaced(method, {"backbone.network": _Unasked()}).encode(frames, known)
    for field in fields(expected):
        torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name))


@torch.no_grad()
def test_rows_together_equal_rows_alone(candidate, method, make_clip):
    """Rows of the same frame, as for several objects; alone, each sees the same masks in its updates."""
    if candidate.competes:
        pytest.skip("here objects take proposals away from each other")
    clip = make_clip(6, 3, (96, 128))
    frames = [method.encode(pixels([frame])) for frame in clip.frames]
    memory = method.memorize(frames[0], masks_of(clip.label_maps[0], (1, 2, 3)))
    alone = [method.memorize(frames[0], masks_of(clip.label_maps[0], (i,))) for i in (1, 2, 3)]
    for features, label_map in zip(frames[1:], clip.label_maps[1:], strict=True):
        masks = masks_of(label_map, (1, 2, 3))
        prediction = method.segment(features, memory)
        predictions = [method.segment(features, row) for row in alone]
        assert torch.allclose(prediction.logits, torch.cat([p.logits for p in predictions]), rtol=1e-2, atol=1e-2)
        memory = method.update(memory, features, prediction, masks)
        alone = [
            method.update(row, features, p, mask[None]) for row, p, mask in zip(alone, predictions, masks, strict=True)
        ]
    assert len(memory) == 3


@torch.no_grad()
def test_rows_of_several_clips_equal_clips_alone(method, make_clip):
    """Rows of a batch from different clips, as in training."""
    clips = [make_clip(4, objects, (96, 128), seed=objects) for objects in (2, 1)]
    ids, frame_of_row = ((1, 2), (1,)), torch.tensor([0, 0, 1])
    batches = [
        method.encode(pixels(frames)).for_rows(frame_of_row) for frames in zip(*(c.frames for c in clips), strict=True)
    ]
    masks = [masks_of(clip.label_maps[0], rows) for clip, rows in zip(clips, ids, strict=True)]
    together, _ = unrolled(method, batches, torch.cat(masks), frame_of_row, 2)
    alone = [
        unrolled(method, [method.encode(pixels([frame])) for frame in clip.frames], clip_masks)[0]
        for clip, clip_masks in zip(clips, masks, strict=True)
    ]
    for of_all, *of_each in zip(together, *alone, strict=True):
        assert torch.allclose(of_all, torch.cat(of_each), rtol=1e-2, atol=1e-2)


def test_gradients_reach_every_trainable_parameter(candidate, make_clip):
    """Within two steps: in the first, parameters initialised to zero block the gradient of those before them."""
    if not candidate.trains:
        pytest.skip("not trained by gradients through the four calls")
    torch.manual_seed(0)
    method = candidate.build().train()
    trainable = {key: p for key, p in method.named_parameters() if p.requires_grad}
    assert trainable
    clips, frame_of_row = [make_clip(4, objects, seed=objects) for objects in (2, 1)], torch.tensor([0, 0, 1])
    masks = [
        torch.cat([masks_of(first, (1, 2)), masks_of(second, (1,))])
        for first, second in zip(clips[0].label_maps, clips[1].label_maps, strict=True)
    ]
    without = set(trainable)
    for _ in range(2):
        batches = [
            method.encode(pixels(frames)).for_rows(frame_of_row)
            for frames in zip(*(c.frames for c in clips), strict=True)
        ]
        logits, _ = unrolled(method, batches, masks[0], frame_of_row, 2)
        method.zero_grad()
        F.binary_cross_entropy_with_logits(torch.cat(logits), torch.cat(masks[1:])).backward()
        assert all(p.grad.isfinite().all() for p in trainable.values() if p.grad is not None)
        without -= {key for key, p in trainable.items() if p.grad is not None and p.grad.any()}
        if not without:
            break
        with torch.no_grad():
            for parameter in trainable.values():
                if parameter.grad is not None:
                    parameter -= STEP * parameter.grad
    assert not without


@torch.no_grad()
def test_state_dict_survives_saving(candidate, method, make_clip, tmp_path):
    save_file({key: t.contiguous() for key, t in method.state_dict().items()}, tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = candidate.build().eval()
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    clip = make_clip(3, 2)
    logits = [
        unrolled(m, [m.encode(pixels([frame])) for frame in clip.frames], masks_of(clip.label_maps[0], (1, 2)))[0]
        for m in (method, other)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))


# Diagnostics ----------------------------------------------------------------------------------------------------------


def test_says_what_it_went_by_and_finds_the_same(method, make_clip):
    clip = make_clip(4, objects=2)
    asked, plain = Session(method, device="cpu"), Session(method, device="cpu")
    for session in (asked, plain):
        session.annotate(clip.frames[0], clip.label_maps[0])
    assert asked.diagnostics == {}
    for frame in clip.frames[1:]:
        assert np.array_equal(asked.step(frame, explain=True), plain.step(frame))
    assert plain.diagnostics == {}
    assert tuple(asked.diagnostics) == (1, 2)
    for diagnostics in asked.diagnostics.values():
        assert diagnostics
        for value in diagnostics.values():
            if isinstance(value, np.ndarray):
                assert value.ndim == 2
                assert value.min() >= 0
                assert value.max() <= 1
    asked.forget(2)
    assert asked.diagnostics == {}
