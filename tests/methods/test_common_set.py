"""The common set of tests (onemask.testing) over every method, small. A new method is a new line in METHODS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from onemask import methods, testing
from onemask.methods import configuration
from onemask.methods.dmn_aoa import DMNAOAConfig
from onemask.methods.dmn_aoa.proposals import Proposals
from onemask.methods.ensemble import EnsembleConfig
from onemask.methods.ensemble.model import Ensemble
from onemask.methods.frtm import FRTMConfig
from onemask.methods.fusion import FusionConfig
from onemask.methods.method import Method
from onemask.methods.pmvos import PMVOSConfig
from onemask.methods.ttvos import LITE as TTVOS_LITE
from onemask.methods.ttvos import TTVOSConfig
from onemask.methods.videomatch import LITE as VIDEOMATCH
from onemask.testing import *  # noqa: F403 - its tests and their fixtures
from onemask.testing import Candidate

FINE_TUNED: dict[str, Any] = {"refiner": "per_object", "finetune_samples": 3, "finetune_iterations": 3}


# FRTM's fit to an object: a few iterations do all that many do, and every other frame is learned from.
FITTED: dict[str, Any] = {"first_samples": 2, "first_iterations": (2, 3), "first_last_iterations": 2}
FITTED |= {"update_every": 2, "update_iterations": 2, "capacity": 8}


def tiny_frtm(**options: Any) -> Method:
    config = FRTMConfig("test_efficientnet", channels=8, width=8, **FITTED)
    return replace(config, **options).build(pretrained=False)


def tiny_fusion(**options: Any) -> Method:
    config = FusionConfig("test_efficientnet", channels=8, width=8, fine_width=8, forget=0.0, **FITTED)
    return replace(config, **options).build(pretrained=False)


def tiny_ensemble() -> Method:
    members = tiny_frtm(), tiny_ttvos_lite()
    return Ensemble(members, EnsembleConfig(("frtm-lite", "ttvos-lite")))


def tiny_pmvos() -> Method:
    method = PMVOSConfig("test_efficientnet", channels=16, coarse_width=12, width=12).build(pretrained=False)
    assert method.attention is not None
    with torch.no_grad():  # at first both are 0, and what stands before them learns nothing
        method.attention.spatial.weight.fill_(0.1)
        method.attention.channel.weight.fill_(0.1)
    return method


def tiny_ttvos() -> Method:
    """The authors' network, without what only losses of its own train."""
    config = TTVOSConfig("test_efficientnet", width=8, transition=False, coarse=False)
    return config.build(pretrained=False)


def tiny_ttvos_lite() -> Method:
    config = replace(TTVOS_LITE, backbone="test_efficientnet", channels=8, vectors=8, short_width=8, width=8)
    return replace(config, fine_width=8, forget=0.0, transition=False).build(pretrained=False)


class Tiles(torch.nn.Module):
    """Proposals that need no network: overlapping tiles of the frame, with round masks."""

    def forward(self, frames: Tensor) -> Proposals:
        height, width = frames.shape[-2:]
        corners = [(x / 4, y / 4, x / 4 + 0.5, y / 4 + 0.5) for y in range(3) for x in range(3)]
        boxes = torch.tensor(corners) * torch.tensor([width, height, width, height])
        place = torch.linspace(-1, 1, 8)
        mask = (1.5 - 1.5 * (place[:, None] ** 2 + place**2)).clamp(0, 1)
        count = len(frames)
        return Proposals(boxes.expand(count, 9, 4), torch.full((count, 9), 0.5), mask.expand(count, 9, 8, 8))


def tiny_dmn_aoa(**options: Any) -> Method:
    config = DMNAOAConfig(
        "test_efficientnet", widths=(4, 4, 8), cells=3, projected=8, refine_widths=(4, 8, 8), every=2, slots=2
    )
    return replace(config, **options).build(pretrained=False, proposals=Tiles())


METHODS = {
    "frtm target only": Candidate(
        lambda: FRTMConfig(
            "tf_efficientnet_lite0",
            channels=32,
            target_stride=8,
            capacity=8,
            target_only=True,
            first_iterations=(5, 10),
        ).build(),
        follows=True,
        trains=False,
    ),
    "frtm": Candidate(tiny_frtm),
    "ensemble": Candidate(tiny_ensemble, trains=False),
    "fusion": Candidate(tiny_fusion),
    "videomatch": Candidate(
        lambda: replace(VIDEOMATCH, foreground=384, background=768, learned=128, added=32).build(), follows=True
    ),
    "pmvos": Candidate(tiny_pmvos),
    "ttvos": Candidate(tiny_ttvos),
    "ttvos-lite": Candidate(tiny_ttvos_lite),
    "dmn-aoa": Candidate(tiny_dmn_aoa, competes=True),
}
# Options that give a method another memory or another network are tested where these are asked for.
VARIANTS = {
    "frtm encoded": Candidate(lambda: tiny_frtm(target="encoded")),
    # These three have what was trained as "frtm" and "fusion".
    "frtm fine-tuned": Candidate(lambda: tiny_frtm(**FINE_TUNED), trains=False),
    "frtm fine-tuned target": Candidate(lambda: tiny_frtm(target="finetuned", **FINE_TUNED), trains=False),
    "fusion fine-tuned": Candidate(lambda: tiny_fusion(**FINE_TUNED), trains=False),
    "dmn-aoa without matcher": Candidate(lambda: tiny_dmn_aoa(matcher=False)),
}
OF_VARIANTS = {
    "test_more_frames",
    "test_an_added_object_is_remembered_as_if_it_were_alone",
    "test_corrected",
    "test_a_copy",
    "test_bfloat16_gives_nearly_what_float32_does",
    "test_100_frames_cost_no_more_memory_than_30",
    "test_rows_together_equal_rows_alone",
    "test_rows_of_several_clips_equal_clips_alone",
    "test_gradients_reach_every_trainable_parameter",
    "test_state_dict_survives_saving",
    "test_says_what_it_went_by_and_finds_the_same",
}
CANDIDATES = METHODS | VARIANTS


def test_no_method_escapes() -> None:
    """Every method of the table is one of these, with other values; and no test of variants was renamed."""
    tested = {type(candidate.build().config) for candidate in METHODS.values()}
    assert {type(configuration(name)) for name in methods.METHODS} <= tested
    promised = {*vars(testing), *vars(testing.TestVideo), *vars(testing.TestObjectsComeAndGo)}
    assert promised | set(vars(testing.TestGoesOnEqually)) >= OF_VARIANTS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "candidate" in metafunc.fixturenames:
        names = CANDIDATES if metafunc.function.__name__ in OF_VARIANTS else METHODS
        metafunc.parametrize("candidate", list(names), indirect=True, scope="module")


@pytest.fixture(scope="module")
def candidate(request) -> Candidate:
    return CANDIDATES[request.param]
