"""What a frame costs a GPU before it computes anything: operations that are launched, and waits for their results.

Nothing runs here: tensors are fake ones, said to be on a GPU, so that methods take the way that they take there. What
needs a value of one (`item`, `nonzero`, a boolean index, ...), for which a GPU would have to be waited for, raises.
"""

from __future__ import annotations

import pytest
import torch
from test_common_set import tiny
from torch._subclasses.fake_tensor import FakeTensorMode

from onemask.blocks import rows
from onemask.blocks.folding import Folded
from onemask.labels import aggregate
from onemask.methods.method import Method
from pretended_gpu import Operations

# Of a whole frame, with batch norms, which a session folds away; a few more than there are, so that versions of PyTorch
# may differ. For five objects nearly as for one: rows are one batch.
AT_MOST = {"ttvos-lite": 200, "ttvos": 215, "pmvos": 205}


@pytest.fixture(autouse=True)
def without_folding(monkeypatch):
    """Whether batch norms can be folded is tried with values."""
    monkeypatch.setattr(Folded, "of", lambda self, network: network)


def operations_of_a_frame(method: Method, objects: int) -> int:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        make_fake(method)
        frames = torch.rand(1, 3, 64, 96, device="cuda")
        masks = torch.rand(objects, 1, 64, 96, device="cuda")
        memory = method.memorize(method.encode(frames), masks)
        with Operations() as counted:
            features = method.encode(frames)
            prediction = method.segment(features, memory)
            probabilities, _ = aggregate(prediction.logits.float().sigmoid(), background=method.background)
            method.update(memory, features, prediction, probabilities)
    return counted.number


def make_fake(method: Method) -> None:
    """Put tensors without values, said to be on a GPU, in the place of all that a method has."""
    for module in method.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
                    kept[name] = torch.nn.Parameter(fake, False) if kept is module._parameters else fake


@pytest.mark.parametrize("name", AT_MOST)
def test_a_frame_waits_for_nothing_and_launches_hardly_more_for_five_objects_than_for_one(name):
    one, five = (operations_of_a_frame(tiny(name).eval(), objects) for objects in (1, 5))
    assert one <= AT_MOST[name]
    assert five <= 1.1 * one


@pytest.mark.parametrize("name", ["frtm-lite", "fusion"])
def test_five_networks_of_their_own_launch_half_of_what_they_do_one_by_one(name, monkeypatch):
    """With values, on the CPU, as what memorizes a frame takes copies of it from there."""
    method = tiny(name, **{"finetune_samples": 2, "finetune_iterations": 1}).eval()
    features, numbers, found = method.encode(torch.rand(1, 3, 64, 96)), [], []
    masks = torch.zeros(5, 1, 64, 96)
    for row, mask in enumerate(masks):
        mask[:, 8:40, 8 + 8 * row : 40 + 8 * row] = 1
    memory = method.memorize(features, masks)
    with torch.no_grad():
        for run in (rows.row_by_row, rows._together):
            with monkeypatch.context() as patched, Operations() as counted:
                patched.setattr(rows, "row_by_row", run)
                found.append(method.segment(features, memory).logits)
            numbers.append(counted.number)
    assert torch.allclose(*found, atol=1e-4)
    assert numbers[1] < 0.5 * numbers[0]
