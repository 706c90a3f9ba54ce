"""Which weights change, and how fast."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from onemask.errors import InputError
from onemask.training.optimisers import lr_at, moving_average, optimiser, set_lr, trained_parameters
from onemask.training.recipe import OptimiserConfig, ScheduleConfig


class Net(nn.Module):
    """A frozen backbone and a head of two parts."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.ModuleDict({"first": nn.Linear(2, 2), "second": nn.Linear(2, 2)})
        self.head_of_others = nn.Linear(2, 2)


class TestGroups:
    def test_without_any_the_method_decides(self):
        net = Net()
        groups = trained_parameters(net, {})
        assert list(groups) == [""]
        assert len(groups[""]) == 6
        assert not net.backbone.weight.requires_grad

    def test_the_longest_name_counts(self):
        net = Net()
        groups = trained_parameters(net, {"head": 0.5, "head.second": 0.1, "backbone": 0.01})
        assert {name: len(members) for name, members in groups.items()} == {
            "backbone": 2,
            "head": 2,
            "head.second": 2,
            "": 2,
        }
        assert groups["head.second"][0] is net.head["second"].weight
        assert net.backbone.weight.requires_grad

    def test_a_factor_of_nothing_freezes(self):
        net = Net()
        groups = trained_parameters(net, {"head": 0, "head.first.bias": 1})
        assert [len(members) for members in groups.values()] == [1, 2]
        assert not net.head["second"].weight.requires_grad

    def test_a_stage_begins_with_what_the_method_trains(self):
        net = Net()
        as_built = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
        trained_parameters(net, {"backbone": 1, "head": 0}, as_built)
        trained_parameters(net, {}, as_built)
        assert {name: p.requires_grad for name, p in net.named_parameters()} == as_built

    def test_names_that_fit_nothing(self):
        with pytest.raises(InputError, match=r"begins with 'hea'; they begin with \['backbone', 'head', 'head_of"):
            trained_parameters(Net(), {"hea": 1})

    def test_nothing_to_train(self):
        with pytest.raises(InputError, match="nothing is left to train"):
            trained_parameters(Net(), {"head": 0, "head_of_others": 0})


class TestOptimisers:
    @pytest.mark.parametrize(
        ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
    )
    def test_kinds_and_rates(self, name, kind):
        config = OptimiserConfig(name=name, lr=0.1, weight_decay=0.02, amsgrad=True, momentum=0.8, groups={"head": 0.5})
        made = optimiser(config, trained_parameters(Net(), config.groups))
        assert type(made) is kind
        assert [group["weight_decay"] for group in made.param_groups] == [0.02, 0.02]
        assert made.defaults.get("amsgrad", True)
        assert made.defaults.get("momentum", 0.8) == 0.8
        set_lr(made, 0.2)
        assert {group["name"]: group["lr"] for group in made.param_groups} == {"head": 0.1, "all others": 0.2}


class TestSchedules:
    def test_constant(self):
        assert [lr_at(ScheduleConfig(), 2.0, p) for p in (0, 0.5, 0.999)] == [2.0] * 3

    def test_warmup_rises_from_nothing(self):
        for name in ("constant", "cosine", "steps"):
            config = ScheduleConfig(name=name, warmup=0.2)
            assert [lr_at(config, 2.0, p) for p in (0, 0.1, 0.2)] == pytest.approx([0, 1, 2])

    def test_cosine(self):
        config = ScheduleConfig(name="cosine", warmup=0.5, factor=0.1)
        assert [lr_at(config, 2.0, p) for p in (0.5, 0.75, 1)] == pytest.approx([2, 1.1, 0.2])

    def test_steps(self):
        config = ScheduleConfig(name="steps", steps=[0.5, 0.9], factor=0.1)
        rates = [lr_at(config, 2.0, p) for p in (0, 0.49, 0.5, 0.89, 0.9, 0.999)]
        assert rates == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])

    def test_all_of_it_is_warmup(self):
        assert lr_at(ScheduleConfig(name="cosine", warmup=1.0), 2.0, 0.5) == pytest.approx(1)


class TestMovingAverage:
    def averaged(self, share: float, steps: int) -> AveragedModel:
        """Of weights that are -1000 at first and the number of the step, from 0 on, after each."""
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, -1000)
        average = AveragedModel(layer, multi_avg_fn=moving_average(share))
        for step in range(steps):
            nn.init.constant_(layer.weight, step)
            average.update_parameters(layer)
        return average

    def test_what_training_began_with_is_soon_forgotten(self):
        assert 175 <= float(self.averaged(0.998, 200).module.weight) < 199

    def test_in_the_long_run_a_step_leaves_its_share(self):
        assert float(self.averaged(0.9, 400).module.weight) == pytest.approx(399 - 0.9 / 0.1, abs=0.01)

    def test_what_does_not_change_stays_identical_to_the_bit(self):
        layer = nn.Linear(4, 1, bias=False)
        layer.weight.data = torch.tensor([[-0.0, torch.inf, -torch.inf, 0.1]])
        average = AveragedModel(layer, multi_avg_fn=moving_average(0.9))
        for _ in range(3):
            average.update_parameters(layer)
        assert torch.equal(average.module.weight.view(torch.int32), layer.weight.view(torch.int32))
