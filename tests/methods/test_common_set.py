"""The common set of tests (onemask.testing) over every entry of the registry, small. A new kind is a line in SMALL."""

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
from onemask.methods.pmvos.model import PMVOS
from onemask.methods.ttvos import TTVOSConfig
from onemask.methods.videomatch import LITE as VIDEOMATCH
from onemask.methods.videomatch import VideoMatchConfig
from onemask.testing import *  # noqa: F403 - its tests and their fixtures
from onemask.testing import Candidate

# FRTM's fit to an object: a few iterations do all that many do, and every other frame is learned from.
FITTED: dict[str, Any] = {"first_samples": 2, "first_iterations": (2, 3), "first_last_iterations": 2}
FITTED |= {"update_every": 2, "update_iterations": 2, "capacity": 8, "finetune_samples": 3, "finetune_iterations": 3}


class Tiles(torch.nn.Module):
    """Proposals that need no network: overlapping tiles of the frame, with round masks."""

    def forward(self, frames: Tensor) -> Proposals:
        height, width = frames.shape[-2:]
        corners = [(x / 4, y / 4, x / 4 + 0.5, y / 4 + 0.5) for y in range(3) for x in range(3)]
        corners = [(x * width, y * height, to_x * width, to_y * height) for x, y, to_x, to_y in corners]
        boxes = torch.tensor(corners, device=frames.device)
        place = torch.linspace(-1, 1, 8, device=frames.device)
        mask = (1.5 - 1.5 * (place[:, None] ** 2 + place**2)).clamp(0, 1)
        count, scores = len(frames), torch.full((len(frames), 9), 0.5, device=frames.device)
        return Proposals(boxes.expand(count, 9, 4), scores, mask.expand(count, 9, 8, 8))


# Options that make an entry of the registry small, by kind; all others are the entry's own.
BACKBONE = "test_efficientnet"
SMALL: dict[type, dict[str, Any]] = {
    FRTMConfig: {"backbone": BACKBONE, "channels": 8, "width": 8, "fine_width": 0, **FITTED},
    FusionConfig: {"backbone": BACKBONE, "channels": 8, "width": 8, "fine_width": 8, "forget": 0.0, **FITTED},
    VideoMatchConfig: {"backbone": BACKBONE, "foreground": 384, "background": 768, "learned": 128, "added": 32},
    PMVOSConfig: {"backbone": BACKBONE, "channels": 16, "coarse_width": 12, "width": 12, "fine_width": 8},
    TTVOSConfig: {"backbone": BACKBONE, "width": 8, "short_width": 8, "fine_width": 8, "forget": 0.0}
    | {"transition": False, "coarse": False},  # which only losses of its own train
    DMNAOAConfig: {"backbone": BACKBONE, "widths": (4, 4, 8), "cells": 3, "projected": 8, "refine_widths": (4, 8, 8)}
    | {"every": 2, "frame_cells": 6, "slots": 2},
    EnsembleConfig: {},
}


def small(config: Any) -> Any:
    """A configuration of the registry with small networks and sets."""
    changes = dict(SMALL[type(config)])
    if isinstance(config, TTVOSConfig):
        if config.dilated:  # convolutions by their names, of three backbones, of which this is the quickest
            changes["backbone"] = "mobilenetv3_large_100"
        changes |= {"channels": 8, "vectors": 8} if config.channels else {}
    return replace(config, **changes)


def built(config: Any) -> Method:
    """A small method, with random weights."""
    if isinstance(config, DMNAOAConfig):
        return config.build(pretrained=False, proposals=Tiles())
    if isinstance(config, EnsembleConfig):
        return Ensemble([built(small(each.configuration())) for each in config.each], config)
    method: Method = config.build(pretrained=False)
    if isinstance(method, PMVOS) and method.attention is not None:
        with torch.no_grad():  # at first both are 0, and what stands before them learns nothing
            method.attention.spatial.weight.fill_(0.1)
            method.attention.channel.weight.fill_(0.1)
    return method


def tiny(name: str, **options: Any) -> Method:
    """A method of the registry, small, with other options."""
    return built(replace(small(configuration(name)), **options))


def entries() -> dict[str, Candidate]:
    """Every entry of the registry; those that are the same when they are small are one, with all their names."""
    names: dict[Any, list[str]] = {}
    for name in methods.METHODS:
        names.setdefault(small(configuration(name)), []).append(name)
    return {
        "+".join(alike): Candidate(
            lambda config=config: built(config),
            # An ensemble's members are trained by themselves, and FRTM and Fusion before they are fine-tuned.
            trains=not isinstance(config, EnsembleConfig) and not getattr(config, "own_networks", False),
            competes=isinstance(config, DMNAOAConfig),
        )
        for config, alike in names.items()
    }


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
    "videomatch with its backbone": Candidate(
        lambda: replace(VIDEOMATCH, foreground=384, background=768, learned=128, added=32).build(), follows=True
    ),
    **entries(),
}
# Options that give a method another memory or another network are tested where these are asked for.
VARIANTS = {
    "frtm encoded": Candidate(lambda: tiny("frtm-lite", target="encoded", refiner="shared")),
    "frtm with one network": Candidate(lambda: tiny("frtm-lite", refiner="shared")),
    "frtm fine-tuned target": Candidate(lambda: tiny("frtm-lite", target="finetuned"), trains=False),
    "videomatch without bounds": Candidate(lambda: tiny("videomatch", foreground=0, background=0, learned=0, added=0)),
    "dmn-aoa without matcher": Candidate(lambda: tiny("dmn-aoa", matcher=False)),
}
UNBOUNDED = {"videomatch without bounds"}  # it keeps all that it learns, as the paper does
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
    """Every entry of the registry is one of these; and no test of variants was renamed."""
    assert {name for names in METHODS for name in names.split("+")} >= set(methods.METHODS)
    promised = {*vars(testing), *vars(testing.TestVideo), *vars(testing.TestObjectsComeAndGo)}
    assert promised | set(vars(testing.TestGoesOnEqually)) >= OF_VARIANTS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "candidate" in metafunc.fixturenames:
        test = metafunc.function.__name__
        names = CANDIDATES if test in OF_VARIANTS else METHODS
        if test == "test_100_frames_cost_no_more_memory_than_30":
            names = {name: candidate for name, candidate in names.items() if name not in UNBOUNDED}
        metafunc.parametrize("candidate", list(names), indirect=True, scope="module")


@pytest.fixture(scope="module")
def candidate(request) -> Candidate:
    return CANDIDATES[request.param]
