"""FRTM with a network of its own for each object: fine-tuned to the annotated frame, with either target model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.errors import InputError
from onemask.methods.frtm import LITE, FRTMConfig
from onemask.methods.frtm.model import FRTM
from onemask.methods.frtm.refiners import PerObject, Shared
from onemask.methods.method import Features

QUICK = {"refiner": "per_object", "finetune_samples": 3, "finetune_iterations": 3, "finetune_batch": 2}


@pytest.fixture(params=["learned", "finetuned"])
def target(request) -> str:
    return request.param


def first_frame_losses(method: FRTM, features: Features, masks: Tensor) -> Tensor:
    """(N,): cross entropy in the annotated frame."""
    logits = method.segment(features, method.memorize(features, masks)).logits
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))


def test_lowers_the_loss_and_leaves_the_method_untouched(target, make_frtm, encode_clip):
    losses = []
    for iterations in (1, 40):
        options = {**QUICK, "finetune_iterations": iterations, "finetune_lr": 0.01}
        method = make_frtm(target=target, **options).eval()
        before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        with torch.inference_mode():
            first, _, masks = encode_clip(method)
            losses.append(first_frame_losses(method, first, masks))
        assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
        assert all(parameter.grad is None for parameter in method.parameters())
    assert (losses[1] < 0.7 * losses[0]).all()


def test_the_mean_with_the_shared_network_is_between_them(target, make_frtm, encode_clip):
    found = {}
    for share in (1.0, 0.25):
        method = make_frtm(target=target, **QUICK, finetune_share=share).eval()
        with torch.inference_mode():
            first, _, masks = encode_clip(method)
            found[share] = method.memorize(first, masks).network
    before = torch.cat([parameter.flatten() for parameter in method.network.own_parameters().values()])
    torch.testing.assert_close(found[0.25], before + 0.25 * (found[1.0] - before))
    assert not torch.equal(found[0.25], found[1.0])


def test_moves_every_part_and_each_object_goes_its_own_way(target, make_frtm, encode_clip):
    method = make_frtm(target=target, **QUICK).eval()
    with torch.inference_mode():
        first, _, masks = encode_clip(method)
        memory = method.memorize(first, masks)
    own = method.network.own_parameters()
    parts = memory.network.split([parameter.numel() for parameter in own.values()], 1)
    for old, new in zip(own.values(), parts, strict=True):
        assert not torch.equal(old.flatten(), new[0])
        assert not torch.equal(new[0], new[1])
        assert not new.requires_grad
    for new in (memory.first, memory.last):
        assert not torch.equal(new[0], new[1])


def test_what_all_objects_share_stays_as_it_was_trained(make_frtm):
    network = make_frtm().network
    others = network.state_dict().keys() - network.own_parameters().keys()
    assert others
    assert all(".encoder.project." in name or ".encoder.first_of_features." in name for name in others)


def test_an_untuned_network_is_that_of_the_method(make_frtm, encode_clip):
    tuned, plain = make_frtm(**QUICK).eval(), make_frtm().eval()
    assert isinstance(tuned.refiner, PerObject)
    assert isinstance(plain.refiner, Shared)
    tuned.load_state_dict(plain.state_dict())  # what was trained for one runs in both
    with torch.inference_mode():
        first, later, masks = encode_clip(tuned)
        memory = tuned.memorize(first, masks)
        untuned = torch.cat([parameter.flatten() for parameter in tuned.network.own_parameters().values()])
        memory.network = untuned.expand(2, -1)
        torch.testing.assert_close(tuned.segment(later, memory).logits, plain.segment(later, memory).logits)


def test_target_models_are_those_of_the_method_without_it(make_frtm, encode_clip):
    tuned, plain = make_frtm(**QUICK).eval(), make_frtm().eval()
    with torch.inference_mode():
        first, later, masks = encode_clip(tuned)
        expected = plain.segment(later, plain.memorize(first, masks)).scores
        scores = tuned.segment(later, tuned.memorize(first, masks)).scores
    torch.testing.assert_close(scores, expected, atol=0.02, rtol=0)  # conjugate gradient enlarges rounding


def test_updates_are_those_of_the_target_model(make_frtm, encode_clip):
    method = make_frtm(**QUICK, update_every=1).eval()
    with torch.inference_mode():
        first, later, masks = encode_clip(method)
        before = method.memorize(first, masks)
        after = method.update(before.clone(), later, method.segment(later, before), masks)
    assert torch.equal(after.network, before.network)
    assert not torch.equal(after.last, before.last)


def test_is_determined_by_the_seed_of_the_configuration(target, make_frtm, encode_clip):
    memories = []
    for seed, drawn_before in ((0, 1), (0, 5)):
        method = make_frtm(target=target, **QUICK, seed=seed).eval()
        torch.rand(drawn_before)
        with torch.inference_mode():
            first, _, masks = encode_clip(method)
            memories.append(method.memorize(first, masks))
    for name, tensor in memories[0].tensors().items():
        assert torch.equal(tensor, memories[1].tensors()[name]), name


def test_options_say_which_refiner_there_is(make_frtm):
    with pytest.raises(InputError, match=r"refiner .*shared.*per_object"):
        FRTMConfig(refiner="none")
    assert isinstance(make_frtm(refiner="per_object", finetune_iterations=0).refiner, Shared)  # nothing is its own
    assert LITE.own_networks
    assert not replace(LITE, refiner="shared").own_networks
