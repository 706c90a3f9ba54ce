"""Table 1 of FRTM: every row as options, and the methods that learn their scores, or their network, in another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onemask import InputError, Session
from onemask.methods import configuration
from onemask.methods.frtm import FRTMConfig
from onemask.methods.frtm.ablations import EncodedTarget, FineTunedTarget
from onemask.methods.frtm.model import FRTM
from onemask.methods.method import Memory

QUICK = {"refiner": "per_object", "finetune_samples": 3, "finetune_batch": 2}
QUICK |= {"first_iterations": (2, 3), "first_last_iterations": 3, "update_iterations": 3}
TABLE = {
    "Base net": ({"target": "encoded"}, EncodedTarget),
    "F.-T.": ({"target": "finetuned", "finetune_iterations": 3}, FineTunedTarget),
    "D-only - no update": ({"target_only": True, "update_every": 0}, FRTM),
    "D-only": ({"target_only": True, "update_every": 2}, FRTM),
    "Ours - no update": ({"update_every": 0, "finetune_iterations": 0}, FRTM),
    "Ours": ({"update_every": 2, "finetune_iterations": 0}, FRTM),
    "Ours, fine-tuned": ({"update_every": 2, "finetune_iterations": 3}, FRTM),
}
ADDED = {row: TABLE[row][0] for row in ("Base net", "F.-T.", "Ours, fine-tuned")}


def assert_equal(memory: Memory, other: Memory) -> None:
    assert type(memory) is type(other)
    for name, tensor in memory.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


# Every row of the table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE)
def test_each_row_follows_objects_that_are_added_and_dropped(row, make_frtm, clip):
    options, kind = TABLE[row]
    method = make_frtm(**QUICK, **options)
    assert type(method) is kind
    session = Session(method, short_side=None, device="cpu")
    first, second, *later = clip.frames
    session.annotate(first, clip.label_maps[0] == 1)
    assert set(np.unique(session.step(first))) <= {0, 1}
    session.annotate(second, clip.label_maps[1], objects=[2])
    followed = {1, 2}
    for frame in later:
        labels = session.step(frame)
        assert labels.shape == frame.shape[:2]
        assert set(np.unique(labels)) <= {0, *followed}
        assert set(session.probabilities) == {0, *followed}
        assert np.allclose(sum(session.probabilities.values()), 1, atol=1e-4)
        if 1 in followed:
            session.forget(1)
            followed.remove(1)


@pytest.mark.parametrize("row", TABLE)
def test_rows_together_equal_rows_alone(row, make_frtm, encode_clip):
    method = make_frtm(**QUICK, **TABLE[row][0]).eval()
    with torch.inference_mode():
        first, later, masks = encode_clip(method)
        together = method.segment(later, method.memorize(first, masks)).logits
        memories = [method.memorize(first, mask[None]) for mask in masks]
        alone = torch.cat([method.segment(later, memory).logits for memory in memories])
        joined = method.segment(later, memories[0].join(memories[1])).logits
        swapped = method.segment(later, memories[0].join(memories[1]).select([1, 0])).logits
    between_rows = (together[0] - together[1]).abs().max()
    for logits in (alone, joined, swapped.flip(0)):
        assert (logits - together).abs().max() < between_rows / 10  # conjugate gradient enlarges what rounding differs


@pytest.mark.parametrize("row", ADDED)
def test_rows_that_look_at_different_frames_equal_frames_alone(row, make_frtm, encode_clip, clip):
    method = make_frtm(**QUICK, **ADDED[row]).eval()
    with torch.no_grad():
        first, later, masks = encode_clip(method)
        memory = method.memorize(first, masks)
        frames = torch.cat([first.frames, later.frames])
        both = method.segment(method.encode(frames).for_rows(torch.tensor([1, 0])), memory).logits
        alone = [method.segment(f, memory.select([n])).logits for n, f in enumerate((later, first))]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("row", ADDED)
def test_a_saved_session_goes_on_exactly(row, make_frtm, clip, tmp_path):
    method = make_frtm(**QUICK, **ADDED[row])
    session = Session(method, short_side=None, device="cpu")
    session.annotate(clip.frames[0], clip.label_maps[0])
    session.save(tmp_path / "state.safetensors")
    restored = Session.restore(tmp_path / "state.safetensors", method, device="cpu")
    for frame in clip.frames[1:]:
        assert np.array_equal(session.step(frame), restored.step(frame))
        assert all(np.array_equal(restored.probabilities[i], p) for i, p in session.probabilities.items())


@pytest.mark.parametrize("row", ["Base net", "F.-T."])
def test_later_frames_leave_the_memory_as_it_is(row, make_frtm, encode_clip):
    method = make_frtm(**QUICK, **ADDED[row] | {"update_every": 1}).eval()
    with torch.inference_mode():
        first, later, masks = encode_clip(method)
        memory = method.memorize(first, masks)
        before = memory.clone()
        assert_equal(method.update(memory, later, method.segment(later, memory), masks), before)


# Base net ------------------------------------------------------------------------------------------------------------


def test_gradients_reach_every_trained_parameter_of_base_net(make_frtm, encode_clip):
    method = make_frtm(target="encoded")
    first, later, masks = encode_clip(method)
    logits = method.segment(later, method.memorize(first, masks)).logits
    F.binary_cross_entropy_with_logits(logits, masks).backward()
    for name, parameter in method.named_parameters():
        frozen = name.startswith("backbone.")
        assert parameter.requires_grad is not frozen, name
        assert frozen or (parameter.grad is not None and parameter.grad.abs().sum() > 0), name


def test_shares_of_the_target_encoder_are_convolutions_of_what_is_concatenated(make_frtm, encode_clip):
    method = make_frtm(target="encoded").eval()
    encoder, comparison = method.target_encoder, method.comparison
    coarse = []
    method.network.register_forward_pre_hook(lambda _, inputs: coarse.append(inputs[1]))

    def plainly(module, features, maps):
        kernel = torch.cat([module.of_features.weight, module.of_maps.weight], 1)
        x = F.conv2d(torch.cat([features, maps], 1), kernel, module.of_features.bias, padding=1)
        return module.second(x.relu())

    with torch.inference_mode():
        first, later, masks = encode_clip(method)
        method.segment(later, method.memorize(first, masks))
        cells = F.avg_pool2d(masks, method.config.target_stride)
        code = plainly(encoder, first.target.expand(2, -1, -1, -1), cells).relu()
        expected = plainly(comparison, later.target.expand(2, -1, -1, -1), code)
    torch.testing.assert_close(torch.cat(coarse), expected, atol=1e-5, rtol=1e-4)


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "guessed"}, "target must be one of learned, encoded, finetuned, got 'guessed'"),
        ({"target": "encoded", "target_only": True}, "target=encoded needs .* set target_only=false"),
        ({"target": "finetuned", "target_only": True}, "target=finetuned needs .* set target_only=false"),
        ({"target": "finetuned"}, "target=finetuned fine-tunes .* got shared and 100"),
        ({"finetune_samples": 0}, "finetune_samples must be 1 or more, got 0"),
        ({"finetune_batch": 0}, "finetune_batch must be 1 or more, got 0"),
        ({"finetune_iterations": -1}, "finetune_iterations must be 0 or more"),
        ({"finetune_lr": 0.0}, "finetune_lr must be above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FRTMConfig(**options)


@pytest.mark.parametrize("target", ["encoded", "finetuned"])
def test_options_are_read_by_name(target):
    options = {"target": target, "target_only": "false", "finetune_iterations": "7", "finetune_lr": "0.01"}
    chosen = configuration("frtm-lite", options)
    assert chosen.target == target
    assert chosen.finetune_iterations == 7
    assert chosen.needs_weights
